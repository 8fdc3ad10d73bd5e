"""Following the bias alone: the modalities' parts are needed for nothing but products of features,
and are left out behind the last one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from torch import Tensor

from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.tensor import DecomposedTensor

#: Parts ``(len(rows), *shape)`` and their rows.
Stack: TypeAlias = tuple[Tensor, tuple[int, ...]]


class Forgetting:
    """Drops the modalities' parts when the last product that needs them is done.

    Args:
        layout: rows of the stack.
        products: how many products are met until then (:func:`~.frozen.products`).
    """

    def __init__(self, layout: Layout, products: int):
        self._layout, self._left = layout, products

    def after_product(self, alive: Iterable[DecomposedTensor], found: Stack) -> Stack:
        """What is kept of a product's parts.

        Args:
            alive: all decomposed tensors; they lose their modalities' parts with the last product.
            found: the product's parts.

        Returns:
            As given; behind the last product the bias and the interaction as one.
        """
        self._left -= 1
        if self._left > 0:
            return found
        for x in alive if self._left == 0 else ():
            x.replace(x.total, *self._rest(x.parts, x.rows))
        parts, rows = self._rest(*found)
        return (parts.sum(0, keepdim=True), (self._layout.bias,)) if rows else (parts, rows)

    def _rest(self, parts: Tensor, rows: tuple[int, ...]) -> Stack:
        """The rows behind the modalities'."""
        first = sum(row < self._layout.bias for row in rows)
        return parts[first:], rows[first:]
