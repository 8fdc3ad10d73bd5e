"""The study of methods on fresh worlds: differences are of the same draws, means of worlds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from studies import trust as study

from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.evaluation.statistics import Interval, bootstrap

OBJECTS = [str(i // 2) for i in range(40)]
KEY = ("auroc_all", "camera")


def drawn(values: np.ndarray, seed: int = 3) -> study.Drawn:
    """Of means over the observations."""

    def mean(rows: np.ndarray) -> float:
        return float(values[rows].mean())

    interval = Interval(float(values.mean()), 0.0, 0.0)
    return study.Drawn.of(
        Score(*KEY, interval, len(values), len(set(OBJECTS)), mean, OBJECTS), seed, 200
    )


def test_a_difference_is_that_of_paired_bootstrap() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 40))
    difference = a - b
    wanted = bootstrap(
        lambda rows: float(difference[rows].mean()), 40, seed=3, resamples=200, groups=OBJECTS
    )
    interval = drawn(a).less(drawn(b))
    for name in ("estimate", "low", "high"):
        assert math.isclose(getattr(interval, name), getattr(wanted, name), abs_tol=1e-12)


def test_the_mean_is_over_worlds_in_which_a_score_exists() -> None:
    low, high, none = np.zeros(40), np.ones(40), np.full(40, math.nan)
    averaged = study.mean([{"a": {KEY: drawn(x)}} for x in (low, high, none)])
    assert (averaged["a"][KEY].values == 0.5).all()
    nowhere = study.mean([{"a": {KEY: drawn(none)}}])
    assert np.isnan(nowhere["a"][KEY].values).all()


def test_the_best_and_what_its_interval_does_not_exclude_are_bold() -> None:
    noise = np.random.default_rng(1).normal(size=40).cumsum()
    other = np.random.default_rng(2).normal(size=40).cumsum()
    results = {
        "level": {KEY: drawn(other - other.mean() + noise.mean() - 0.01)},
        "behind": {KEY: drawn(noise - 0.01)},
        study.EXACT: {KEY: drawn(noise)},
    }
    best = max(results, key=lambda name: results[name][KEY].values[0])
    assert best == study.EXACT
    ((network, score, level, behind, exact),) = study.method_rows(results, "demo")
    assert (network, score) == ("demo", "auroc_all camera")
    assert level.startswith("**")
    assert behind == f"{results['behind'][KEY].values[0]:.3f} (-0.010, -0.010)"
    assert exact == f"**{results[study.EXACT][KEY].values[0]:.3f}**"


def test_methods_that_do_not_exist_are_left_out() -> None:
    assert study.known(["lmd:identity-ratio", "lmd:no-such", "no-such", "shapley"]) == [
        "lmd:identity-ratio",
        "shapley",
    ]


def test_worlds_and_scores_are_made_once(
    tiny_config: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "worlds").mkdir()
    for seed in (1, 2):
        (tmp_path / "worlds" / f"seed-{seed}").symlink_to(tiny_root)
    arguments = ["--output", str(tmp_path), "--config", str(tiny_config), "--seed", "1"]
    arguments += ["--seed", "2", "--method", study.DEFAULT, "--resamples", "20"]
    outputs = []
    for _ in range(2):
        assert study.main(arguments) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    header = "| network | score | lmd:identity-ratio-shapley | shapley |"
    assert header in outputs[0].splitlines()
    assert "| network | score | 1 | 2 |" in outputs[0].splitlines()
    assert "| tiny | rank_correlation radar | " in outputs[0]
