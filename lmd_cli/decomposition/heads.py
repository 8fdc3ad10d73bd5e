"""The end of a dense network as one linear map with a kernel of its own at every pixel.

Dense networks end in heads: a convolution to many channels, a norm, an activation, and a 1x1
convolution to few outputs o. At the operating point norm and activation are factors (eq. 9 to 11),
so for one modality's input h the head is

    out_o(p) = sum_c D_oc(p) (sum_ti W_c(t, i) h_i(p + t) - mean_c)       D_oc(p) = V_oc s_c g_c(p)
             = sum_ti K_o(p, t, i) h_i(p + t) - sum_c D_oc(p) mean_c

with the weights W and V of the convolutions, the norm's scale s, the slope g, and, under the ratio
rule, the mean of each input behind W. K costs about as much as one input through the head, and
then every input a tenth; it is made and used a few rows of the map at a time, in the cache. That
pays for a sample's many partners: their heads wait until several are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition.frozen import (
    FrozenAffine,
    FrozenCentred,
    FrozenMap,
    FrozenSlope,
    Stream,
)

#: Bytes of K that are worked out at a time.
BLOCK = 8 * 2**20

_NORMS = (nn.InstanceNorm2d, nn.BatchNorm2d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish)


@dataclass(frozen=True)
class Head:
    """Modules that follow each other in an ``nn.Sequential``.

    Attributes:
        first, last: convolutions.
        norm: behind the first, if there is one; then comes an activation.
    """

    first: nn.Conv2d
    norm: nn.Module | None
    last: nn.Conv2d

    @property
    def maps(self) -> int:
        """How many kept maps stand between the convolutions."""
        return 1 if self.norm is None else 2


def find_head(module: nn.Module) -> Head | None:
    """The first head in a module, if its calls are known to be nothing else.

    Subclasses, hooks and replaced methods could read what stands in between, which is never made.
    """
    if type(module) is not nn.Sequential or not _as_defined(module):
        return None
    layers = list(module)
    runs = (layers[i : i + length] for i in range(len(layers)) for length in (3, 4))
    return next((head for run in runs if (head := _head(run)) is not None), None)


def _head(run: Sequence[nn.Module]) -> Head | None:
    kinds: list[tuple[type, ...]] = [(nn.Conv2d,), _ACTIVATIONS, (nn.Conv2d,)]
    if len(run) == 4:
        kinds.insert(1, _NORMS)
    if len(run) != len(kinds) or not all(type(m) in k for m, k in zip(run, kinds, strict=True)):
        return None
    first, last = run[0], run[-1]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    usual = _keeps_size(first) and _keeps_size(last) and last.kernel_size == (1, 1)
    norm = run[1] if len(run) == 4 else None
    return Head(first, norm, last) if usual and all(map(_as_defined, run)) else None


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Odd and square, one step at a time, zeros around, all channels with all."""
    k = conv.kernel_size[0]
    usual = (conv.stride, conv.dilation, conv.groups) == ((1, 1), (1, 1), 1)
    around = conv.padding_mode == "zeros" and conv.padding == (k // 2, k // 2)
    return usual and around and conv.kernel_size == (k, k) and k % 2 == 1


def _as_defined(module: nn.Module) -> bool:
    hooked = module._forward_hooks or module._forward_pre_hooks
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return not hooked and not compiled and "forward" not in module.__dict__


@dataclass(frozen=True)
class LinearHead:
    """A head at one operating point.

    Attributes:
        weight: W ``(channels, channels in, k, k)``.
        factors: D ``(outputs, channels, Z, X)``.
        centred: whether each input's mean is taken off.
    """

    weight: Tensor
    factors: Tensor
    centred: bool

    @classmethod
    def of(cls, head: Head, maps: Sequence[FrozenMap], stream: Stream) -> LinearHead | None:
        """Out of the maps between the convolutions, if for this stream they are factors and, at
        most, a mean."""
        if stream.modality is None or len(maps) != head.maps:
            return None
        *norm, slope = maps
        if not isinstance(slope, FrozenSlope) or slope.shares is not None or len(slope.slope) > 1:
            return None
        factors = head.last.weight * slope.slope  # (outputs, C, 1, 1) and (1, C, Z, X)
        for found in norm:
            scale = _scale(found, head.norm, stream)
            if scale is None:
                return None
            factors = factors * scale
        return cls(head.first.weight, factors, any(isinstance(m, FrozenCentred) for m in norm))

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Inputs ``(channels in, Z, X)``, n of them, to ``(n, outputs, Z, X)``."""
        k, (outputs, _, z, x) = self.weight.shape[-1], self.factors.shape
        made = self.weight.new_empty(len(inputs), outputs * k * k, z * x)
        read = self.weight.new_empty(0)
        for pixels, kernel in self._blocks():
            read.resize_(len(kernel), len(inputs), self.weight.shape[1])
            for n, h in enumerate(inputs):
                read[:, n] = h.flatten(1)[:, pixels].t()
            spread = torch.bmm(kernel, read.transpose(1, 2))  # (pixels, outputs * k * k, n)
            made[:, :, pixels] = spread.permute(2, 1, 0)
        out = F.fold(made, (z, x), k, padding=k // 2)  # adds up what counts for a pixel
        return out.sub_(self._means(inputs)) if self.centred else out

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The map's pixels, some rows at a time, and K there, ``(pixels, outputs * k * k, channels
        in)``, in the same memory every time."""
        k, (outputs, _, z, x) = self.weight.shape[-1], self.factors.shape
        rows = min(z, max(1, BLOCK // (x * outputs * self.weight[0].nbytes)))
        kernel = self.weight.new_empty(rows * x, outputs, k, k, self.weight.shape[1])
        around = F.pad(self.factors, (k // 2,) * 4)
        for top in range(0, z, rows):
            count = min(rows, z - top)
            here = kernel[: count * x]
            self._kernel(around[:, :, top : top + count + k - 1], here)
            yield slice(top * x, (top + count) * x), here.flatten(1, 3)

    def _kernel(self, around: Tensor, out: Tensor) -> None:
        """K of some rows by the pixel q that is read: ``K_o(q, u) = sum_c D_oc(q + u) W_c(-u)``
        counts for pixel q + u.

        Args:
            around: D in these rows and those that they count for.
            out: ``(pixels, outputs, k, k, channels in)``.
        """
        k = self.weight.shape[-1]
        z, x = around.shape[-2] - k + 1, around.shape[-1] - k + 1
        for o, image in enumerate(around.movedim(1, -1)):
            for i in range(k):
                for j in range(k):
                    counts = image[i : i + z, j : j + x].reshape(z * x, -1)  # (pixels, C)
                    torch.mm(counts, self.weight[:, :, -1 - i, -1 - j], out=out[:, o, i, j])

    def _means(self, inputs: Sequence[Tensor]) -> Tensor:
        """``sum_c D_oc(p) mean_c``, (n, outputs, Z, X)."""
        sums = torch.stack([self._sums(h) for h in inputs])
        means = torch.einsum("cizx,nixz->nc", self.weight, sums) / inputs[0][0].numel()
        return torch.einsum("oczx,nc->nozx", self.factors, means)

    def _sums(self, h: Tensor) -> Tensor:
        """Sums over all pixels p of ``h(p + t)``: (channels in, k, k), X before Z."""
        rows, columns = (self._centres(size).to(h) for size in h.shape[-2:])
        return (h @ columns).transpose(-2, -1) @ rows

    def _centres(self, size: int) -> Tensor:
        """Whether there is a pixel p from which q = p + t, for each q of a line: (size, k)."""
        k = self.weight.shape[-1]
        p = torch.arange(size).unsqueeze(1) - torch.arange(k) + k // 2
        return (p >= 0) & (p < size)


def _scale(norm: FrozenMap, module: nn.Module | None, stream: Stream) -> Tensor | None:
    """A norm's factor for each channel, if a stream gets nothing else but a mean taken off."""
    if isinstance(norm, FrozenCentred) and type(module) is nn.InstanceNorm2d:
        return norm.scale  # its mean is over one input's pixels
    if isinstance(norm, FrozenAffine) and not stream.constant_share(norm.split, norm.origin):
        return norm.scale
    return None
