"""What a PyTorch file holds, read without importing or calling anything that the file names.

A PyTorch file is a pickle beside raw numbers: in a zip archive, or, in files written before
PyTorch 1.6, one after the other. The unpickler here builds lists, tuples, dicts, strings and
numbers, and notes where each tensor's numbers lie. Every other name becomes an inert placeholder.
PyTorch's own reader is not involved: given a TorchScript archive it runs code in the archive, and
its functions, once handed to a pickle, can be changed by it.
"""

from __future__ import annotations

import math
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

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
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class MalformedError(ValueError):
    """A file that contradicts itself; the message says where."""


class Inert:
    """Takes all that a pickle can do to an object, and does nothing."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Ignores an element."""

    def extend(self, values: Any) -> None:
        """Ignores elements."""

    def add(self, value: Any) -> None:
        """Ignores an element."""


class Placeholder(Inert):
    """Stands for an object that is not built; each type of the file gets a subclass."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


class PlainDict(dict[Any, Any]):
    """For ``OrderedDict``, without the attributes that a pickle could give one."""

    __slots__ = ()

    def __init__(self, pairs: Any = (), *ignored: Any) -> None:
        super().__init__(pairs if isinstance(pairs, list | tuple | dict) else ())

    def __setstate__(self, state: Any) -> None:
        pass


class Kind(Inert):
    """A type of storage."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype


class Storage(Inert):
    """Numbers in the file: ``numel`` of ``dtype``, under ``key``."""

    __slots__ = ("dtype", "key", "numel")

    def __init__(self, dtype: torch.dtype, key: str, numel: int):
        self.dtype, self.key, self.numel = dtype, key, numel

    @property
    def nbytes(self) -> int:
        """How many bytes the numbers take."""
        return self.numel * self.dtype.itemsize


class Stored(Inert):
    """A tensor in the file; nothing about it has been checked."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: Storage, offset: Any, size: Any, stride: Any):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class Rebuild(Inert):
    """One of this module's functions, in a wrapper that a pickle cannot change."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args)


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *ignored: Any) -> Any:
    """For ``_rebuild_tensor`` and ``_rebuild_tensor_v2``; a placeholder storage stays one."""
    return Stored(storage, offset, size, stride) if isinstance(storage, Storage) else storage


def rebuild_parameter(data: Any, *ignored: Any) -> Any:
    """For ``_rebuild_parameter`` and its kin: the tensor alone."""
    return data


#: All functions that a file may call.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": rebuild_tensor,
    "_rebuild_tensor_v2": rebuild_tensor,
    "_rebuild_parameter": rebuild_parameter,
    "_rebuild_parameter_with_state": rebuild_parameter,
}


class Restricted(pickle.Unpickler):
    """Builds plain containers, :class:`Stored` and placeholders.

    Args:
        file: where a pickle begins.
        left_out: gets the names that were not built.
    """

    def __init__(self, file: IO[bytes], left_out: set[str]):
        super().__init__(file, encoding="utf-8")
        self.left_out = left_out
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: one of the few known names, or a new placeholder type."""
        if (module, name) == ("collections", "OrderedDict"):
            return PlainDict
        if module == "torch._utils" and name in FUNCTIONS:
            return Rebuild(FUNCTIONS[name])
        if module == "torch" and name in DTYPES:
            return Kind(DTYPES[name])
        full = printable(f"{module}.{name}")
        self.left_out.add(full)
        return type(full.rpartition(".")[2], (Placeholder,), {"__slots__": ()})

    def persistent_load(self, pid: Any) -> Any:
        """Where a storage's numbers lie, or the type of a pickled module (legacy files)."""
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise MalformedError("a reference to nothing known")
        kind = pid[1]
        if isinstance(kind, type) and issubclass(kind, Placeholder):
            return kind if pid[0] == "module" else kind()
        if pid[0] != "storage" or not isinstance(kind, Kind) or len(pid) < 5 or any(pid[5:]):
            raise MalformedError("a reference to nothing known")
        key, numel = pid[2], pid[4]
        if not isinstance(key, str) or not is_count(numel):
            raise MalformedError("a storage without key or size")
        return self.storages.setdefault(key, Storage(kind.dtype, key, numel))


class Zipped:
    """A file as PyTorch has written since 1.6: a zip archive, nothing in it compressed."""

    def __init__(self, file: IO[bytes], left_out: set[str]):
        self.archive = zipfile.ZipFile(file)
        names = self.archive.namelist()
        roots = [n.removesuffix("data.pkl") for n in names if n.split("/")[1:] == ["data.pkl"]]
        if len(roots) != 1:
            raise MalformedError("an archive, but not one of PyTorch's")
        self.root = roots[0]
        if f"{self.root}constants.pkl" in names:
            raise MalformedError("a TorchScript program, not a checkpoint")
        order = f"{self.root}byteorder"
        if order in names and self.record(order) != sys.byteorder.encode():
            raise MalformedError("written on a machine of another byte order")
        with self.archive.open(self.info(f"{self.root}data.pkl")) as pickled:
            self.content = Restricted(pickled, left_out).load()

    def info(self, name: str) -> zipfile.ZipInfo:
        """The entry of a record that is not compressed, so that a small file is never a big one."""
        info = self.archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise MalformedError(f"record {printable(name)} is compressed")
        return info

    def record(self, name: str) -> bytes:
        """A record's bytes; ``zipfile`` compares their checksum."""
        return self.archive.read(self.info(name))

    def numbers(self, storage: Storage) -> bytes:
        """A storage's bytes."""
        return self.record(f"{self.root}data/{storage.key}")


class Legacy:
    """A file as PyTorch wrote before 1.6: five pickles, then the storages."""

    def __init__(self, file: IO[bytes], left_out: set[str]):
        self.file = file
        head = [Restricted(file, set()).load() for _ in range(2)]
        if head != [LEGACY_MAGIC, LEGACY_PROTOCOL]:
            raise MalformedError("not a PyTorch file")
        Restricted(file, set()).load()  # about the machine that wrote it
        body = Restricted(file, left_out)
        self.content = body.load()
        self.positions: dict[str, int] = {}
        for key in Restricted(file, set()).load():
            storage = body.storages[key]
            if int.from_bytes(file.read(8), "little") != storage.numel:
                raise MalformedError("a storage's size differs from what its tensors say")
            self.positions[key] = file.tell()
            file.seek(storage.nbytes, os.SEEK_CUR)
        if file.tell() > file.seek(0, os.SEEK_END):
            raise MalformedError("it ends too early")

    def numbers(self, storage: Storage) -> bytes:
        """A storage's bytes."""
        self.file.seek(self.positions[storage.key])
        return self.file.read(storage.nbytes)


def open_file(file: IO[bytes], left_out: set[str]) -> Zipped | Legacy:
    """Unpickles a file, whose tensors' numbers can then be read as long as it is open.

    Args:
        file: at its beginning, seekable.
        left_out: gets the names of the types that were not built.

    Raises:
        Exception: of any kind, if it is damaged or no PyTorch file.
    """
    start = file.read(4)
    file.seek(0)
    return (Zipped if start == b"PK\x03\x04" else Legacy)(file, left_out)


class Numbers:
    """Makes tensors of an open file's :class:`Stored`, each with memory of its own.

    Tensors that share a storage mostly follow each other, so the last one read is kept.
    """

    def __init__(self, source: Zipped | Legacy):
        self.source = source
        self.last: tuple[str, Tensor] | None = None

    def tensor(self, name: str, stored: Stored) -> Tensor:
        """A contiguous tensor on the CPU.

        Raises:
            MalformedError: its size, strides or numbers do not fit together.
        """
        storage = stored.storage
        if not in_bounds(stored):
            raise MalformedError(f"tensor {printable(name)} reaches beyond its numbers")
        if 0 in stored.size:
            return torch.empty(stored.size, dtype=storage.dtype)
        if self.last is None or self.last[0] != storage.key:
            numbers = self.source.numbers(storage)
            if len(numbers) != storage.nbytes:
                raise MalformedError(f"tensor {printable(name)} lacks some of its numbers")
            self.last = storage.key, torch.frombuffer(bytearray(numbers), dtype=storage.dtype)
        view = self.last[1].as_strided(stored.size, stored.stride, stored.offset)
        return view.clone(memory_format=torch.contiguous_format)


def in_bounds(stored: Stored) -> bool:
    """Whether a tensor's elements all lie in its storage, and are not repeated endlessly."""
    size, stride, room = stored.size, stored.stride, stored.storage.numel
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)):
        return False
    if not all(map(is_count, (stored.offset, *size, *stride))):
        return False
    last = stored.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return 0 in size or (last < room and math.prod(size) <= max(room, REPEATED))


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 0."""
    return type(value) is int and value >= 0


def printable(name: str) -> str:
    """A name from a file as it can be shown: no control characters, at most 100 characters."""
    return (name if name.isprintable() else ascii(name))[:100]


def read_content(
    path: Path, choose: Callable[[Any], dict[str, Stored]]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of a PyTorch file.

    Args:
        path: the file.
        choose: gets what the file holds, with :class:`Stored` for tensors; returns those to read.

    Returns:
        the tensors, on the CPU; and the types in the file that were not built, sorted.

    Raises:
        Exception: of any kind, if the file is damaged or no PyTorch file.
    """
    left_out: set[str] = set()
    with path.open("rb") as file:
        source = open_file(file, left_out)
        numbers = Numbers(source)
        chosen = choose(source.content)
        return {name: numbers.tensor(name, at) for name, at in chosen.items()}, sorted(left_out)
