"""Configs, damaged and made up: read.

python scripts/fuzz/config.py --seed 0 --seconds 60
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from trials import VALUES, damage_bytes, main

from lmd_cli.config.loading import load_config
from lmd_cli.config.shipped import shipped

#: Seconds that one may take.
LONGEST = 3.0
#: What YAML is made of.
PIECES = (
    *("a: ", "- ", "? ", ": ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<: *a", "!!int ", "!!set "),
    *("|\n", ">\n", "'", '"', "#", "\n", "\n  ", "~", "2001-13-45", "1:2:3", "0x", ".inf", "1e999"),
    *("---\n", "...\n", "%YAML 9.9\n", "\t", "\0", "\ufeff", "data: ", "model: ", "variants: "),
    *("!!binary x", "!!timestamp ", "!!python/name:os.system ", "=", "true", "9" * 30),
)


def trial(chance: random.Random, folder: Path) -> None:
    """One damaged file, or one setting.

    Raises:
        LmdError: it is refused.
        AssertionError: it took too long.
    """
    chosen = chance.choice(sorted(shipped("configs").glob("*.yaml")))
    path, settings, start = folder / "x.yaml", [], time.process_time()
    data = chosen.read_bytes()
    if (kind := chance.random()) < 0.5:
        for _ in range(chance.randint(1, 4)):
            data = damage_bytes(data, chance)
    elif kind < 0.8:
        data = pieces(chance).encode(errors="surrogatepass")
    else:
        names = ["data", "model", "split", "checkpoint", "variants", "a", "encoder", ""]
        key = ".".join(chance.choices(names, k=chance.randint(1, 3)))
        settings = [f"{key}={chance.choice([pieces(chance), str(chance.choice(VALUES))])}"]
    path.write_bytes(data)
    try:
        load_config(path, settings)
    finally:
        assert time.process_time() - start < LONGEST, "too slow"


def pieces(chance: random.Random) -> str:
    """Random pieces, some of them very often."""
    pieces = chance.choices(PIECES, k=chance.randint(1, 60))
    if chance.random() < 0.3:
        pieces *= chance.randint(1, 200)
    return "".join(pieces)


if __name__ == "__main__":
    main(__doc__ or "", trial)
