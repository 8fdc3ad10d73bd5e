"""Files of the tables' index, damaged and forged: opened, and every record made.

    python scripts/fuzz/index.py --seed 0 --seconds 60

Checksums are made right again, and a damaged index is made again.
"""

from __future__ import annotations

import functools
import json
import os
import random
import struct
import tempfile
import zlib
from pathlib import Path

from trials import damage_bytes, damage_json, main

from lmd_cli.data.nuscenes.index import open_index
from lmd_cli.data.nuscenes.index.cache import index_path
from lmd_cli.data.nuscenes.index.records import SplitIndex
from lmd_cli.data.nuscenes.index.storage import MAGIC, DamagedError, read_arrays, write_arrays
from lmd_cli.data.nuscenes.index.validity import require_sound
from lmd_cli.data.synthetic import synthesize
from lmd_cli.runtime.cache import CACHE_VARIABLE

VERSION, SPLIT = "v1.0-mini", "mini_val"
TAIL = struct.Struct("<QI8s")


def trial(chance: random.Random, folder: Path) -> None:
    """One damaged index.

    Raises:
        AssertionError: what is opened is not what was damaged, made again.
    """
    content, records = whole()
    path = folder / "a.lmdindex"
    path.write_bytes(content)
    kind = chance.randrange(3)
    if kind == 0:
        path.write_bytes(damage_bytes(content, chance))
    elif kind == 1:
        path.write_bytes(forged(content, chance))
    else:
        renumber(path, chance)
    try:
        index = SplitIndex.load(path)
        require_sound(index.arrays, index.meta)
    except DamagedError:
        return
    for number in range(len(index)):
        index.record(number, 3, 3)
    assert kind or made(index) == records, "damage that was not seen"


def made(index: SplitIndex) -> str:
    """All records, as text."""
    return repr([index.record(number, 3, 3) for number in range(len(index))])


def forged(content: bytes, chance: random.Random) -> bytes:
    """The header with something else in it, and the right checksum."""
    length, _, _ = TAIL.unpack(content[-TAIL.size :])
    header = json.loads(content[-TAIL.size - length : -TAIL.size])
    text = json.dumps(damage_json(header, chance)).encode()
    tail = TAIL.pack(len(text), zlib.crc32(text), MAGIC)
    return content[: -TAIL.size - length] + text + tail


def renumber(path: Path, chance: random.Random) -> None:
    """Another number anywhere in the arrays."""
    arrays, meta = read_arrays(path)
    changed = {name: array.copy() for name, array in arrays.items()}
    array = changed[chance.choice(list(changed))]
    data = array.view("u1").reshape(-1)
    place = chance.randrange(len(data))
    data[place : place + 4] = list(chance.randbytes(4))[: len(data) - place]
    write_arrays(path, changed, meta)


@functools.cache
def whole() -> tuple[bytes, str]:
    """A split's index, and its records."""
    folder = Path(tempfile.mkdtemp())
    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    root = synthesize(folder / "root", split="mini_val", scenes=1, samples=3, image_size=(90, 160))
    index = open_index(root, VERSION, SPLIT)
    return index_path(root, VERSION, SPLIT).read_bytes(), made(index)


if __name__ == "__main__":
    main(__doc__ or "", trial)
