"""Tables of a nuScenes root, damaged: opened, and every sample loaded.

    python scripts/fuzz/tables.py --seed 0 --seconds 60

A file outside the root is never read, whatever a table names; nor a pipe or device, wherever it is.
"""

from __future__ import annotations

import functools
import json
import os
import random
import tempfile
from pathlib import Path

from trials import damage_file, damage_json, main

from lmd_cli.data import NuScenesSamples
from lmd_cli.data.content import file_hashes
from lmd_cli.data.synthetic import synthesize
from lmd_cli.geometry import Grid
from lmd_cli.runtime.cache import CACHE_VARIABLE

VERSION = "v1.0-mini"
#: Names of files that lead out of the root, or to what is no file.
NAMES = ("../outside.jpg", "/dev/zero", "/dev/stdin", "samples/pipe", "samples", "", ".", "a\0b")


def trial(chance: random.Random, folder: Path) -> None:
    """Damages one or two tables and loads the split.

    Raises:
        LmdError: the tables are refused.
    """
    root = copied(folder)
    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    tables = sorted((root / VERSION).glob("*.json"))
    for _ in range(chance.randint(1, 2)):
        if chance.random() < 0.2:
            rename_file(root / VERSION / "sample_data.json", chance)
        elif chance.random() < 0.2:
            damage_file(chance.choice(tables), chance)
        else:
            damage_row(chance.choice(tables), chance)
    if chance.random() < 0.05:
        no_file(chance.choice(tables), chance)
    grid = Grid((8, 2, 8), (-50.0, 50.0, -5.0, 5.0, -50.0, 50.0))
    size, modalities = (32, 64), ("camera", "radar", "lidar")
    samples = NuScenesSamples(
        *(root, VERSION, "mini_val"),
        modalities=modalities,
        nsweeps=2,
        image_size=size,
        grid=grid,
    )
    samples.missing_files(), samples.empty_files(), samples.missing_hint(), samples.problems()
    assert all("outside" not in name for name in file_hashes(samples, whole=True))
    for index, _ in enumerate(samples.tokens):
        samples[index]


def no_file(path: Path, chance: random.Random) -> None:
    """A pipe, a device or a folder in a table's place."""
    path.unlink()
    chance.choice((os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)))(path)


def damage_row(path: Path, chance: random.Random) -> None:
    """Something else at one place in one row."""
    try:
        rows = json.loads(path.read_text())
        number = chance.randrange(len(rows))
        rows[number] = damage_json(rows[number], chance)
    except (ValueError, TypeError, KeyError):  # damaged before
        return
    path.write_text(json.dumps(rows))


def rename_file(path: Path, chance: random.Random) -> None:
    """Another file's name in the rows of one sample."""
    try:
        rows = json.loads(path.read_text())
        for row in rows[:: chance.randint(1, 5)]:
            row["filename"] = chance.choice(NAMES)
    except (ValueError, TypeError, KeyError):
        return
    path.write_text(json.dumps(rows))


@functools.cache
def whole_root() -> tempfile.TemporaryDirectory[str]:
    """A root of one scene with two samples, until the process ends."""
    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name) / "root"
    synthesize(root, split="mini_val", scenes=1, samples=2, image_size=(32, 64))
    os.mkfifo(root / "samples" / "pipe")
    return folder


def copied(folder: Path) -> Path:
    """The root with tables of its own, its sensors' files by links."""
    whole, root = Path(whole_root().name) / "root", folder / "root"
    root.mkdir()
    for path in whole.iterdir():
        if path.name == VERSION:
            (root / VERSION).mkdir()
            for table in path.iterdir():
                (root / VERSION / table.name).write_bytes(table.read_bytes())
        else:
            (root / path.name).symlink_to(path)
    (folder / "outside.jpg").write_bytes(b"not in the root")
    return root


if __name__ == "__main__":
    main(__doc__ or "", trial)
