"""Point clouds of every encoding that the Point Cloud Library writes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmd_cli.data.nuscenes.pcd import NotPcdError, expand_lzf, read_pcd

DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("stamp", "<u8"), ("_0", "<u1", (3,)), ("id", "<i2")])
HEADER = """# .PCD v0.7
VERSION 0.7
FIELDS x y stamp _ id
SIZE 4 4 8 1 2
TYPE F F U U I
COUNT 1 1 1 3 1
WIDTH {}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {}
DATA {}
"""


def points(count: int) -> np.ndarray:
    table = np.zeros(count, DTYPE)
    table["x"], table["y"] = np.arange(count) / 4, -np.arange(count, dtype="f4")
    table["stamp"], table["id"] = 10**9 + np.arange(count), -np.arange(count) % 7
    return table


def literal(data: bytes) -> bytes:
    """A stream of LZF that copies nothing."""
    pieces = (data[i : i + 32] for i in range(0, len(data), 32))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def written(table: np.ndarray, encoding: str) -> bytes:
    header = HEADER.format(len(table), len(table), encoding).encode()
    if encoding == "binary":
        return header + table.tobytes()
    if encoding == "binary_compressed":
        columns = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in DTYPE.names)
        packed = literal(columns)
        return header + struct.pack("<II", len(packed), len(columns)) + packed
    rows = (" ".join(map(str, [r[0], r[1], r[2], *r[3], r[4]])) for r in table.tolist())
    return header + "\n".join(rows).encode()


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_every_encoding_reads_the_same(encoding: str, count: int) -> None:
    np.testing.assert_array_equal(read_pcd(written(points(count), encoding)), points(count))


def test_text_may_hold_nan() -> None:
    content = written(points(2), "ascii").replace(b"0.25", b"nan")
    assert np.isnan(read_pcd(content)["x"]).tolist() == [False, True]


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_cut_anywhere_is_an_error(encoding: str) -> None:
    whole = written(points(9), encoding)
    for end in range(0, len(whole) - 1, 7):
        with pytest.raises(NotPcdError):
            read_pcd(whole[:end])


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("WIDTH 9", "WIDTH -1", "WIDTH is '-1'"),
        ("WIDTH 9", "WIDTH 99999999999", "WIDTH is '99999999999'"),
        ("HEIGHT 1", "HEIGHT 99999999", "more points than any sensor's"),
        ("POINTS 9", "POINTS 8", "POINTS is 8, but WIDTH x HEIGHT 9"),
        ("SIZE 4 4", "SIZE 4 3", "field y is of TYPE F, SIZE 3"),
        ("TYPE F F", "TYPE F O", "field y is of TYPE O"),
        ("COUNT 1 1 1 3", "COUNT 1 1 1 65537", "COUNT is"),
        ("COUNT 1 1 1 3", "COUNT 1 1 1 0", "COUNT 0"),
        ("COUNT 1 1 1 3", "COUNT 1 1 1 65536", "larger than any sensor's"),
        ("FIELDS x y", "FIELDS x x", "the field 'x' occurs twice"),
        ("FIELDS x y", "FIELDS x", "not of one length"),
        ("TYPE F F U U I\n", "", "no line 'TYPE'"),
        ("DATA binary", "DATA gzip", "DATA is 'gzip'"),
    ],
)
def test_headers_that_cannot_be(line: str, instead: str, said: str) -> None:
    content = written(points(9), "binary")
    assert line.encode() in content
    with pytest.raises(NotPcdError) as caught:
        read_pcd(content.replace(line.encode(), instead.encode()))
    assert said in str(caught.value)


def compressed(data: bytes) -> bytes:
    """LZF with references into what was there before, as far as 8 bytes back."""
    out, at = bytearray(), 0
    while at < len(data):
        match = next(
            (n for n in range(1, 9) if at >= n and data[at : at + 3] == again(data, at, n)), 0
        )
        if not match or len(data) - at < 3:
            out += bytes([0, data[at]])
            at += 1
            continue
        length = 3
        while at + length < len(data) and data[at + length] == data[at + length - match]:
            length += 1
        length = min(length, 264)
        rest = length - 2
        out += bytes([rest << 5] if rest < 7 else [7 << 5, rest - 7]) + bytes([match - 1])
        at += length
    return bytes(out)


def again(data: bytes, at: int, back: int) -> bytes:
    actual = bytearray(data[:at])
    for _ in range(3):
        actual.append(actual[-back])
    return bytes(actual[at:])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b"\0", b"ab", b"abc", b"\xff" * 300]), max_size=30).map(b"".join))
def test_what_was_compressed_comes_back(data: bytes) -> None:
    assert expand_lzf(compressed(data), len(data)) == data
    assert expand_lzf(literal(data), len(data)) == data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x20\x00", "end too early"),  # refers to what is not there
        (b"\xe0", "end too early"),
        (b"\x05abc", "3 bytes, expected 9"),
        (b"\x00a\xe0\xff\x00" * 99, "expected 9"),  # would expand to 26 kB
    ],
)
def test_damaged_compression_is_an_error(data: bytes, said: str) -> None:
    with pytest.raises(NotPcdError, match=said):
        expand_lzf(data, 9)
