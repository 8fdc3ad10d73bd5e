"""What a decomposition returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.layout import BIAS, INTERACTION, Layout
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.decomposition.memory import Rows
from lmd_cli.decomposition.presentation import Presented, presentation
from lmd_cli.decomposition.pytrees import leaves, map_leaves, named_leaves
from lmd_cli.decomposition.registry import RuleInfo
from lmd_cli.decomposition.tracing.audit import OperationRecord, clean_stack, residual_tensor

Device: TypeAlias = torch.device | str
P = TypeVar("P", bound="Parts")


class DecomposedTensor:
    """A tensor of a result with its parts.

    Attributes:
        total: what the plain network computes.
        parts: the stack ``(len(rows), *total.shape)``.
        rows: of the layout; those that are not listed are zero.
    """

    __slots__ = ("parts", "rows", "total")

    def __init__(self, total: Tensor, parts: Tensor, rows: Rows):
        self.total, self.parts, self.rows = total, parts, rows

    def row(self, row: int) -> Tensor:
        """One part, zeros where the row is absent."""
        if row in self.rows:
            return self.parts[self.rows.index(row)]
        return torch.zeros_like(self.total)

    def to(self, device: Device) -> DecomposedTensor:
        """On another device."""
        return DecomposedTensor(self.total.to(device), self.parts.to(device), self.rows)

    def __repr__(self) -> str:
        shape = tuple(self.total.shape)
        return f"DecomposedTensor(shape={shape}, rows={self.rows})"


def map_tensors(function: Any, tree: Any) -> Any:
    """``function`` of every tensor, with or without parts."""
    kinds = (Tensor, DecomposedTensor)
    return map_leaves(lambda v: function(v) if isinstance(v, kinds) else v, tree)


def decomposed_leaves(tree: Any) -> list[DecomposedTensor]:
    """The tensors that carry parts."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, DecomposedTensor)]


class Parts(Presented):
    """An output, or a layer's, split into parts; mirrors the output's structure.

    Indexing (``result["segmentation"]``) narrows to a sub-structure.

    Attributes:
        tree: the output's structure, with a :class:`DecomposedTensor` wherever there are parts.
        total: what the plain function returns, bit for bit.
        parts: for each modality, its part of every tensor, in the same structure.
        bias: the bias part in the same structure; holds the interaction if it is reported there.
        interaction: what different modalities make together in products (appendix D.2), in the
            same structure; zeros where there are none. Always tracked, however it is reported.
        merged: whether ``bias`` holds the interaction (``bilinear="bias"``, the paper's choice).
        extras: for each modality, its extras' parts in the order given.
        layout: the rows of the stack.
        residual: max |total - sum of parts| / max |total|, the largest over the tensors.
    """

    def __init__(self, tree: Any, layout: Layout, merged: bool = True):
        self.tree, self.layout, self.merged = tree, layout, merged

    @property
    def total(self) -> Any:
        return map_leaves(lambda v: v.total if isinstance(v, DecomposedTensor) else v, self.tree)

    @property
    def parts(self) -> Mapping[str, Any]:
        names = self.layout.modalities
        return {name: self._sum(index) for index, name in enumerate(names)}

    @property
    def bias(self) -> Any:
        rows = (self.layout.bias, self.layout.interaction)
        return self._sum(*rows) if self.merged else self.own_bias

    @property
    def own_bias(self) -> Any:
        """The bias part without the interaction, whatever is reported."""
        return self._sum(self.layout.bias)

    @property
    def has_bias(self) -> bool:
        """Whether anything, zeros included, has been added to the bias part or the interaction."""
        rows = {row for x in decomposed_leaves(self.tree) for row in x.rows}
        return not rows.isdisjoint((self.layout.bias, self.layout.interaction))

    @property
    def interaction(self) -> Any:
        return self._sum(self.layout.interaction)

    @property
    def extras(self) -> Mapping[str, list[Any]]:
        layout = self.layout
        return {
            name: [self._sum(row) for row in layout.extra_rows(name)] for name in layout.modalities
        }

    @property
    def residual(self) -> float:
        return float(self.residual_tensor)

    @property
    def residual_tensor(self) -> Tensor:
        """:attr:`residual` as a tensor, which a GPU need not wait for."""
        carrying = decomposed_leaves(self.tree)
        stacks = [clean_stack(x.parts, x.rows, self.layout) for x in carrying]
        each = [residual_tensor(x.total, s) for x, s in zip(carrying, stacks, strict=True)]
        return torch.stack(each).max() if each else torch.zeros(())

    @property
    def named(self) -> dict[str, Any]:
        """Every part of the sum by name: the modalities', ``bias``, and ``interaction`` where it is
        reported there."""
        alone = {} if self.merged else {INTERACTION: self.interaction}
        return {**self.parts, BIAS: self.bias, **alone}

    def shares(self) -> dict[str, float]:
        """Each part's L2 norm, over all tensors that carry parts, over the sum of the norms; they
        add up to 1 (0 where all is zero)."""
        carrying = Parts(decomposed_leaves(self.tree), self.layout, self.merged)
        norms = {name: _norm(tensors) for name, tensors in carrying.named.items()}
        scale = sum(norms.values()) or 1.0
        return {name: norm / scale for name, norm in norms.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values: ``total``, ``parts`` by name (bias included), ``residual``, ``shares``;
        tensors in the output's structure, on the device where they are."""
        return {
            "total": self.total,
            "parts": self.named,
            "residual": self.residual,
            "shares": self.shares(),
        }

    def __repr__(self) -> str:
        shares = (f"  {name:<12}{share:7.1%}" for name, share in self.shares().items())
        return "\n".join([f"{type(self).__name__} of {self._shapes()}", *shares, self._ending()])

    def _shapes(self) -> str:
        """``(1, 1, 200, 200)``; of several tensors each with its place."""
        named = [(n, leaf) for n, leaf in named_leaves(self.total) if isinstance(leaf, Tensor)]
        return ", ".join(f"{name} {tuple(t.shape)}".strip() for name, t in named)

    def _ending(self) -> str:
        return f"  residual {self.residual:.1e}"

    def to(self: P, device: Device) -> P:
        """All tensors on another device."""
        moved = copy(self)
        moved.tree = map_tensors(lambda t: t.to(device), self.tree)
        return moved

    def __getitem__(self, key: Any) -> Parts:
        if isinstance(self.tree, (Tensor, DecomposedTensor)):
            raise TypeError("the output is one tensor: index .total, .bias or .parts[name] instead")
        return Parts(self.tree[key], self.layout, self.merged)

    def __iter__(self) -> Iterator[Any]:
        """The keys of a dict; the elements of a list or tuple, each with its parts."""
        if isinstance(self.tree, Mapping):
            return iter(self.tree)
        return (self[index] for index in range(len(self.tree)))

    def _sum(self, row: int, *more: int) -> Any:
        """A part of every tensor, or the sum of several; a plain tensor is bias."""

        def pick(t: Any) -> Tensor:
            if not isinstance(t, DecomposedTensor):
                return t if row == self.layout.bias else torch.zeros_like(t)
            return sum((t.row(other) for other in more if other in t.rows), t.row(row))

        return map_tensors(pick, self.tree)


class Decomposition(Parts):
    """Result of :func:`lmd_cli.decompose`.

    Attributes:
        layers: for the layers asked for, the parts of their output, in order of execution (a
            module that runs again is named ``name#2``).
        operations: one record for each operation, if an audit was asked for.
        coverage: kind and equation by (module, function) for everything that met parts.
        program: the linearised maps, ``None`` unless asked for (see :mod:`.linearised`); pickling
            leaves them out.
        variant: name of the rules.
    """

    def __init__(
        self,
        tree: Any,
        layout: Layout,
        layers: Mapping[str, Parts],
        operations: list[OperationRecord],
        coverage: Mapping[tuple[str, str], RuleInfo],
        program: Program | None,
        merged: bool = True,
        variant: str = "",
    ):
        super().__init__(tree, layout, merged)
        self.layers, self.operations = layers, operations
        self.coverage, self.program, self.variant = coverage, program, variant

    def to(self, device: Device) -> Decomposition:
        """All tensors on another device; the program stays where it was recorded."""
        moved = super().to(device)
        moved.layers = {name: layer.to(device) for name, layer in self.layers.items()}
        return moved

    def to_dict(self) -> dict[str, Any]:
        """As :meth:`Parts.to_dict`, and ``variant`` and ``layers``: the same of each layer."""
        layers = {name: layer.to_dict() for name, layer in self.layers.items()}
        return {"variant": self.variant, **super().to_dict(), "layers": layers}

    def layers_frame(self) -> Any:
        """A pandas frame of the layers asked for, in order of execution, one row each.

        Columns: ``layer``; ``shape`` of its output; ``residual``; ``share_NAME``, each part's share
        (:meth:`shares`).
        """
        return presentation().layers_frame(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the result, without its program, to a file for :func:`lmd_cli.load`.

        Raises:
            InputError: an output that is not made of tensors, dicts, lists and tuples.
            OSError: it cannot be written; a file that was there is left as it was.
        """
        from lmd_cli.decomposition.storage import write  # which needs the classes here

        write(self, Path(path))

    def _ending(self) -> str:
        layers = f", layers kept: {len(self.layers)}" if self.layers else ""
        return f"{super()._ending()}, rules {self.variant}{layers}"


def _norm(tensors: Sequence[Tensor]) -> float:
    """L2 norm over several tensors."""
    each = [torch.linalg.vector_norm(t.detach().abs().double()).cpu() for t in tensors]
    return float(torch.stack(each).norm()) if each else 0.0


def kept_program(decomposition: Decomposition) -> Program:
    """The maps of a decomposition.

    Raises:
        DecompositionError: they were not kept.
    """
    if decomposition.program is None:
        raise DecompositionError("the maps were not kept: decompose with keep_maps=True")
    return decomposition.program
