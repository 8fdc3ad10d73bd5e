"""Runs that track less than all parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, Bilinear, Map, Stack
from lmd_cli.decomposition.memory import Piece
from lmd_cli.decomposition.tracing.session import Session
from lmd_cli.decomposition.variant import COALITION_RULES


class BiasSession(Session):
    """Follows all parts through a number of products; then, with no features left to be multiplied,
    the bias with the interaction only.

    All of the way, where activations' slopes are made from the parts.

    Args:
        products: how many; after these no two factors depend on the inputs.
    """

    def __init__(self, *given: Any, products: int, **options: Any):
        super().__init__(*given, **options)
        self._left = products
        self._alone = self._variants.activations.isdisjoint(COALITION_RULES)

    def parts(self, t: Tensor) -> Stack:
        (stack, rows), bias = super().parts(t), (self.layout.bias,)
        if self._left > 0 or not self._alone or not rows or rows == bias:
            return stack, rows
        first = sum(row < self.layout.bias for row in rows)
        if first == len(rows):  # zero, yet no constant
            return torch.zeros_like(t).unsqueeze(0), bias
        return stack[first:].sum(0, keepdim=True), bias

    def pieces(self, t: Tensor) -> Sequence[Piece]:
        return super().pieces(t) if self._left > 0 or not self._alone else ()

    def _through(self, linear_map: Map, total: Tensor) -> Stack:
        made = super()._through(linear_map, total)
        if isinstance(linear_map, Bilinear):
            self._left -= 1
        return made


class MapsSession(Session):
    """Knows which tensors carry parts of the inputs, but not which: for the maps alone."""

    def _through(self, linear_map: Map, total: Tensor) -> Stack:
        rows = {row for t in linear_map.operands for row in self.parts(t)[1]}
        if isinstance(linear_map, Affine) and (linear_map.constant is not None or not rows):
            rows.add(self.layout.bias)
        return total.new_zeros((len(rows), *total.shape)), tuple(sorted(rows))
