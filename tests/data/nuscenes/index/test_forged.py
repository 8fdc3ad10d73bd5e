"""Index files that somebody forged, checksums included; and what is deleted beside them."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmd_cli.data.nuscenes.index.cache import index_path
from lmd_cli.data.nuscenes.index.records import SplitIndex
from lmd_cli.data.nuscenes.index.storage import MAGIC, DamagedError, read_arrays, write_arrays
from lmd_cli.data.nuscenes.index.validity import require_sound
from tests.support.tiny_nuscenes import VERSION, open_samples

TAIL = struct.Struct("<QI8s")


@pytest.fixture
def index(tiny_root: Path) -> Path:
    """The file of a split's index."""
    open_samples(tiny_root)
    return index_path(tiny_root, VERSION, "mini_val")


def forge(path: Path, change: Callable[[Any], Any]) -> None:
    """Changes the header; its checksum is then right."""
    content = path.read_bytes()
    length, _, _ = TAIL.unpack(content[-TAIL.size :])
    header = json.loads(content[-TAIL.size - length : -TAIL.size])
    text = json.dumps(change(header) or header).encode()
    tail = TAIL.pack(len(text), zlib.crc32(text), MAGIC)
    path.write_bytes(content[: -TAIL.size - length] + text + tail)


def place(name: str, **values: Any) -> Callable[[Any], None]:
    return lambda header: header["arrays"][name].update(values)


HEADERS: dict[str, Callable[[Any], Any]] = {
    "objects": place("prev", dtype="|O"),
    "objects in a column": place("samples", dtype=[["token", "|O"], ["scene", "<i4"]]),
    "a void type": place("prev", dtype="|V8"),
    "a type that is none": place("prev", dtype=7),
    "a count": place("prev", shape=[10**9]),
    "a huge count": place("prev", shape=[2**70]),
    "a negative count": place("prev", shape=[-1]),
    "no list": place("prev", shape=None),
    "an offset": place("prev", offset=-8),
    "an offset far before": place("prev", offset=-(10**12)),
    "half a count": place("prev", shape=[1.5]),
    "an offset beyond": place("prev", offset=10**12),
    "a size": lambda header: header.update(size=2**62),
    "a negative size": lambda header: header.update(size=-1),
    "no size": lambda header: header.pop("size") and None,
    "a list": lambda header: [header],
    "no arrays": lambda header: header.update(arrays=None),
    "an array too few": lambda header: header["arrays"].pop("frames") and None,
    "no meta": lambda header: header.pop("meta") and None,
    "other meta": lambda header: header.update(meta=[]),
    "fewer scenes": lambda header: header["meta"].update(scenes=[]),
    "another channel": lambda header: header["meta"]["channels"].update(CAM="camera"),
    "no channels": lambda header: header["meta"].update(channels=3),
    "no text of others": lambda header: header["meta"]["others"].update(instances=[1, 2, 3, 4]),
    "no others": lambda header: header["meta"].pop("others") and None,
    "others are no names": lambda header: header["meta"].update(others=[]),
    "fewer others": lambda header: header["meta"]["others"].update(instances=[]),
    "no text": lambda header: header["meta"].update(categories=[1, 2, 3]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_forged_header_is_damage(tiny_root: Path, index: Path, name: str, caplog: Any) -> None:
    before, content = repr(open_samples(tiny_root)._records[:]), index.read_bytes()
    forge(index, HEADERS[name])
    assert index.read_bytes() != content
    assert repr(open_samples(tiny_root)._records[:]) == before
    assert f"{index} is damaged" in caplog.text
    assert index.read_bytes() == content


ROWS = [
    *[("samples", "scene", -1), ("samples", "scene", 99), ("key_frames", None, 10**6)],
    *[("key_frames", None, -2), ("samples", "first_annotation", -1), ("samples", "problem", -2)],
    *[("samples", "first_annotation", 2**62), ("samples", "annotations", -5)],
    *[("samples", "annotations", 2**31 - 1), ("frames", "calibration", -1)],
    *[("frames", "calibration", 12345), ("annotations", "category", 77)],
    *[("others", "category", 1), ("others", "instance", -1), ("others_of", "first", 4)],
    *[("others_of", "count", -1), ("others_of", "count", 2**31 - 1), ("others_of", "problem", -2)],
    ("others_of", "problem", 0),
    *[("prev", None, 10**6), ("prev", None, -2), ("frames", "filename", b"\xff\xfe")],
]


@pytest.mark.parametrize(("table", "column", "value"), ROWS)
def test_rows_that_lead_nowhere_are_damage(
    index: Path, table: str, column: str | None, value: Any
) -> None:
    arrays, meta = read_arrays(index)
    changed = {name: array.copy() for name, array in arrays.items()}
    require_sound(changed, meta)
    rows = changed[table][column] if column else changed[table]
    rows[0] = value
    write_arrays(index, changed, meta)
    actual = SplitIndex.load(index)
    with pytest.raises(DamagedError):
        require_sound(actual.arrays, actual.meta)


def test_other_columns_are_damage(index: Path) -> None:
    arrays, meta = read_arrays(index)
    with pytest.raises(DamagedError, match="the column prev"):
        require_sound({**arrays, "prev": arrays["prev"].astype(np.int64)}, meta)
    with pytest.raises(DamagedError, match="the columns of others_of"):
        require_sound({**arrays, "others_of": arrays["others_of"][:1]}, meta)
    with pytest.raises(DamagedError, match="the columns of frames"):
        require_sound({**arrays, "frames": arrays["samples"]}, meta)


def test_only_what_is_ours_is_deleted(tiny_root: Path, index: Path, tmp_path: Path) -> None:
    ours = f"v1.0-mini-val-{'0' * 24}.lmdindex"
    (tmp_path / "elsewhere").write_bytes(MAGIC)
    (index.parent / "folder").mkdir()
    (index.parent / f"a-{'1' * 24}.lmdindex").symlink_to(tmp_path / "elsewhere")
    theirs = {"notes.txt": MAGIC, ".hidden.part": b"", f"b-{'2' * 24}.lmdindex": b"of another"}
    drafts = (f".{ours}.123.part", f".{ours}.lock")
    for name, content in {**theirs, ours: MAGIC, **dict.fromkeys(drafts, b"")}.items():
        (index.parent / name).write_bytes(content)
    for path in (*index.parent.iterdir(), tmp_path / "elsewhere"):
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    open_samples(tiny_root, split="mini_train")
    left = {path.name for path in index.parent.iterdir()}
    new = index_path(tiny_root, VERSION, "mini_train").name
    assert left == {*theirs, "folder", f"a-{'1' * 24}.lmdindex", new}
    assert (tmp_path / "elsewhere").exists()
