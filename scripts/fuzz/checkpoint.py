"""Checkpoints, damaged and made up: loaded and converted.

    python scripts/fuzz/checkpoint.py --seed 0 --seconds 60

Pickles are damaged inside an archive whose checksums are right, or made of random instructions.
A small file may take neither two seconds nor much memory; nothing that it names is called.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import pickletools
import random
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trials import damage_bytes, main

from lmd_cli.networks import load_checkpoint
from lmd_cli.networks.checkpoints.conversion import convert

#: Seconds and MiB that a file of a few kB may take.
LONGEST, MOST = 2.0, 200


class Runs:
    """Makes a file when unpickled by a careless reader."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.witness),)


def trial(chance: random.Random, folder: Path) -> None:
    """One damaged file, loaded or converted.

    Raises:
        LmdError: the file is refused.
        AssertionError: it took too long or too much, or ran.
    """
    path, witness = folder / "a.pth", folder / "witness"
    chance.choice([damaged, damaged_pickle, damaged_pickle, made_up, made_up, deep])(
        path, witness, chance
    )
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        if chance.random() < 0.5:
            load_checkpoint(path, network())
        else:
            convert(path, folder / "a.safetensors")
    finally:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert time.process_time() - start < LONGEST, "too slow"
        assert grown < MOST * 1024, f"{grown} kB more"
        assert not witness.exists(), "something ran"


def network() -> nn.Module:
    """A small network with BatchNorm."""
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def save(path: Path, witness: Path, chance: random.Random) -> None:
    """A checkpoint of one of the kinds that people have."""
    content: Any = dict(network().state_dict())
    if chance.random() < 0.5:
        content = {"state_dict": {f"model.{n}": v for n, v in content.items()}, "epoch": 3}
    if chance.random() < 0.3:
        content["callbacks"] = Runs(witness)
    protocol, zipped = chance.choice([2, 4]), chance.random() < 0.7
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)


def damaged(path: Path, witness: Path, chance: random.Random) -> None:
    """The file's bytes damaged anywhere."""
    save(path, witness, chance)
    path.write_bytes(damage_bytes(path.read_bytes(), chance))


def damaged_pickle(path: Path, witness: Path, chance: random.Random) -> None:
    """The pickle damaged, in an archive that is right otherwise."""
    save(path, witness, chance)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in records if name.endswith("data.pkl"))
        for _ in range(chance.randint(1, 3)):
            records[name] = change(records[name], chance)
        write(path, records)


def change(data: bytes, chance: random.Random) -> bytes:
    """Some instructions lost, doubled, swapped, or another in their place."""
    steps = list(split(data))
    place = chance.randrange(len(steps))
    kind = chance.randrange(4)
    if kind == 0:
        del steps[place]
    elif kind == 1:
        steps[place:place] = steps[place : place + chance.randint(1, 20)] * chance.randint(1, 50)
    elif kind == 2:
        other = chance.randrange(len(steps))
        steps[place], steps[other] = steps[other], steps[place]
    else:
        steps[place] = instruction(chance)
    return b"".join(steps)


def split(data: bytes) -> list[bytes]:
    """A pickle's instructions; what cannot be told apart stays together."""
    starts = [0]
    with contextlib.suppress(ValueError, KeyError, IndexError):
        starts = [start or 0 for _, _, start in pickletools.genops(data)]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def made_up(path: Path, witness: Path, chance: random.Random) -> None:
    """A pickle of random instructions."""
    steps = b"".join(instruction(chance) for _ in range(chance.randint(1, 3000)))
    write(path, {"a/data.pkl": b"\x80\x02}" + steps + b".", "a/data/0": bytes(16)})


def deep(path: Path, witness: Path, chance: random.Random) -> None:
    """The same few instructions, very often."""
    steps = b"".join(instruction(chance) for _ in range(chance.randint(1, 6)))
    start = b"".join(instruction(chance) for _ in range(10))
    steps = start + steps * (chance.randint(1, 200_000) // len(steps))
    write(path, {"a/data.pkl": b"\x80\x02}" + steps + b".", "a/data/0": bytes(16)})


#: Texts and names that instructions are about.
NAMES = (
    *(b"collections\nOrderedDict\n", b"torch._utils\n_rebuild_tensor_v2\n", b"os\nmknod\n"),
    *(b"torch\nFloatStorage\n", b"torch._utils\n_rebuild_parameter\n", b"torch\nSize\n"),
)
PLAIN = b"(()]}NK\x00\x85\x86\x87t0012easlduRbQ\x88\x89\x94\x8f\x90\x91\x93\x81\x92"


def instruction(chance: random.Random) -> bytes:
    """One, with an argument that may be far too large."""
    number = chance.choice([0, 1, 2, 3, 255, 2**16, 2**28, 2**31 - 1])
    little = struct.pack("<I", number)
    options: list[Callable[[], bytes]] = [
        lambda: bytes([chance.choice(PLAIN)]),
        lambda: bytes([chance.choice(PLAIN)]),
        lambda: b"c" + chance.choice(NAMES),
        lambda: chance.choice([b"q", b"h"]) + bytes([number % 256]),
        lambda: chance.choice([b"r", b"j", b"J", b"X", b"B", b"\x8b"]) + little,
        lambda: chance.choice([b"\x8d", b"\x8e", b"\x95", b"\x96"]) + little + b"\0\0\0\0",
        lambda: b"X" + struct.pack("<I", 4) + chance.choice([b"stor", b"0.we", b"\xff" * 4]),
        lambda: pickle.dumps(chance.choice(["storage", "0", 2**62, -1, 0.5, ("a", 1)]), 2)[2:-1],
        lambda: bytes([chance.randrange(256)]),
    ]
    return chance.choice(options)()


def write(path: Path, records: dict[str, bytes]) -> None:
    """An archive with these records."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    path.write_bytes(memory.getvalue())


if __name__ == "__main__":
    main(__doc__ or "", trial)
