"""The tensor that carries parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.graphs import recording


@dataclass(frozen=True)
class Piece:
    """Parts that are non-zero only in channels ``[start, start + size)`` of a concatenation."""

    start: int
    size: int
    rows: tuple[int, ...]
    parts: Tensor  # (len(rows), B, size, ...)


class DecomposedTensor(torch.Tensor):
    """A tensor whose data is the total, with its parts stacked beside it.

    The total is bit for bit what the plain network computes. ``parts`` has shape
    ``(len(rows), *total.shape)``; row ``rows[i]`` of the :class:`~.layout.Layout` is
    ``parts[i]``, and rows that are not listed are zero.
    """

    _total: Tensor
    _parts: Tensor | None
    _pieces: Sequence[Piece]
    rows: tuple[int, ...]
    version: int

    @classmethod
    def wrap(cls, total: Tensor, parts: Tensor, rows: tuple[int, ...]) -> DecomposedTensor:
        """Joins a plain total (any shape) and its parts ``(len(rows), *total.shape)``."""
        self = total.as_subclass(cls)
        return self.replace(total, parts, rows)

    @classmethod
    def wrap_pieces(cls, total: Tensor, pieces: Sequence[Piece]) -> DecomposedTensor:
        """Joins a total ``(B, C, ...)`` and parts that each fill some channels only."""
        self = total.as_subclass(cls)
        self._total, self._parts, self._pieces = total, None, tuple(pieces)
        self.rows = tuple(sorted({row for piece in pieces for row in piece.rows}))
        self.version = writes_to(total)
        return self

    @property
    def total(self) -> Tensor:
        """The plain value."""
        return self._total

    @property
    def pieces(self) -> Sequence[Piece]:
        """Channel-wise pieces while nobody has asked for the whole stack, else empty."""
        return self._pieces if self._parts is None else ()

    @property
    def parts(self) -> Tensor:
        """The stack ``(len(rows), *total.shape)``."""
        if self._parts is None:
            stack = self._total.new_zeros((len(self.rows), *self._total.shape))
            for piece in self._pieces:
                channels = stack[:, :, piece.start : piece.start + piece.size]
                put_rows(channels, [self.rows.index(row) for row in piece.rows], piece.parts)
            self._parts = stack
        return self._parts

    def replace(self, total: Tensor, parts: Tensor, rows: tuple[int, ...]) -> DecomposedTensor:
        """Gives this very tensor new contents (what an in-place operation does)."""
        self._total, self._parts, self._pieces, self.rows = total, parts, (), rows
        self.version = writes_to(total)
        return self

    @property
    def written_behind(self) -> bool:
        """Whether the total was written to through a plain alias, such as ``x.detach()``."""
        return writes_to(self._total) != self.version

    def part_addresses(self) -> set[int]:
        """The storages that hold the parts (those of no elements left out)."""
        stacks = [piece.parts for piece in self.pieces] or [self.parts]
        return {stack.untyped_storage().data_ptr() for stack in stacks} - {0}

    def row(self, row: int) -> Tensor:
        """One part, zeros where the row is absent."""
        if row in self.rows:
            return self.parts[self.rows.index(row)]
        return torch.zeros_like(self._total)

    def expand_rows(self, rows: tuple[int, ...]) -> Tensor:
        """The stack with exactly ``rows`` (a superset of this tensor's), zeros where absent."""
        if rows == self.rows:
            return self.parts
        stack = self._total.new_zeros((len(rows), *self._total.shape))
        put_rows(stack, [rows.index(row) for row in self.rows], self.parts)
        return stack

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # pragma: no cover - the session's mode comes first while one is open
        if getattr(func, "__name__", "") in ("__repr__", "__str__", "__format__"):
            plain = [a.total if isinstance(a, cls) else a for a in args]
            return func(*plain, **(kwargs or {}))
        raise DecompositionError("a decomposed tensor was used outside its decomposition")


def put_rows(stack: Tensor, at: Sequence[int], values: Tensor) -> None:
    """``stack[at] = values`` without a list of indices, which a GPU would have to wait for."""
    for i, value in zip(at, values, strict=True):
        stack[i] = value


def take_rows(stack: Tensor, at: Sequence[int]) -> Tensor:
    """``stack[at]`` likewise; a view where the rows follow each other."""
    if not at:
        return stack[:0]
    if list(at) == list(range(at[0], at[0] + len(at))):
        return stack[at[0] : at[0] + len(at)]
    return torch.stack([stack[i] for i in at])


def writes_to(t: Tensor) -> int:
    """How often a tensor's memory was written to; views count together."""
    return 0 if t.is_inference() else t._version


def plain(value: Any) -> Any:
    """The total of a decomposed tensor, anything else as it is."""
    return value._total if isinstance(value, DecomposedTensor) else value


def not_finite(x: Tensor) -> str:
    """What a tensor holds besides finite numbers, for a message; empty if it holds nothing else,
    or while a CUDA graph is recorded, which cannot look."""
    if x.numel() == 0 or recording(x):
        return ""
    if bool(x.sum().isfinite()):  # one pass over memory; a sum of large numbers may overflow
        return ""
    if bool(x.isnan().any()):
        return "NaN"
    return "infinite values" if bool(x.isinf().any()) else ""
