"""Point Cloud Library's ``.pcd`` files: a header in text, then points as text, bytes, or bytes
compressed field by field."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import count as counter

import numpy as np
from numpy.typing import NDArray

#: A header is no longer, bytes.
LONGEST_HEADER = 1 << 16
#: More than any sensor records in one sweep.
MOST_POINTS = 100_000_000
#: Bytes of one point, at most.
WIDEST = 1 << 16
KINDS = {"F": ("f", (4, 8)), "I": ("i", (1, 2, 4, 8)), "U": ("u", (1, 2, 4, 8))}
ENCODINGS = ("ascii", "binary", "binary_compressed")
_PADDING = "_"
_SIZES = struct.Struct("<II")  # compressed and expanded, bytes

Table = NDArray[np.void]


class NotPcdError(Exception):
    """The content is no ``.pcd`` file, or not a whole one; says why."""


@dataclass(frozen=True)
class Header:
    """What a header says.

    Attributes:
        dtype: of one point, packed; its names are the file's fields.
        points: how many there are.
        encoding: one of :data:`ENCODINGS`.
    """

    dtype: np.dtype[np.void]
    points: int
    encoding: str


def read_pcd(content: bytes) -> Table:
    """The points (n,) of a file, by the names of its fields.

    Raises:
        NotPcdError: it is none, or cut off.
    """
    header, body = _split(content)
    read = {"ascii": _from_text, "binary": _from_bytes, "binary_compressed": _from_compressed}
    return read[header.encoding](header, body)


def _split(content: bytes) -> tuple[Header, memoryview]:
    """The header, and the bytes after its last line."""
    lines: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in lines:
        end = content.find(b"\n", start, LONGEST_HEADER)
        if end < 0:
            raise NotPcdError("truncated, or not a .pcd file: no DATA line")
        words = content[start:end].decode("ascii", "replace").split()
        if words:
            lines[words[0]] = words[1:]
        start = end + 1
    try:
        return _parsed(lines), memoryview(content)[start:]
    except KeyError as error:
        raise NotPcdError(f"its header has no line {error}") from None


def _parsed(lines: dict[str, list[str]]) -> Header:
    names, sizes = _named(lines["FIELDS"]), _whole(lines, "SIZE", 8)
    counts = _whole(lines, "COUNT", WIDEST) if "COUNT" in lines else [1] * len(names)
    kinds = lines["TYPE"]
    if not names or not len(names) == len(sizes) == len(counts) == len(kinds):
        raise NotPcdError("its lines FIELDS, SIZE, TYPE and COUNT are not of one length")
    shape = _whole(lines, "WIDTH", MOST_POINTS) + _whole(lines, "HEIGHT", MOST_POINTS)
    points = _product(shape)
    if "POINTS" in lines and _whole(lines, "POINTS", MOST_POINTS) != [points]:
        raise NotPcdError(f"POINTS is {' '.join(lines['POINTS'])}, but WIDTH x HEIGHT {points}")
    encoding = " ".join(lines["DATA"])
    if encoding not in ENCODINGS:
        raise NotPcdError(f"DATA is {encoding!r}, expected {', '.join(ENCODINGS)}")
    fields = [_field(*each) for each in zip(names, kinds, sizes, counts, strict=True)]
    dtype = np.dtype(fields)
    if dtype.itemsize > WIDEST:
        raise NotPcdError(f"a point of {dtype.itemsize} bytes is larger than any sensor's")
    return Header(dtype, points, encoding)


def _named(names: list[str]) -> list[str]:
    """The fields' names; padding, which has one name, gets different ones."""
    numbers = counter()
    fields = [f"{_PADDING}{next(numbers)}" if name == _PADDING else name for name in names]
    twice = next((name for i, name in enumerate(fields) if name in fields[:i]), None)
    if twice is not None:
        raise NotPcdError(f"the field {twice!r} occurs twice")
    return fields


def _whole(lines: dict[str, list[str]], key: str, most: int) -> list[int]:
    """A line's numbers, from 0."""
    words = lines[key]
    if not words or not all(w.isdecimal() and len(w) < 12 and int(w) <= most for w in words):
        raise NotPcdError(f"{key} is {' '.join(words)[:80]!r}, expected numbers from 0 to {most}")
    return [int(word) for word in words]


def _product(shape: list[int]) -> int:
    if len(shape) != 2 or shape[0] * shape[1] > MOST_POINTS:
        raise NotPcdError(f"WIDTH and HEIGHT are {shape}, more points than any sensor's")
    return shape[0] * shape[1]


def _field(name: str, kind: str, size: int, count: int) -> tuple[str, str, tuple[int, ...]]:
    letter, known = KINDS.get(kind, ("", ()))
    if size not in known or count < 1:
        raise NotPcdError(f"field {name} is of TYPE {kind}, SIZE {size} and COUNT {count}")
    return name, f"<{letter}{size}", (count,) if count > 1 else ()


def _from_bytes(header: Header, body: memoryview) -> Table:
    whole = len(body) // header.dtype.itemsize
    if whole < header.points:
        raise NotPcdError(f"truncated: {whole} of {header.points} points")
    return np.frombuffer(body, header.dtype, count=header.points)


def _from_text(header: Header, body: memoryview) -> Table:
    widths = {name: math.prod(header.dtype[name].shape) for name in _names(header)}
    columns = sum(widths.values())
    count = header.points * columns
    words = bytes(body).split(maxsplit=count)[:count]
    if len(words) < count:
        raise NotPcdError(f"truncated: {len(words) // columns} of {header.points} points")
    try:
        values = np.array(words, dtype="S").astype(np.float64).reshape(header.points, columns)
    except ValueError as error:
        raise NotPcdError(f"its points are not numbers: {error}") from None
    table, start = np.zeros(header.points, header.dtype), 0
    with np.errstate(invalid="ignore"):  # a NaN among whole numbers
        for name, width in widths.items():
            table[name] = values[:, start : start + width].reshape(table[name].shape)
            start += width
    return table


def _names(header: Header) -> tuple[str, ...]:
    return header.dtype.names or ()


def _from_compressed(header: Header, body: memoryview) -> Table:
    """Fields one after the other, all points of one before the next, compressed by LZF."""
    expected = header.points * header.dtype.itemsize
    if len(body) < _SIZES.size:
        raise NotPcdError("truncated: the compressed points are missing")
    packed, size = _SIZES.unpack(body[: _SIZES.size])
    if size != expected:
        raise NotPcdError(f"{size} bytes of compressed points, where its header says {expected}")
    if len(body) < _SIZES.size + packed:
        raise NotPcdError(f"truncated: {len(body) - _SIZES.size} of {packed} compressed bytes")
    content = expand_lzf(body[_SIZES.size : _SIZES.size + packed], size)
    table, start = np.zeros(header.points, header.dtype), 0
    for name in _names(header):
        end = start + header.points * header.dtype[name].itemsize
        base = header.dtype[name].base
        table[name] = np.frombuffer(content[start:end], base).reshape(table[name].shape)
        start = end
    return table


def expand_lzf(data: bytes | memoryview, size: int) -> bytes:
    """What Marc Lehmann's LZF has compressed, ``size`` bytes.

    Raises:
        NotPcdError: it is damaged.
    """
    out, at, end = bytearray(), 0, len(data)
    try:
        while at < end and len(out) <= size:
            control = data[at]
            at += 1
            if control < 32:  # so many bytes, and one, as they are
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5  # so many bytes, and two, that were there before
            if length == 7:
                length += data[at]
                at += 1
            start = len(out) - ((control & 31) << 8) - data[at] - 1
            at += 1
            out += _again(out, start, length + 2)
    except IndexError:
        raise NotPcdError("its compressed points end too early") from None
    if len(out) != size:
        raise NotPcdError(f"its compressed points are {len(out)} bytes, expected {size}")
    return bytes(out)


def _again(out: bytearray, start: int, length: int) -> bytearray:
    """Bytes from ``start`` on, which may reach into themselves."""
    if start < 0:
        raise IndexError
    piece = out[start : start + length]
    return (piece * (length // len(piece) + 1))[:length]
