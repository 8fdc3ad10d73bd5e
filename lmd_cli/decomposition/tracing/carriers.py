"""Which tensors carry parts: what lies beside each storage of a run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.maps import Stack
from lmd_cli.decomposition.memory import Buffer, Piece, Place
from lmd_cli.decomposition.tracing.outside import OutsideMemory


class Carriers:
    """The buffers of one decomposition, by storage.

    Args:
        layout: rows of the stacks.
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        self._count = 0
        self._buffers: dict[int, Buffer] = {}
        self._plain: dict[int, weakref.finalize[..., Any]] = {}
        self.outside = OutsideMemory(self._buffers)

    def buffer_of(self, t: Tensor) -> Buffer | None:
        """The buffer beside a tensor's storage."""
        try:
            return self._buffers.get(id(t.untyped_storage()))
        except (NotImplementedError, RuntimeError):  # sparse and other tensors without a storage
            return None

    def carries(self, value: Any) -> bool:
        """Whether a value carries parts."""
        buffer = self.buffer_of(value) if isinstance(value, Tensor) else None
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
        return id(storage) in self.outside.hollow or self.outside.is_alias(storage)

    def parts(self, t: Tensor) -> Stack:
        """A tensor's stack ``(rows, *shape)`` and its rows; no rows for a constant."""
        buffer = self.buffer_of(t)
        if buffer is None or not buffer.rows or id(t) in self._plain:
            return t.new_empty((0, *t.shape)), ()
        return buffer.read(Place(t, buffer.key)), buffer.rows

    def pieces(self, t: Tensor) -> Sequence[Piece]:
        """A concatenation's channels by modality, if nobody has read it as a whole."""
        buffer = self.buffer_of(t)
        whole = buffer is not None and buffer.place == Place(t, buffer.key)
        return buffer.pieces if buffer is not None and whole else ()

    def track(self, t: Tensor) -> Buffer:
        """A new buffer beside a tensor's storage."""
        storage, buffers, keys = t.untyped_storage(), self._buffers, self.outside.keys
        key, address = id(storage), storage.data_ptr()
        keys[address] = key
        self._count += 1

        def gone(_: Any) -> None:
            buffers.pop(key, None)
            if keys.get(address) == key:
                del keys[address]

        buffer = buffers[key] = Buffer(self._count)
        buffer.storage = weakref.ref(storage, gone)
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

    def shown(self, *given: Any) -> None:
        """Constants are handed out, which may come back as other tensors over their memory."""
        for t in tensors_in(given):
            if t.layout is torch.strided and t.device.type != "meta":
                self.outside.shown(t.untyped_storage())


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


def is_continuous(value: Any) -> bool:
    """Whether a value is a tensor whose elements are no integers."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
