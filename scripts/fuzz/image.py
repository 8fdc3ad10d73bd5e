"""Camera images, damaged: read as both networks read them.

python scripts/fuzz/image.py --seed 0 --seconds 60
"""

from __future__ import annotations

import io
import random
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from trials import damage_bytes, main

from lmd_cli.data.nuscenes.images import load_image, read_resized

#: MiB that an image of a few kB may take: the largest allowed one, as RGB and as Pillow has it.
MOST = 400
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "EPS")
SIZE, RECORDED = (32, 56), (160, 90)


def trial(chance: random.Random, folder: Path) -> None:
    """One damaged image.

    Raises:
        LmdError: it is refused.
        AssertionError: it took too much memory.
    """
    path = folder / "a.jpg"
    path.write_bytes(damaged(picture(chance), chance))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    recorded = chance.choice([None, RECORDED])
    try:
        if chance.random() < 0.5:
            load_image(path, SIZE, recorded=recorded)
        else:
            read_resized(path, SIZE, Image.Resampling.BICUBIC, recorded=recorded)
    finally:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MOST * 1024, f"{grown} kB more"


def picture(chance: random.Random) -> bytes:
    """A small image, in a random format and mode."""
    values = np.frombuffer(chance.randbytes(90 * 160 * 3), np.uint8).reshape(90, 160, 3)
    image = Image.fromarray(values).convert(chance.choice(["RGB", "L", "I;16", "P", "RGBA", "1"]))
    exif = Image.Exif()
    exif[0x0112] = chance.randint(0, 9)
    memory = io.BytesIO()
    try:
        image.save(memory, chance.choice(FORMATS), **chance.choice([{}, {"exif": exif}]))
    except (OSError, ValueError):  # not every format has every mode
        image.convert("RGB").save(memory, "PNG")
    return memory.getvalue()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The image's bytes changed, or its size made large."""
    kind = chance.randrange(4)
    if kind == 0:
        return damage_bytes(data, chance)
    if kind == 1 and data.startswith(b"\x89PNG"):
        sizes = struct.pack(">II", *chance.choices([0, 1, 90, 4000, 2**16, 2**31 - 1], k=2))
        head = b"IHDR" + sizes + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    changed = bytearray(data)
    for _ in range(chance.randint(1, 10)):
        changed[chance.randrange(min(len(data), 300))] = chance.randrange(256)
    return bytes(changed)


if __name__ == "__main__":
    main(__doc__ or "", trial)
