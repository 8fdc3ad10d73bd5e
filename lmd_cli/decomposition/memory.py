"""Where parts lie: in one buffer for each storage, laid out as the totals are in theirs.

A view of a total is the same view of every part, so views need no rule, and a write through one
tensor is seen by every other that shares its memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError

#: Which row of the layout each row of a stack is, in order.
Rows = tuple[int, ...]


class Place:
    """A tensor's place in its storage: what ``as_strided`` takes.

    Attributes:
        key: number of the storage.
        conjugate, negative: the tensor reads its memory conjugated, or negated.
    """

    __slots__ = ("conjugate", "device", "dtype", "key", "negative", "offset", "shape", "stride")

    def __init__(self, t: Tensor, key: int):
        self.key, self.dtype, self.device = key, t.dtype, t.device
        self.shape, self.stride = tuple(t.shape), t.stride()
        self.offset, self.negative = int(t.storage_offset()), t.is_neg()
        self.conjugate = t.is_conj() if t.is_complex() else False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and _fields(self) == _fields(other)

    @property
    def extent(self) -> int:
        """How many elements of memory lie between its first and last element."""
        return extent_of(self.shape, self.stride)


_fields = attrgetter(*Place.__slots__)


def extent_of(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Elements of memory from the first to the last one of a strided tensor."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))


def overlaps(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether several elements of a strided tensor may lie at one place."""
    reach = 1
    for step, n in sorted(zip(stride, shape, strict=True)):
        if n > 1 and step < reach:
            return True
        reach += (n - 1) * step
    return False


class Piece(NamedTuple):
    """Parts that are not zero in some channels of a concatenation only, from ``start`` on."""

    start: int
    stack: Tensor  # (len(rows), B, channels, ...)
    rows: Rows


class Buffer:
    """Parts of all that lies in one storage.

    Attributes:
        rows: of the layout; those that are not listed are zero.
        data: ``(len(rows), n)``: element i of a row belongs to element ``start + i`` of the
            storage; laid out when it is needed. ``None`` for what depends on the inputs and
            carries no parts.
        key: number of the storage in a program.
        shared: another buffer may read ``data``'s memory: it is copied before it is written to.
        place: where the stack or the pieces lie that were put last.
        pieces: a concatenation along channels that nobody has read as a whole.
    """

    __slots__ = ("_data", "_stack", "key", "pieces", "place", "rows", "shared", "start", "storage")

    def __init__(self, key: int, rows: Rows = (), data: Tensor | None = None, start: int = 0):
        self.key, self.rows, self._data, self.start = key, rows, data, start
        self._stack: Tensor | None = None
        self.shared = False
        self.pieces: tuple[Piece, ...] = ()
        self.place: Place | None = None
        self.storage: Callable[[], torch.UntypedStorage | None] | None = None

    def put(self, stack: Tensor, rows: Rows, place: Place) -> None:
        """Takes a stack ``(len(rows), *shape)`` as all that is in the storage.

        Its memory is kept where it is laid out as the total is, else it is copied.
        """
        if place.conjugate:
            stack = stack.conj().resolve_conj()
        self._stack, self._data = -stack if place.negative else stack, None
        self.rows, self.start, self.place, self.pieces = rows, place.offset, place, ()

    def put_pieces(self, pieces: Sequence[Piece], place: Place) -> None:
        """Takes parts that each fill some channels of ``place`` only."""
        self.pieces, self.place = tuple(pieces), place
        self.rows = tuple(sorted(row for piece in pieces for row in piece.rows))

    @property
    def data(self) -> Tensor | None:
        if self._data is None and self._stack is not None:
            assert self.place is not None
            self._data, self._stack = self._laid_out(self._stack, self.place), None
        return self._data

    def _laid_out(self, stack: Tensor, place: Place) -> Tensor:
        """A stack as the storage is."""
        n, shape, stride = place.extent, place.shape, place.stride
        if not _laid_out_as(stack, shape, stride, n):
            apart = _strided(stack.new_empty((len(stack), n)), shape, stride, 0)
            stack, self.shared = apart.copy_(stack), False
        rows = stack.shape[0]
        step = stack.stride(0) if rows > 1 else n
        return stack.as_strided((rows, n), (step, 1), stack.storage_offset())

    def read(self, place: Place) -> Tensor:
        """The stack ``(len(rows), *shape)`` of a tensor in the storage: a view."""
        if self.pieces:
            self._join()
        lazy = place.conjugate or place.negative
        if self._stack is not None and not lazy and place == self.place:
            return self._stack
        data, offset = self.data, place.offset - self.start
        assert data is not None
        if data.dtype != place.dtype:
            data, offset = _as_type(data, place, self.start)
        stack = _strided(data, place.shape, place.stride, offset)
        if place.conjugate:
            stack = stack.conj()
        return torch._neg_view(stack) if place.negative else stack

    def whole(self, t: Tensor) -> Tensor | None:
        """The stack that was put last, if it is that of this tensor and can be read as it is."""
        stack, place = self._stack, self.place
        if stack is None or place is None or self.pieces:
            return None
        same_memory = t.shape == place.shape and t.stride() == place.stride
        if not same_memory or t.storage_offset() != place.offset or t.dtype is not place.dtype:
            return None
        lazy = place.negative or place.conjugate or t.is_neg() or t.is_conj()
        return None if lazy else stack

    def write(self, stack: Tensor, rows: Rows, place: Place) -> None:
        """Replaces a tensor's parts; the rest of the storage keeps its own."""
        if self.pieces:
            self._join()
        if self._is_all(place):
            self.put(stack, rows, place)
            return
        union = tuple(sorted({*self.rows, *rows}))
        self._own(union)
        self.read(place).copy_(expanded(stack, rows, union))

    def scale(self, place: Place, factor: Tensor) -> bool:
        """Multiplies a tensor's parts where they lie; ``False`` if that memory has to stay."""
        if self.shared:
            return False
        stack = self.read(place)
        fits = _can_multiply(stack, factor)
        if fits:
            stack.mul_(factor)
        return fits

    def _is_all(self, place: Place) -> bool:
        """Whether nothing of the storage lies elsewhere."""
        if self.data is None:
            return True
        n, same_type = self.data.shape[1], self.data.dtype == place.dtype
        dense = n == place.extent == math.prod(place.shape)
        return same_type and place.offset == self.start and dense

    def lies_in(self, storage: torch.UntypedStorage) -> bool:
        """Whether its parts are in this memory."""
        held = self._stack if self._data is None else self._data
        return held is not None and held.untyped_storage() is storage

    def _own(self, rows: Rows) -> None:
        """Memory of its own, with these rows."""
        assert self.data is not None
        data = expanded(self.data, self.rows, rows)
        if data is self.data and (self.shared or torch.is_grad_enabled()):
            data = data.clone()
        self._data, self.rows = data, rows
        self.shared = False

    def _join(self) -> None:
        """The pieces as one stack."""
        place, pieces = self.place, self.pieces
        assert place is not None
        stack = pieces[0].stack.new_zeros((len(self.rows), *place.shape))
        for piece in pieces:
            channels = stack.narrow(2, piece.start, piece.stack.shape[2])
            for row, value in zip(piece.rows, piece.stack, strict=True):
                channels[self.rows.index(row)] = value
        self.put(stack, self.rows, place)


def _strided(data: Tensor, shape: Sequence[int], stride: Sequence[int], offset: int) -> Tensor:
    """(R, n) read as ``(R, *shape)``."""
    return data.as_strided(
        (data.shape[0], *shape), (data.stride(0), *stride), data.storage_offset() + offset
    )


def _laid_out_as(stack: Tensor, shape: Sequence[int], stride: Sequence[int], n: int) -> bool:
    if stack.shape[0] > 1 and stack.stride(0) < n:
        return False
    if stack.is_conj() or stack.is_neg():
        return False
    own = stack.stride()
    if own[1:] == stride:
        return True
    return all(a == b or size == 1 for a, b, size in zip(own[1:], stride, shape, strict=True))


def _as_type(data: Tensor, place: Place, start: int) -> tuple[Tensor, int]:
    """Complex memory read as pairs of real numbers, or pairs as complex numbers."""
    if data.is_complex() and place.dtype == data.dtype.to_real():
        return torch.view_as_real(data).flatten(1), place.offset - 2 * start
    if place.dtype.is_complex and data.dtype == place.dtype.to_real():
        pairs = torch.view_as_complex(data.unflatten(1, (-1, 2)))
        return pairs, place.offset - start // 2
    raise DecompositionError(f"parts of {data.dtype} cannot be read as {place.dtype}")


def expanded(stack: Tensor, rows: Rows, wanted: Rows) -> Tensor:
    """The stack with exactly the rows ``wanted`` (a superset), zeros where absent."""
    if rows == wanted:
        return stack
    wide = stack.new_empty((len(wanted), *stack.shape[1:]))
    given = dict(zip(rows, stack, strict=True))
    for i, row in enumerate(wanted):
        wide[i] = given.get(row, 0.0)
    return wide


def times(stack: Tensor, factor: Tensor) -> Tensor:
    """The product, in the stack's own memory if it can be: to fill new memory takes longer."""
    return stack.mul_(factor) if _can_multiply(stack, factor) else stack * factor


def _can_multiply(stack: Tensor, factor: Tensor) -> bool:
    return is_writable(stack) and stack.dtype == factor.dtype


def is_writable(stack: Tensor) -> bool:
    """Whether a stack may be written to: no gradients flow, and each element has its own memory."""
    return not (torch.is_grad_enabled() or torch._debug_has_internal_overlap(stack))


def is_continuous(value: Any) -> bool:
    """Whether a value is a tensor that can carry parts: its elements are no integers."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
