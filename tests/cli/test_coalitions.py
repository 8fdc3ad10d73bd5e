"""The variant ``coalitions`` in each command, and slopes between coalitions, on the tiny root."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmd_cli.decomposition.variant import COALITION_RULES
from tests.support.calling import Lmd

#: A network of six modalities, and its data.
SIX = """
import torch
from torch import nn
from lmd_cli.data import Region


class Net(nn.Module):
    modalities = tuple("abcdef")

    def encode(self, batch):
        return dict(batch)

    def fuse(self, features):
        return {"risk": torch.relu(sum(features.values()) - 0.1)}


class Data:
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {name: torch.full((1, 4, 4), i + 1.0) for name in "abcdef"}

    def regions(self, i):
        evidence = {name: float(name == "a") * i for name in "abcdef"}
        return [Region(str(i), torch.ones(4, 4, dtype=torch.bool), evidence)]
"""
ONLY = ("--set", "variants=[coalitions]")


def test_evaluate_and_report(lmd: Lmd, tiny_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = lmd("evaluate", "-c", tiny_config, *ONLY, "--limit", 1, "--output", folder)
    assert result.exit_code == 0, result.output
    pairs = pd.read_csv(folder / "pairs.csv")
    assert set(pairs.variant) == {"coalitions"}
    kept = pairs[pairs.perturbed != pairs.target]
    assert len(kept)
    assert (kept.mse == 0).all()
    np.testing.assert_allclose(kept.pcc, 1.0, atol=1e-6)
    assert (pd.read_csv(folder / "samples.csv").residual < 1e-4).all()
    assert lmd("report", folder, "--limit", 1).exit_code == 0


@pytest.mark.parametrize(
    "name", ["coalitions", *(f"identity-ratio-{rule}" for rule in COALITION_RULES)]
)
def test_check_and_decompose(lmd: Lmd, tiny_config: Path, tmp_path: Path, name: str) -> None:
    result = lmd("check", "-c", tiny_config, "--set", f"variants=[{name}]")
    assert result.exit_code == 0, result.output
    assert f"replay of eq. 14, {name}" in result.stdout
    explain = ("--set", f"explain={name}")
    result = lmd("decompose", "-c", tiny_config, *explain, "--output", tmp_path / "d")
    assert result.exit_code == 0, result.output
    arrays = np.load(tmp_path / "d" / "parts.npz")
    summed = arrays["camera"] + arrays["radar"] + arrays["bias"]
    np.testing.assert_allclose(summed, arrays["total"], atol=1e-4 * np.abs(arrays["total"]).max())


def test_score_as_exact_shapley_values(lmd: Lmd, tiny_config: Path, tmp_path: Path) -> None:
    """The clean parts of the output are the same, so are their scores."""
    methods = ("--method", "lmd:coalitions", "--method", "shapley", "--resamples", 20)
    result = lmd("score", "-c", tiny_config, *methods, "--limit", 3, "--output", tmp_path / "s")
    assert result.exit_code == 0, result.output
    vehicles = pd.read_csv(tmp_path / "s" / "vehicles.csv")
    own = [vehicles[vehicles.method == name] for name in ("lmd:coalitions", "shapley")]
    for column in own[0].columns:
        if own[0][column].dtype == float:
            np.testing.assert_allclose(own[0][column], own[1][column], rtol=1e-3, atol=1e-4)


def test_more_modalities_than_are_carried(lmd: Lmd, tmp_path: Path) -> None:
    (tmp_path / "six.py").write_text(SIX)
    path = tmp_path / "six.yaml"
    path.write_text(
        "model: {target: 'six:Net', modalities: [a, b, c, d, e, f], output: risk}\n"
        "data: {target: 'six:Data'}\n"
    )
    said = "6 modalities have 64 coalitions, each as long and as large as a plain pass, with 192"
    for command in (
        ("evaluate", "--set", "variants=[coalitions]"),
        ("decompose", "--variant", "coalitions"),
        ("score", "--method", "lmd:coalitions"),
    ):
        result = lmd(*command, "-c", path, "--output", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert said in " ".join(result.output.split())
        assert "Take identity-ratio-reveal, whose cost is linear" in " ".join(result.output.split())


def test_one_modality_is_scored_without_a_verdict(lmd: Lmd, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(SIX.replace("abcdef", "a"))
    path = tmp_path / "one.yaml"
    path.write_text(
        "model: {target: 'one:Net', modalities: [a], output: risk}\ndata: {target: 'one:Data'}\n"
    )
    methods = [f"lmd:{name}" for name in ("identity-ratio-shapley", "coalitions")] + ["shapley"]
    asked = [word for name in methods for word in ("--method", name)]
    result = lmd("score", "-c", path, *asked, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Too few objects (0 of at least 10 in each class" in " ".join(result.output.split())
    scores = pd.read_csv(tmp_path / "out" / "score.csv")
    assert scores[scores.score == "auroc_all"].estimate.isna().all()
    assert len(scores[scores.score == "rank_correlation"].estimate.dropna()) == len(methods)


def test_a_variant_beside_it_is_refused(lmd: Lmd, tiny_config: Path) -> None:
    result = lmd("evaluate", "-c", tiny_config, "--set", "variants=[uniform-ratio-coalitions]")
    assert result.exit_code == 2
    assert "coalitions runs every operation as it is" in " ".join(result.output.split())
