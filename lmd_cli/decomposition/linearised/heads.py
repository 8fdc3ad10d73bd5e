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

A head is found in the program, as steps that follow each other and whose results nobody else reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.linearised.program import Output, Program, Step, places_of
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.maps import Affine
from lmd_cli.decomposition.memory import Place
from lmd_cli.decomposition.pytrees import leaves

#: Bytes of K that are worked out at a time.
BLOCK = 8 * 2**20
#: Inputs for each output of a head from which on it pays to work out its kernel.
PAYS_FROM = 6


@dataclass(frozen=True, eq=False)
class Head:
    """Steps of a program.

    Attributes:
        steps: the first convolution, the norm if there is one, the activation, the last one.
    """

    steps: tuple[Step, ...]

    @property
    def start(self) -> Place:
        """Where its input lies."""
        return _first(self.steps[0]).reads[0]

    @property
    def end(self) -> Place:
        """Where its output goes."""
        return _first(self.steps[-1]).place


def find_heads(program: Program) -> list[Head]:
    """The heads whose outputs are the function's, and are used no further."""
    touching: dict[int, set[int]] = {}
    for index, step in enumerate(program.steps):
        for place in places_of(step):
            touching.setdefault(place.key, set()).add(index)
    ends = {leaf.key for leaf in leaves(program.output) if isinstance(leaf, Place)}
    found = (_ending_at(program, index, touching, ends) for index in range(len(program.steps)))
    return [head for head in found if head is not None]


def _ending_at(
    program: Program, last: int, touching: dict[int, set[int]], ends: set[int]
) -> Head | None:
    """The head whose last convolution is a step."""
    final = program.steps[last]
    if not _keeps_size(final) or final.given["weight"].shape[-1] != 1:
        return None
    if _first(final).place.key not in ends or touching[_first(final).place.key] != {last}:
        return None
    for length in (3, 4):
        chain = _chain(program, last, length)
        if chain is None or not _keeps_size(program.steps[chain[0]]):
            continue
        inner = {_first(program.steps[i]).place.key for i in chain[:-1]}
        if inner & ends or any(touching[key] - {*chain} for key in inner):
            continue
        kinds = [program.steps[i].kind for i in chain[1:-1]]
        if kinds == ["normalisation", "activation"][4 - length :]:
            return Head(tuple(program.steps[i] for i in chain))
    return None


def _chain(program: Program, last: int, length: int) -> list[int] | None:
    """Steps each of which makes the only operand of the next."""
    chain = [last]
    while len(chain) < length:
        reads = _first(program.steps[chain[0]]).reads
        if len(reads) != 1:
            return None
        before = _maker(program, chain[0], reads[0])
        if before is None:
            return None
        chain.insert(0, before)
    return chain


def _maker(program: Program, before: int, place: Place) -> int | None:
    """The last step that wrote to a storage, if it made just what lies at a place."""
    for index in reversed(range(before)):
        step = program.steps[index]
        if any(output.place.key == place.key for output in step.outputs):
            return index if _alike(_first(step).place, place) else None
    return None


def _alike(a: Place, b: Place) -> bool:
    strides = zip(a.shape, a.stride, b.stride, strict=False)
    same = a.key == b.key and a.shape == b.shape and a.offset == b.offset and a.dtype == b.dtype
    return same and all(x == y for size, x, y in strides if size > 1)


def _first(step: Step) -> Output:
    return step.outputs[0]


def _keeps_size(step: Step) -> bool:
    """A convolution of images, odd and square, one step at a time, zeros around, all channels with
    all; of one image, by weights that are constants."""
    given: dict[str, Any] = step.given
    weight = given.get("weight")
    if step.operator != "convolution" or not isinstance(weight, Tensor) or weight.dim() != 4:
        return False
    k = weight.shape[-1]
    usual = given["groups"] == 1 and not given["transposed"] and weight.shape[-2] == k and k % 2
    ways = (("stride", 1), ("dilation", 1), ("padding", k // 2))
    usual = usual and all(set(given[name]) == {value} for name, value in ways)
    return bool(usual) and isinstance(given["input"], Place) and given["input"].shape[0] == 1


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
    def of(cls, head: Head, stream: Stream, inputs: int) -> LinearHead | None:
        """If for this stream what stands between the convolutions are factors and, at most, a
        mean, and that many inputs make it pay.

        Not on a GPU, where convolutions are cheap beside moving kernels through memory.
        """
        first, *between, last = head.steps
        weight, factors = first.given["weight"], last.given["weight"]
        if weight.is_cuda or inputs < PAYS_FROM * len(factors):
            return None
        if not weight.dtype == factors.dtype == head.start.dtype == head.end.dtype:
            return None
        centred = False
        for step in between:
            found = _first(step).map
            if not isinstance(found, Affine) or not _is_factor(step, found, stream):
                return None
            factors, centred = factors * found.factor, centred or found.centred
        channels = (len(last.given["weight"]), *head.steps[0].outputs[0].place.shape[1:])
        return cls(weight, factors.expand(channels), centred)

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


def _is_factor(step: Step, found: Affine, stream: Stream) -> bool:
    """Whether a map multiplies this stream, perhaps after taking off its mean over the image."""
    if found.factor is None or found.shares is not None:
        return False
    if found.constant is not None and stream.weight(_first(step)):
        return False
    return not found.centred or "batch_norm" in step.operator
