"""Which tensors carry parts: what lies beside each storage of a run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.maps import Stack
from lmd_cli.decomposition.memory import Buffer, Piece, Place, is_continuous


class Carriers:
    """The buffers of one decomposition, by storage, and what is known of memory that is used past
    every operator: a second storage over memory that carries parts (a capsule of DLPack), and new
    memory that is read though no operator has written to it (a kernel of an extension has).

    Args:
        layout: rows of the stacks.

    Attributes:
        types: of all tensors with a buffer.
    """

    def __init__(self, layout: Layout):
        self.layout, self.types = layout, set[torch.dtype]()
        self._count = 0
        self._buffers: dict[int, Buffer] = {}
        self._keys: dict[int, int] = {}  # of these buffers, by their storages' addresses
        self._plain: dict[int, weakref.finalize[..., Any]] = {}
        self._unwritten: dict[int, bool] = {}  # whether it was made in the shape of features

    def buffer_of(self, t: Tensor) -> Buffer | None:
        """The buffer beside a tensor's storage."""
        try:
            return self._buffers.get(id(t.untyped_storage()))
        except (NotImplementedError, RuntimeError):  # sparse and other tensors without a storage
            return None

    def carries(self, value: Any) -> bool:
        """Whether a value carries parts."""
        if not isinstance(value, Tensor):
            return False
        try:  # as in :meth:`buffer_of`: this is asked often
            buffer = self._buffers.get(id(value.untyped_storage()))
        except (NotImplementedError, RuntimeError):
            return False
        return buffer is not None and bool(buffer.rows) and id(value) not in self._plain

    def any_carries(self, *trees: Any) -> bool:
        """Whether any tensor of nested arguments carries parts."""
        return any(map(self.carries, tensors_in(trees)))

    def depends(self, value: Any) -> bool:
        """Whether a value was computed from the inputs, with or without parts."""
        return isinstance(value, Tensor) and self.buffer_of(value) is not None

    def lost(self, value: Any) -> bool:
        """Whether a value comes from the inputs, could carry parts, and carries none."""
        if not is_continuous(value):
            return False
        if self.depends(value):
            return not self.carries(value)
        try:
            storage = value.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return False
        return id(storage) in self._unwritten or self._overlaps(storage)

    def parts(self, t: Tensor) -> Stack:
        """A tensor's stack ``(rows, *shape)`` and its rows; no rows for a constant."""
        buffer = self.buffer_of(t)
        if buffer is None or not buffer.rows or id(t) in self._plain:
            return t.new_empty((0, *t.shape)), ()
        stack = buffer.whole(t)
        if stack is not None:  # by far the most
            return stack, buffer.rows
        place = Place(t, buffer.key)
        stack = buffer.read(place)
        if place.conjugate or place.negative:  # torch's kernels overlook it in a handler
            stack = stack.resolve_conj().resolve_neg()
        return stack, buffer.rows

    def place_of(self, t: Tensor) -> Place:
        """Where a tensor lies that depends on the inputs."""
        buffer = self.buffer_of(t)
        assert buffer is not None
        return Place(t, buffer.key)

    def pieces(self, t: Tensor) -> Sequence[Piece]:
        """A concatenation's channels by modality, if nobody has read it as a whole."""
        buffer = self.buffer_of(t)
        whole = buffer is not None and buffer.place == Place(t, buffer.key)
        return buffer.pieces if buffer is not None and whole else ()

    def track(self, t: Tensor) -> Buffer:
        """A new buffer beside a tensor's storage."""
        storage, buffers, keys = t.untyped_storage(), self._buffers, self._keys
        key, address = id(storage), storage.data_ptr()
        self._count += 1
        self.types.add(t.dtype)

        def gone(_: Any) -> None:
            buffers.pop(key, None)
            if keys.get(address) == key:
                del keys[address]

        buffer = buffers[key] = Buffer(self._count)
        buffer.storage, keys[address] = weakref.ref(storage, gone), key
        return buffer

    def give(self, t: Tensor, stack: Tensor, rows: tuple[int, ...]) -> Buffer:
        """Parts of a tensor that was just made."""
        buffer = self.track(t)
        buffer.put(stack, rows, Place(t, buffer.key))
        return buffer

    def mark_plain(self, tree: Any) -> None:
        """Detached tensors share memory with what carries parts, and carry none."""
        for t in filter(self.depends, tensors_in((tree,))):
            self._plain[id(t)] = weakref.finalize(t, self._plain.pop, id(t), None)

    # -- memory that is used past every operator -------------------------------------------

    def _overlaps(self, storage: UntypedStorage) -> bool:
        """Whether it lies over the memory of another one that carries parts."""
        address = storage.data_ptr()
        buffer = self._buffers.get(self._keys.get(address, 0)) if address else None
        if buffer is None or not buffer.rows or buffer.storage is None:
            return False
        owner = buffer.storage()
        return owner is not None and owner is not storage and owner.data_ptr() == address

    def shown(self, *given: Any) -> None:
        """Constants are handed out: other tensors over their memory are constants too."""
        for t in tensors_in(given):
            if t.layout is torch.strided and t.device.type != "meta":
                self._keys.pop(t.untyped_storage().data_ptr(), None)
                self._unwritten.pop(id(t.untyped_storage()), None)

    def _allocated(self, t: Any, like_features: bool) -> None:
        """A tensor was made whose elements are still to be written; in the shape of features?
        (Integers have no parts; torch's own packed sequences fill theirs in C++.)"""
        if is_continuous(t) and t.layout is torch.strided and t.numel():
            storage = t.untyped_storage()
            self._unwritten[id(storage)] = like_features
            weakref.finalize(storage, self._unwritten.pop, id(storage), None)


def whole_storage(t: Tensor) -> Tensor:
    """All of the memory that a tensor lies in, as a vector."""
    storage = t.untyped_storage()
    return t.new_empty(0).set_(storage, 0, (storage.nbytes() // t.element_size(),))  # type: ignore[call-overload, no-any-return]


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Tensors among arguments, also in lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())
