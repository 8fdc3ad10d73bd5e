"""What the tables cost beside an evaluation of one variant, in maps through the decoder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lmd_cli.config_file import load_config
from lmd_cli.report.reproduce import table_methods

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from benchmark_tables import count

OFFSETS = 12


@pytest.fixture(scope="module")
def maps(tiny_config: Path) -> dict[str, float]:
    """For each way of evaluating its maps at 12 offsets, which grow by the offset."""
    ways = {
        "one": ["lmd:identity-ratio"],
        "two": table_methods([2]),
        "all": table_methods([1, 2, 4, 6]),
    }
    few, more = 2, 4
    found = {}
    for name, methods in ways.items():
        at = {}
        for offsets in (few, more):
            config = load_config(str(tiny_config), [f"perturbation.count={offsets}"])
            counted = count(config, name, methods, timed=False).decoder
            assert counted is not None
            at[offsets] = counted
        found[name] = at[few] + (OFFSETS - few) * (at[more] - at[few]) / (more - few)
    return found


def test_one_variant(maps: dict[str, float]) -> None:
    """The total, two clean parts (no bias before the first convolution), and the partners."""
    assert maps["one"] == 3 + 2 * OFFSETS


def test_four_variants(maps: dict[str, float]) -> None:
    """Two families, and two kinds of constants; with the encoder that is 1.7 times one variant."""
    assert maps["two"] <= 2 * maps["one"] + 3


def test_all_tables(maps: dict[str, float]) -> None:
    assert maps["all"] <= 10 * maps["one"]
