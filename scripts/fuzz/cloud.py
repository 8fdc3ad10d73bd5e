"""Radar and LiDAR files, damaged: read.

python scripts/fuzz/cloud.py --seed 0 --seconds 60
"""

from __future__ import annotations

import random
import resource
from pathlib import Path

from trials import VALUES, damage_bytes, main

from lmd_cli.config.data import RADAR_FIELDS
from lmd_cli.data.nuscenes.lidar_files import read_lidar
from lmd_cli.data.nuscenes.radar_files import read_radar

#: MiB that a file of a few kB may take.
MOST = 100
SIZES = (4, 4, 4, 1, 2, 4, 4, 4, 4, 4, 1, 1, 1, 1, 1, 1, 1, 1)
NUMBERS = ("-1", "0", "1", "2147483648", "99999999999999999999", "1e9", "x", "", "٣", "1 1")


def trial(chance: random.Random, folder: Path) -> None:
    """One damaged file.

    Raises:
        LmdError: it is refused.
        AssertionError: it took too much memory.
    """
    path = folder / chance.choice(["a.pcd", "a.pcd.bin"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = radar(chance) if chance.random() < 0.7 else chance.randbytes(20 * chance.randint(0, 9))
    for _ in range(chance.randint(0, 2)):
        data = damage_bytes(data, chance)
    path.write_bytes(data)
    try:
        (read_radar if chance.random() < 0.6 else read_lidar)(path)
    finally:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MOST * 1024, f"{grown} kB more"


def radar(chance: random.Random) -> bytes:
    """A radar file, one line of whose header may say something else."""
    points = chance.randint(0, 20)
    lines = {
        "VERSION": "0.7",
        "FIELDS": " ".join(RADAR_FIELDS),
        "SIZE": " ".join(map(str, SIZES)),
        "TYPE": "F F F I I F F F F F I I I I I I I I",
        "COUNT": " ".join("1" * len(RADAR_FIELDS)),
        "WIDTH": str(points),
        "HEIGHT": "1",
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": str(points),
        "DATA": chance.choice(["binary", "binary", "ascii", "binary_compressed"]),
    }
    for _ in range(chance.randint(0, 2)):
        key = chance.choice(list(lines))
        words = lines[key].split() or [""]
        words[chance.randrange(len(words))] = chance.choice([*NUMBERS, *map(str, VALUES)])
        lines[key] = " ".join(words)
    header = "".join(f"{key} {words}\n" for key, words in lines.items())
    body = chance.randbytes(points * sum(SIZES) + chance.randint(0, 1))
    return b"# .PCD v0.7\n" + header.encode(errors="replace") + body


if __name__ == "__main__":
    main(__doc__ or "", trial)
