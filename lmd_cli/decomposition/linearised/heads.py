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

A head is found in the program, as steps one after the other whose results nobody else reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.linearised.program import Program, Step
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.maps import Affine
from lmd_cli.decomposition.memory import Place
from lmd_cli.decomposition.pytrees import leaves

#: Bytes of K that are worked out at a time.
BLOCK = 8 * 2**20
#: Inputs for each output of a head from which on it pays to work out its kernel.
PAYS_FROM = 6
#: The first convolution, the norm if there is one, the activation, the last convolution.
Head: TypeAlias = tuple[Step, ...]


def find_heads(program: Program) -> list[Head]:
    """The heads whose outputs are the function's, and are used no further."""
    steps = program.steps
    chains = [tuple(steps[i : i + n]) for n in (3, 4) for i in range(len(steps) - n + 1)]
    return [chain for chain in chains if _is_head(chain, program)]


def _is_head(chain: Head, program: Program) -> bool:
    kinds = [step.kind for step in chain[1:-1]]
    if kinds not in (["activation"], ["normalisation", "activation"]):
        return False
    if not (_keeps_size(chain[0]) and _keeps_size(chain[-1], kernel=1)):
        return False
    outputs = [step.outputs[0] for step in chain]
    if any(after.reads != (before.place,) for before, after in pairwise(outputs)):
        return False
    others = [step for step in program.steps if step not in chain]
    elsewhere = {place.key for step in others for place in step.places}
    ends = {leaf.key for leaf in leaves(program.output) if isinstance(leaf, Place)}
    *inner, last = (output.place.key for output in outputs)
    return last in ends - elsewhere and (ends | elsewhere).isdisjoint(inner)


def _keeps_size(step: Step, kernel: int | None = None) -> bool:
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
    one = isinstance(given["input"], Place) and given["input"].shape[0] == 1
    return bool(usual) and one and kernel in (None, k)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head at one operating point.

    Attributes:
        steps: of the program.
        start, end: where its input lies, and where its output goes.
        weight: W ``(channels, channels in, k, k)``.
        factors: D ``(outputs, channels, Z, X)``.
        centred: whether each input's mean is taken off.
    """

    steps: Head
    start: Place
    end: Place
    weight: Tensor
    factors: Tensor
    centred: bool

    @classmethod
    def of(cls, head: Head, stream: Stream, inputs: int) -> LinearHead | None:
        """If for this stream what stands between the convolutions are factors and, at most, a
        mean, and that many inputs make it pay.

        Not on a GPU, where convolutions are cheap beside moving kernels through memory.
        """
        first, *between, last = head
        weight, factors = first.given["weight"], last.given["weight"]
        if weight.is_cuda or inputs < PAYS_FROM * len(factors):
            return None
        start, end = first.outputs[0].reads[0], last.outputs[0].place
        if not weight.dtype == factors.dtype == start.dtype == end.dtype:
            return None
        centred, scaled = False, factors
        for step in between:
            linear_map = step.outputs[0].map
            if not isinstance(linear_map, Affine):
                return None
            factor = _factor(step, linear_map, stream)
            if factor is None:
                return None
            scaled, centred = scaled * factor, centred or linear_map.centred
        scaled = scaled.expand(len(factors), *first.outputs[0].place.shape[1:])
        return cls(head, start, end, weight, scaled, centred)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Inputs ``(channels in, Z, X)``, n of them, to ``(n, outputs, Z, X)``."""
        k, (outputs, _, z, x) = self.weight.shape[-1], self.factors.shape
        rows = max(1, BLOCK // (x * outputs * self.weight[0].nbytes))
        around = F.pad(self.factors, (k // 2,) * 4)
        made = self.weight.new_empty(len(inputs), outputs * k * k, z * x)
        for top in range(0, z, rows):
            kernel = self._kernel(around[:, :, top : top + rows + k - 1])
            pixels = slice(top * x, top * x + len(kernel))
            read = kernel.new_empty(len(kernel), len(inputs), kernel.shape[-1])
            for n, h in enumerate(inputs):
                read[:, n] = h.flatten(1)[:, pixels].t()
            spread = torch.bmm(kernel, read.transpose(1, 2))  # (pixels, outputs * k * k, n)
            made[:, :, pixels] = spread.permute(2, 1, 0)
        out = F.fold(made, (z, x), k, padding=k // 2)  # adds up what counts for a pixel
        return out.sub_(self._means(inputs)) if self.centred else out

    def _kernel(self, around: Tensor) -> Tensor:
        """K of some rows by the pixel q that is read: ``K_o(q, u) = sum_c D_oc(q + u) W_c(-u)``
        counts for pixel q + u.

        Args:
            around: D in these rows and those that they count for.

        Returns:
            ``(pixels, outputs * k * k, channels in)``.
        """
        k, channels = self.weight.shape[-1], self.weight.shape[1]
        z, x = around.shape[-2] - k + 1, around.shape[-1] - k + 1
        kernel = around.new_empty(z * x, len(around), k, k, channels)
        for o, image in enumerate(around.movedim(1, -1)):
            for i in range(k):
                for j in range(k):
                    counts = image[i : i + z, j : j + x].reshape(z * x, -1)  # (pixels, C)
                    torch.mm(counts, self.weight[:, :, -1 - i, -1 - j], out=kernel[:, o, i, j])
        return kernel.flatten(1, 3)

    def _means(self, inputs: Sequence[Tensor]) -> Tensor:
        """``sum_c D_oc(p) mean_c``, (n, outputs, Z, X)."""
        sums = torch.stack([self._sums(h) for h in inputs])
        means = torch.einsum("cizx,nizx->nc", self.weight, sums) / inputs[0][0].numel()
        return torch.einsum("oczx,nc->nozx", self.factors, means)

    def _sums(self, h: Tensor) -> Tensor:
        """Sums over all pixels p of ``h(p + t)``: (channels in, k, k)."""
        k = self.weight.shape[-1]
        # Whether there is a pixel p from which q = p + t, for each q of a line: (size, k).
        reach = [h.new_ones(n, k).tril(k // 2).triu(k // 2 - n + 1) for n in h.shape[1:]]
        return torch.einsum("iqr,rx,qz->izx", h, reach[1], reach[0])


def _factor(step: Step, linear_map: Affine, stream: Stream) -> Tensor | None:
    """What a map multiplies this stream by, perhaps after taking off its mean over the image;
    nothing if it does more."""
    if linear_map.edges is not None and stream.modality is not None:
        edge = linear_map.edges.get((stream.modality, stream.edge))
        return None if edge is None or edge.constant is not None else edge.factor
    if linear_map.slopes is not None and stream.modality is not None:
        return linear_map.slopes[stream.modality]
    if linear_map.shares is not None or (linear_map.centred and "batch_norm" not in step.operator):
        return None
    constant = linear_map.constant is not None and stream.weight(step.outputs[0])
    return None if constant else linear_map.factor
