"""Some of a split's samples: by scene, token, night and rain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.loading import load_config
from lmd_cli.config.samples import SamplesConfig
from lmd_cli.data.choice import chosen_rows
from lmd_cli.data.custom import CustomSamples
from lmd_cli.errors import ConfigError, DataError
from tests.support.tiny_settings import crn_config

TOKENS = ["a", "b", "c", "d"]
SCENES = ["one", "one", "two", "three"]
TEXTS = ["Night, parked cars", "Night, parked cars", "Raining, night", "Trains at a station"]


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({"scenes": ["one", "three"]}, [0, 1, 3]),
        ({"tokens": ["d", "b"]}, [1, 3]),
        ({"night": True}, [0, 1, 2]),
        ({"night": True, "rain": False}, [0, 1]),
        ({"rain": True}, [2]),
        ({"rain": False, "scenes": ["three"]}, [3]),
    ],
)
def test_every_condition_counts(given: dict[str, Any], rows: list[int]) -> None:
    assert chosen_rows(SamplesConfig(**given), TOKENS, SCENES, TEXTS) == rows


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scenes": ["thre"]}, "samples.scenes: thre is not among the split's; did you mean three"),
        ({"tokens": ["x"]}, "samples.tokens: x is not among"),
        ({"rain": True, "night": False}, "none of the 4 samples is chosen; 3 are at night, 1 in"),
    ],
)
def test_what_is_not_there(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen_rows(SamplesConfig(**given), TOKENS, SCENES, TEXTS)


@pytest.mark.parametrize("network", ["simplebev", "crn"])
def test_a_chosen_sample_is_the_same_sample(
    network: str, tiny_config: Path, tiny_root: Path, tmp_path: Path
) -> None:
    path = tiny_config if network == "simplebev" else crn_config(tmp_path, tiny_root)
    whole = build_dataset(load_config(str(path)))
    picked = [whole.tokens[5], whole.tokens[2]]
    some = build_dataset(load_config(str(path), [f"samples.tokens={json.dumps(picked)}"]))
    assert some.tokens == [whole.tokens[2], whole.tokens[5]]
    assert some.scenes == [whole.scenes[2], whole.scenes[5]]
    assert len(some) == 2
    assert some.index_of(picked[0]) == 1
    for index, row in enumerate((2, 5)):
        pairs = zip(
            pytree.tree_leaves(some[index].tensors),
            pytree.tree_leaves(whole[row].tensors),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)
        assert some.boxes_on_map(index)[0].token == whole.boxes_on_map(row)[0].token
    if network == "crn":
        padded = (whole.padded[token] for token in some.tokens)  # type: ignore[union-attr]
        assert list(some.padded.values()) == list(padded)  # type: ignore[union-attr]
    few, every = (sum(map(len, s.needed_files().values())) for s in (some, whole))  # type: ignore[union-attr]
    assert 0 < few < every
    with pytest.raises(DataError, match="is not in"):
        some.index_of(whole.tokens[0])


def test_data_of_ones_own(tmp_path: Path) -> None:
    class Data(list[dict[str, torch.Tensor]]):
        tokens = tuple(TOKENS)
        scenes = tuple(SCENES)

    items = Data([{"x": torch.full((1,), float(i))} for i in range(4)])
    samples = CustomSamples(items, "the data", lambda what: pytest.MonkeyPatch.context())
    samples.choose([1, 3])
    samples.choose([1])
    assert samples.tokens == ["d"]
    assert samples.scene_names == ["three"]
    assert float(samples[0].tensors["x"]) == 3.0
