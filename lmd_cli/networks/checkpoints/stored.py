"""Placeholders for what a PyTorch file's pickle names: storages, tensors, ignored objects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

#: Storages by the name that pickles give them; others stay placeholders.
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
#: A tensor may repeat its numbers (stride 0), up to so many elements.
REPEATED = 2**24
#: Axes of a tensor, at most: PyTorch's own limit.
AXES = 64


class MalformedError(ValueError):
    """A file that contradicts itself, or asks for too much; the message says where."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Stands for a type or function of this name, and for all that is made with it."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of storage."""

    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers in the file: ``numel`` of ``dtype``, under ``key``."""

    dtype: torch.dtype
    key: str
    numel: int

    @property
    def nbytes(self) -> int:
        """How many bytes the numbers take."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file; nothing about it has been checked."""

    storage: Storage
    offset: Any
    size: Any
    stride: Any

    @property
    def nbytes(self) -> int:
        """How many bytes a copy takes, if it :meth:`fits`."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def fits(self) -> bool:
        """Whether its elements all lie in its storage, and are not repeated endlessly."""
        size, stride = self.size, self.stride
        if not (isinstance(size, tuple) and isinstance(stride, tuple)):
            return False
        if len(size) != len(stride) or len(size) > AXES:
            return False
        if not all(map(is_count, (self.offset, *size, *stride))):
            return False
        last = self.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        room = self.storage.numel
        return 0 in size or (last < room and math.prod(size) <= max(room, REPEATED))


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0, in 63 bits."""
    return type(value) is int and 0 <= value < 2**63


def printable(name: Any) -> str:
    """A name from a file as it can be shown: no control characters, at most 100 characters."""
    text = str(name)[:1000]
    return (text if text.isprintable() else ascii(text))[:100]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    """For ``_rebuild_tensor`` and ``_rebuild_tensor_v2``; a placeholder storage stays one."""
    return Stored(storage, offset, size, stride) if isinstance(storage, Storage) else storage


def _parameter(data: Any, *_: Any) -> Any:
    """For ``_rebuild_parameter`` and its variants: the tensor alone."""
    return data


def _ordered(pairs: Any = (), *_: Any) -> Any:
    """For ``OrderedDict``."""
    return {key_of(key): value for key, value in pairs}


#: All names of functions and types that have an effect.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _ordered,
}


class OddKey:
    """Stands for a key that is never hashed: a tuple, say."""

    def __str__(self) -> str:
        return "a key that is no name"


def key_of(key: Any) -> Any:
    """A dict's key: text and numbers as they are."""
    plain = isinstance(key, str | float | bool | Placeholder) or key is None or is_count(key)
    return key if plain else OddKey()


class Names:
    """What the names, calls and references in a pickle stand for."""

    def __init__(self) -> None:
        self.left_out: dict[str, None] = {}  # names that are not built, in order
        self.storages: dict[str, Storage] = {}

    def named(self, module: str, name: str) -> Any:
        """A name's stand-in; nothing is imported."""
        full = f"{module}.{name}"
        if full in FUNCTIONS:
            return FUNCTIONS[full]
        if module == "torch" and name in DTYPES:
            return Kind(DTYPES[name])
        self.left_out[printable(full)] = None
        return Placeholder(printable(full))

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call in the file gives."""
        if isinstance(function, Placeholder):
            return function
        if not callable(function) or not isinstance(arguments, tuple):
            raise MalformedError("a call of what cannot be called")
        return function(*arguments)

    def reference(self, pid: Any) -> Any:
        """A storage, or the type of a pickled module (legacy files)."""
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise MalformedError("a reference to nothing known")
        kind = pid[1]
        if isinstance(kind, Placeholder):
            return kind
        view = len(pid) > 5 and pid[5] is not None
        if len(pid) < 5 or not isinstance(kind, Kind) or view:
            raise MalformedError("a reference to nothing known")
        key, numel = pid[2], pid[4]
        if not isinstance(key, str) or not is_count(numel):
            raise MalformedError("a storage without key or size")
        storage = Storage(kind.dtype, key, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise MalformedError(f"storage {printable(key)} has two types or sizes")
        return storage
