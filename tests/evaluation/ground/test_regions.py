"""Known truth of a data set of the user's own, and scores against it; a network with a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmd_cli.config.loading import load_config
from lmd_cli.data import Region
from lmd_cli.errors import ContractError, MethodError
from lmd_cli.evaluation.scores.ground_truth import RegionGroundTruth
from lmd_cli.workflows.decompose import decompose_sample, write_sample
from lmd_cli.workflows.score import score

#: The second channel of the output is the sum of the modalities, so a part is its modality.
MODULE = '''
import torch
from torch import nn

from lmd_cli.data import Region


class Volumes:
    """Modality a sees the lesions of even samples, b those of odd ones; silent ones have none."""

    def __init__(self, silent=False):
        self.regions = None if silent else self._regions

    def __len__(self):
        return 6

    def __getitem__(self, i):
        noise = 0.01 * torch.randn(2, 1, 4, 5, 6)
        noise[i % 2, :, :, 1:3, 2:4] += 1 + i
        return {"a": noise[0], "b": noise[1]}

    def _regions(self, i):
        mask = torch.zeros(4, 5, 6, dtype=torch.bool)
        mask[:, 1:3, 2:4] = True
        evidence = {"a": (1 - i % 2) * (1 + i), "b": i % 2 * (1 + i)}
        return [Region(f"lesion-{i}", mask, evidence)]


class Sum(nn.Module):
    modalities = ("a", "b")

    def encode(self, batch):
        return dict(batch)

    def fuse(self, features):
        total = features["a"] + features["b"]
        return {"lesion": torch.cat([-total, total], 1)}
'''


@pytest.fixture
def config(tmp_path: Path) -> Any:
    (tmp_path / "volumes.py").write_text(MODULE)
    path = tmp_path / "volumes.yaml"
    path.write_text(
        "model: {target: 'volumes:Sum', modalities: [a, b], output: lesion, channel: 1}\n"
        "data: {target: 'volumes:Volumes'}\nthreads: 1\n"
    )
    return lambda *settings: load_config(path, settings)


def test_methods_are_scored_against_a_data_sets_own_regions(config: Any, tmp_path: Path):
    actual = score(config(), tmp_path / "out", ("lmd", "leave-one-out"), resamples=50)
    for name in ("lmd:identity-ratio", "leave-one-out"):
        values = {(s.name, s.modality): s.interval.estimate for s in actual.scores[name]}
        assert values["auroc_all", "a"] == 1.0  # a part is its modality, without any doubt
        assert values["rank_correlation", "b"] > 0.8
    assert "6 regions" in actual.notes[0]
    header, first, *_ = (tmp_path / "out" / "vehicles.csv").read_text().splitlines()
    assert "seen_by_a,seen_by_b,evidence_a,evidence_b" in header
    assert ",lesion-0," in first


def test_without_regions_scores_are_refused(config: Any, tmp_path: Path):
    with pytest.raises(MethodError, match=r"does not say: give its data set a method regions"):
        score(config("data.options.silent=true"), tmp_path / "out", ("lmd",))


class OneRegion:
    tokens = ("tok",)

    def __init__(self, region: Any):
        self.region = region

    def regions(self, index: int) -> list[Any]:
        return [self.region]


MASK = torch.ones(2, 3, dtype=torch.bool)
SEEN = {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ({"token": "x"}, "regions of sample tok: one is a dict; expected lmd_cli.data.Region"),
        (Region("x", MASK.T, SEEN), "mask of x must be a bool tensor of shape (2, 3)"),
        (Region("x", MASK.float(), SEEN), "mask of x must be a bool tensor"),
        (Region("x", ~MASK, SEEN), "with at least one cell set"),
        (Region("x", MASK, {"a": 1.0}), "x has evidence of a; the modalities are a, b"),
        (
            Region("x", MASK),
            "x has evidence of none; the modalities are a, b. A data set that does",
        ),
    ],
)
def test_regions_that_do_not_fit(region: Any, said: str):
    with pytest.raises(ContractError) as caught:
        RegionGroundTruth(OneRegion(region), ("a", "b"), 0).at(0, torch.zeros(1, 1, 2, 3))
    assert said in str(caught.value)


def test_regions_need_maps():
    truth = RegionGroundTruth(OneRegion(Region("x", MASK, SEEN)), ("a", "b"), 0)
    with pytest.raises(ContractError, match=r"output has the shape \(1, 6\); regions need maps"):
        truth.at(0, torch.zeros(1, 6))


def test_a_region_is_detected_where_its_mean_output_is_above_zero():
    truth = RegionGroundTruth(OneRegion(Region("x", MASK, SEEN)), ("a", "b"), 1)
    output = torch.stack([-torch.ones(2, 3), torch.ones(2, 3)])[None]
    (entry,), means = truth.at(0, output)
    assert entry.detected
    assert means(output).tolist() == [[1.0]]
    (entry,), _ = truth.at(0, -output)
    assert not entry.detected


def test_a_volumes_picture_is_its_middle_slice(config: Any, tmp_path: Path):
    split = decompose_sample(config())
    assert torch.equal(split.total, split.result.total[0, 1, 2])
    files = write_sample(split, tmp_path / "files")
    assert "decomposition.png" in {path.name for path in files}
    with np.load(tmp_path / "files" / "parts.npz") as arrays:
        assert arrays["a"].shape == (2, 4, 5, 6)
