"""What a decomposition returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.audit import OperationRecord, clean_stack, residual
from lmd_cli.decomposition.frozen import FrozenMap
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.registry import Rule
from lmd_cli.decomposition.tensor import DecomposedTensor, plain
from lmd_cli.decomposition.tree import decomposed_leaves, map_tensors


class Parts:
    """An output, or a layer's, split into parts; mirrors the output's structure.

    Indexing (``result["segmentation"]``) narrows to a sub-structure.

    Attributes:
        total: what the plain function returns, bit for bit.
        parts: for each modality, its part of every tensor, in the same structure.
        bias: the bias part in the same structure.
        extras: for each modality, its extras' parts in the order given.
        layout: the rows of the stack.
        residual: max |total - sum of parts| / max |total|, the largest over the tensors.
    """

    def __init__(self, tree: Any, layout: Layout):
        self._tree, self.layout = tree, layout

    @property
    def total(self) -> Any:
        return map_tensors(plain, self._tree)

    @property
    def parts(self) -> Mapping[str, Any]:
        names = self.layout.modalities
        return {name: self._row(index) for index, name in enumerate(names)}

    @property
    def bias(self) -> Any:
        return self._row(self.layout.bias)

    @property
    def extras(self) -> Mapping[str, list[Any]]:
        layout = self.layout
        return {
            name: [self._row(row) for row in layout.extra_rows(name)] for name in layout.modalities
        }

    @property
    def residual(self) -> float:
        values = [
            residual(x.total, clean_stack(x, self.layout)) for x in decomposed_leaves(self._tree)
        ]
        return max(values, default=0.0)

    def __getitem__(self, key: Any) -> Parts:
        if isinstance(self._tree, Tensor):
            raise TypeError("the output is one tensor: index .total, .bias or .parts[name] instead")
        return Parts(self._tree[key], self.layout)

    def __iter__(self) -> Iterator[Any]:
        """The keys of a dict; the elements of a list or tuple, each with its parts."""
        if isinstance(self._tree, Mapping):
            return iter(self._tree)
        return (self[index] for index in range(len(self._tree)))

    def _row(self, row: int) -> Any:
        return map_tensors(lambda t: self._pick(t, row), self._tree)

    def _pick(self, t: Tensor, row: int) -> Tensor:
        if isinstance(t, DecomposedTensor):
            return t.row(row)
        return t if row == self.layout.bias else torch.zeros_like(t)  # a plain output is bias


class Decomposition(Parts):
    """Result of :func:`lmd_cli.decompose`.

    Attributes:
        layers: for the layers asked for, the parts of their output, in order of execution (a
            module that runs again is named ``name#2``).
        operations: one record for each operation, if an audit was asked for.
        coverage: rule by (module, function) for everything that met a decomposed tensor.
        tape: the linearised maps, ``None`` unless asked for (see :func:`~.replay.replay`).
    """

    def __init__(
        self,
        tree: Any,
        layout: Layout,
        layers: Mapping[str, Parts],
        operations: list[OperationRecord],
        coverage: Mapping[tuple[str, str], Rule],
        tape: list[FrozenMap] | None,
    ):
        super().__init__(tree, layout)
        self.layers, self.operations = layers, operations
        self.coverage, self.tape = coverage, tape
