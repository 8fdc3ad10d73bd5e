"""Arrays and a few plain values in one file: written in one step, mapped into memory.

The arrays come first, one after the other; then JSON that says where each lies; then the length
and checksum of that JSON and a magic word. A file that was cut off has no magic word at its end.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.runtime.files import replacing

MAGIC = b"LMDINDEX"
_TAIL = struct.Struct("<QI8s")  # length and checksum of the JSON, magic word
_ALIGNMENT = 64
#: A file is checked in blocks; of a large one, this many, spread evenly.
_BLOCK, _BLOCKS = 1 << 16, 512

#: Types that an index holds: floating-point numbers, integers, truth values, bytes.
_PLAIN = re.compile(r"[<|](f[48]|i[1248]|b1|S\d{1,6})")
#: What forged values raise.
INVALID = (
    *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError),
)

Arrays = dict[str, NDArray[Any]]


class DamagedError(Exception):
    """The file is not what was written."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], meta: Any) -> None:
    """Write, or replace, a file; readers see the old one or the new, never a part.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    with replacing(path, shared=True) as file:
        _write(file, arrays, meta)


def _write(file: IO[bytes], arrays: Mapping[str, NDArray[Any]], meta: Any) -> None:
    places = {}
    for name, array in arrays.items():
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
        descr = np.lib.format.dtype_to_descr(array.dtype)
        places[name] = {"dtype": descr, "shape": array.shape, "offset": file.tell()}
        file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    size = file.tell()
    file.flush()
    checksum = _checksum(file, size)
    header = {"meta": meta, "arrays": places, "size": size, "checksum": checksum}
    text = json.dumps(header).encode()
    file.seek(size)
    file.write(text + _TAIL.pack(len(text), zlib.crc32(text), MAGIC))


def read_arrays(path: Path) -> tuple[Arrays, Any]:
    """The arrays, mapped into memory and read-only, and the other values.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is not what was written.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        try:
            header = _header(file)
            if _checksum(file, header["size"]) != header["checksum"]:
                raise DamagedError("checksum")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            arrays = {name: _mapped(mapped, place) for name, place in header["arrays"].items()}
            return arrays, header["meta"]
        except INVALID as error:
            raise DamagedError(f"{type(error).__name__}: {error}") from error


def is_index(path: Path) -> bool:
    """Whether a file ends as ours do.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(MAGIC)))
        return file.read() == MAGIC


def _header(file: IO[bytes]) -> Any:
    end = file.seek(0, os.SEEK_END)
    if end < _TAIL.size:
        raise DamagedError("too short")
    file.seek(end - _TAIL.size)
    length, checksum, magic = _TAIL.unpack(file.read())
    if magic != MAGIC or length > end - _TAIL.size:
        raise DamagedError("no magic word")
    file.seek(end - _TAIL.size - length)
    text = file.read(length)
    if zlib.crc32(text) != checksum:
        raise DamagedError("checksum of the header")
    return json.loads(text)


def _mapped(mapped: mmap.mmap, place: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape, offset = _dtype(place["dtype"]), tuple(place["shape"]), place["offset"]
    if not all(type(number) is int and number >= 0 for number in (*shape, offset)):
        raise DamagedError(f"shape {shape} at {offset}")
    if offset + math.prod(shape) * dtype.itemsize > len(mapped):  # numpy does not see all of it
        raise DamagedError(f"shape {shape} at {offset} of {len(mapped)} bytes")
    return np.ndarray(shape, dtype, buffer=mapped, offset=offset)


def _dtype(descr: Any) -> np.dtype:
    """A type of numbers and bytes alone; one of objects would take a file's bytes for addresses."""
    if isinstance(descr, str):
        if not _PLAIN.fullmatch(descr):
            raise DamagedError(f"type {descr[:20]!r}")
        return np.dtype(descr)
    return np.dtype([(name, _dtype(kind), *map(tuple, shape)) for name, kind, *shape in descr])


def _checksum(file: IO[bytes], size: int) -> int:
    """Of the first ``size`` bytes: all of them, or of many only blocks, the last one included."""
    if not 0 <= size <= file.seek(0, os.SEEK_END):
        raise DamagedError("size")
    count = -(-size // _BLOCK)
    chosen = range(count)
    if count > _BLOCKS:
        chosen = [i * (count - 1) // (_BLOCKS - 1) for i in range(_BLOCKS)]  # type: ignore[assignment]
    value = zlib.crc32(str(size).encode())
    for block in chosen:
        file.seek(block * _BLOCK)
        value = zlib.crc32(file.read(min(_BLOCK, size - block * _BLOCK)), value)
    return value
