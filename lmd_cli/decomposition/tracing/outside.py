"""Memory that code outside torch writes to or reads: what no operator shows."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from lmd_cli.decomposition.memory import Buffer
from lmd_cli.decomposition.tracing.operators import Operator


class Address:
    """Where a tensor lies, for code that compares it with where another does.

    Args:
        value: the address.
        leave: called before code outside torch gets it as a number.
    """

    __slots__ = ("_leave", "_value")

    def __init__(self, value: int, leave: Callable[[], None]):
        self._value, self._leave = value, leave

    def __eq__(self, other: object) -> bool:
        return self._value == (other._value if isinstance(other, Address) else other)

    def __hash__(self) -> int:
        return hash(self._value)

    def __mod__(self, alignment: int) -> int:
        return self._value % alignment

    def __index__(self) -> int:
        self._leave()
        return self._value


class OutsideMemory:
    """Finds tensors whose values come from the inputs past every operator.

    Two kinds are known: a second storage over memory that carries parts (a capsule of DLPack), and
    new memory that is read though no operator has written to it (a kernel of an extension has).

    Args:
        buffers: of the storages that depend on the inputs, by the storage's number.

    Attributes:
        keys: the number of each by its address.
        hollow: storages that no operator has written to, and whether they were made in the shape
            of features.
    """

    def __init__(self, buffers: Mapping[int, Buffer]):
        self._buffers = buffers
        self.keys: dict[int, int] = {}
        self.hollow: dict[int, bool] = {}

    def shown(self, storage: UntypedStorage) -> None:
        """Its values were handed out as constants: a second storage over them is one too."""
        self.keys.pop(storage.data_ptr(), None)
        self.hollow.pop(id(storage), None)

    def is_alias(self, storage: UntypedStorage) -> bool:
        """Whether it lies over the memory of one that carries parts."""
        address = storage.data_ptr()
        buffer = self._buffers.get(self.keys.get(address, 0)) if address else None
        if buffer is None or not buffer.rows:
            return False
        owner = buffer.storage() if buffer.storage is not None else None
        return owner is not None and owner is not storage and owner.data_ptr() == address

    # -- memory that nothing was written to -----------------------------------------------

    def made(self, t: Any, like_features: bool) -> None:
        """A tensor was made whose elements are still to be written; in the shape of features?
        (Integers have no parts; torch's own packed sequences fill theirs in C++.)"""
        if not isinstance(t, Tensor) or not (t.is_floating_point() or t.is_complex()):
            return
        if t.layout is torch.strided and t.numel():
            storage = t.untyped_storage()
            self.hollow[id(storage)] = like_features
            weakref.finalize(storage, self.hollow.pop, id(storage), None)

    def like_features(self, t: Tensor) -> bool:
        """Whether it is such memory, made in the shape of features."""
        return self.hollow.get(id(t.untyped_storage()), False)

    def read(self, op: Operator, given: Mapping[str, Any]) -> bool:
        """Whether an operator reads an argument that none has written to; those that it writes to
        are hollow no longer. (``noise`` is where RReLU keeps what it draws.)"""
        if op.view or op.factory or op.metadata_write:
            return False
        tensors = ((n, t) for n, t in given.items() if isinstance(t, Tensor) and n != "noise")
        keys = {name: id(t.untyped_storage()) for name, t in tensors}
        hollow = {name: key for name, key in keys.items() if key in self.hollow}
        for name in hollow.keys() & set(op.written):
            self.hollow.pop(hollow.pop(name), None)
        return bool(hollow)
