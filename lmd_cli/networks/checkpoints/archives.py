"""PyTorch files: a pickle, and beside it raw numbers, which are read only after all checks.

The two lie in a zip archive, or, in files written before PyTorch 1.6, one after the other.
PyTorch's own reader is not involved: given a TorchScript archive it runs code in the archive, its
C++ does not survive every file, and it neither compares checksums nor bounds what it allocates.
"""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from lmd_cli.networks.checkpoints.pickles import Machine
from lmd_cli.networks.checkpoints.stored import MalformedError, Names, Storage, Stored, printable

#: How a zip archive begins, and a pickle of the protocols that PyTorch writes.
ZIPPED, PICKLED = b"PK\x03\x04", b"\x80"
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
#: Bytes of a file's directory of tensors, at most: some 40 000 of them.
DIRECTORY = 2**22
#: Bytes of a record's header in a zip archive, before its name.
HEADER = 30
#: Tensors may share and repeat numbers; their copies take this many times the file, and this many
#: bytes more.
COPIES, COPIED = 4, 2**26

#: Where the numbers of each storage begin in the file, by key; only of those that are all there.
Places = Mapping[str, int]


class Bounded:
    """A file that is never asked for more than a limit, or than there is."""

    def __init__(self, file: IO[bytes], most: int):
        self.file, self.most = file, most
        self.end = os.fstat(file.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        """As of a file."""
        there = max(0, self.end - self.file.tell())
        wanted = there if size is None or size < 0 else min(size, there)
        if wanted > self.most:
            raise MalformedError(f"{wanted} bytes at once; expected at most {self.most}")
        return self.file.read(wanted)

    def readline(self, size: int | None = -1) -> bytes:
        """As of a file."""
        return self.file.readline(self.most if size is None or size < 0 else min(size, self.most))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self.file.tell()

    def seekable(self) -> bool:
        """As of a file."""
        return True


def open_zip(file: IO[bytes], names: Names) -> tuple[Any, Places]:
    """What is in a file as PyTorch has written since 1.6: a zip archive, nothing compressed.

    Raises:
        MalformedError: it is another archive, or a record overlaps another or is damaged.
        Exception: of any kind, if it is damaged.
    """
    bounded = Bounded(file, DIRECTORY)
    archive = zipfile.ZipFile(bounded)
    bounded.most = bounded.end
    root = _root(archive.namelist())
    records = _checked(archive)
    order = records.get(f"{root}byteorder")
    if order is not None and archive.read(order) != sys.byteorder.encode():
        raise MalformedError("written on a machine of another byte order")
    pickled = archive.read(records[f"{root}data.pkl"])
    content = Machine(names, bounded.end).load(io.BytesIO(pickled))
    del pickled
    if damaged := archive.testzip():
        raise MalformedError(f"record {printable(damaged)} is damaged: its checksum is another")
    places = {}
    for key, storage in names.storages.items():
        record = records.get(f"{root}data/{key}")
        if record is not None and record.file_size == storage.nbytes:
            places[key] = _begin(file, record)
    return content, places


def _checked(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's records by name: none is compressed, so that none is larger than the file."""
    records = {info.filename: info for info in archive.infolist()}
    for name, info in records.items():
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise MalformedError(f"record {printable(name)} is compressed")
    ends = [(i.header_offset, i.header_offset + HEADER + i.file_size) for i in archive.infolist()]
    ends = [*sorted(ends), (archive.start_dir, 0)]
    if len(records) < len(archive.infolist()) or any(a[1] > b[0] for a, b in pairwise(ends)):
        raise MalformedError("an archive with records that overlap")
    return records


def _root(records: Sequence[str]) -> str:
    """The folder in the archive."""
    roots = [name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise MalformedError("an archive, but not one of PyTorch's")
    if f"{roots[0]}constants.pkl" in records:
        raise MalformedError(
            "a TorchScript program, not a checkpoint: where you trust it, save its weights alone, "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    return roots[0]


def _begin(file: IO[bytes], record: zipfile.ZipInfo) -> int:
    """Where a record's bytes begin, behind a header whose lengths are its own."""
    file.seek(record.header_offset + 26)
    name, extra = file.read(2), file.read(2)
    return record.header_offset + HEADER + sum(int.from_bytes(n, "little") for n in (name, extra))


def open_legacy(file: IO[bytes], names: Names) -> tuple[Any, Places]:
    """What is in a file as PyTorch wrote before 1.6, five pickles and storages; or in a pickle.

    Raises:
        MalformedError: it ends too early.
        Exception: of any kind, if it is damaged.
    """
    end = os.fstat(file.fileno()).st_size
    bounded: Any = Bounded(file, end)
    others = Machine(Names(), end)
    first = Machine(names, end).load(bounded)
    if first != LEGACY_MAGIC:
        return first, {}  # a pickle of something else
    if others.load(bounded) != LEGACY_PROTOCOL:
        raise ValueError("not a PyTorch file")
    others.load(bounded)  # about the machine that wrote it
    content = Machine(names, end).load(bounded)
    places = {}
    for key in others.load(bounded):
        storage = names.storages.get(key) if isinstance(key, str) else None
        if storage is None or int.from_bytes(file.read(8), "little") != storage.numel:
            raise MalformedError("a storage's size differs from what its tensors say")
        places[key] = file.tell()
        file.seek(storage.nbytes, os.SEEK_CUR)
    if file.tell() > end:
        raise MalformedError("it ends too early")
    return content, places


class Numbers:
    """Makes tensors of an open file's :class:`Stored`, each with memory of its own.

    Tensors that share a storage mostly follow each other, so the last one read is kept.
    """

    def __init__(self, file: IO[bytes], places: Places):
        self.file, self.places = file, places
        self.last: tuple[Storage, Tensor] | None = None

    def tensor(self, stored: Stored) -> Tensor:
        """A contiguous tensor on the CPU, of one that fits."""
        storage = stored.storage
        if 0 in stored.size:
            return torch.empty(stored.size, dtype=storage.dtype)
        if self.last is None or self.last[0] != storage:
            self.last = None  # first, so that its memory is free
            self.last = storage, self._read(storage)
        view = self.last[1].as_strided(stored.size, stored.stride, stored.offset)
        return view.clone(memory_format=torch.contiguous_format)

    def _read(self, storage: Storage) -> Tensor:
        self.file.seek(self.places[storage.key])
        numbers = bytearray(storage.nbytes)
        self.file.readinto(numbers)  # type: ignore[attr-defined]
        return torch.frombuffer(numbers, dtype=storage.dtype)


def require_fit(chosen: Mapping[str, Stored], places: Places, size: int) -> None:
    """Refuses tensors that are not in their storages, or much larger together than the file.

    Args:
        chosen: by name.
        places: of the storages that are there.
        size: of the file, bytes.

    Raises:
        MalformedError: names the tensor, or says how many bytes they would take.
    """
    total = 0
    for name, stored in chosen.items():
        if not stored.fits():
            raise MalformedError(f"tensor {printable(name)} reaches beyond its numbers")
        if stored.storage.key not in places and 0 not in stored.size:
            raise MalformedError(f"tensor {printable(name)} lacks some of its numbers")
        total += stored.nbytes
    if total > COPIES * size + COPIED:
        raise MalformedError(
            f"its tensors repeat their numbers: they would take {total} bytes, the file has {size}"
        )


def require_directory(path: Path) -> None:
    """Refuses a safetensors file whose directory is larger than any network's.

    Raises:
        MalformedError: it is.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        end = os.fstat(file.fileno()).st_size
    if DIRECTORY < size < end:
        raise MalformedError(f"a directory of {size} bytes; expected at most {DIRECTORY}")


def read_content(
    path: Path, choose: Callable[[Any, list[str]], dict[str, Stored]]
) -> dict[str, Tensor]:
    """Tensors of a PyTorch file.

    Args:
        path: the file.
        choose: gets what the file holds, with :class:`Stored` for tensors, and the names of the
            types that were not built, in order; returns the tensors to read.

    Returns:
        the tensors, on the CPU.

    Raises:
        MalformedError: says what is wrong with the file.
        Exception: of any kind, if the file is damaged or no PyTorch file; and what ``choose``
            raises.
    """
    names = Names()
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start != ZIPPED and start[:1] != PICKLED:
            raise ValueError("not a PyTorch file")
        content, places = (open_zip if start == ZIPPED else open_legacy)(file, names)
        chosen = choose(content, list(names.left_out))
        require_fit(chosen, places, os.fstat(file.fileno()).st_size)
        numbers = Numbers(file, places)
        return {name: numbers.tensor(stored) for name, stored in chosen.items()}
