"""Which method to trust: by hand-made scores of methods on the same objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.evaluation.scores.best_method import verdict
from lmd_cli.evaluation.statistics import bootstrap

OBJECTS = [str(i // 3) for i in range(120)]  # each is seen three times
NOISE = np.random.default_rng(0).normal(size=120).cumsum() / 10.0


def scores(
    auroc: Sequence[float] | np.ndarray,
    rank: Sequence[float] | np.ndarray,
    objects: Sequence[str] = OBJECTS,
) -> list[Score]:
    """Means over the observations stand for AUROC and rank correlation."""

    def score(name: str, modality: str, values: Sequence[float] | np.ndarray) -> Score:
        given = np.asarray(values, dtype=np.float64)

        def mean(rows: np.ndarray) -> float:
            return float(given[rows].mean())

        interval = bootstrap(mean, len(given), seed=0, resamples=200, groups=objects)
        return Score(name, modality, interval, len(given), mean, objects)

    return [
        score("auroc_all", "camera", auroc),
        score("rank_correlation", "camera", rank),
        score("rank_correlation", "radar", np.full(len(objects), math.nan)),
        score("bias_share", "", np.full(len(objects), 0.1)),
    ]


def level(value: float, *, noise: np.ndarray = NOISE) -> np.ndarray:
    return value + noise - noise.mean()


def test_best_level_and_avoided() -> None:
    """All share what is hard about an object, so that the paired interval excludes a method whose
    own interval is well within the best's; another's noise of its own hides as large a gap."""
    other = np.random.default_rng(1).normal(size=120).cumsum() / 10.0
    judged = verdict(
        {
            "poor": scores(level(-5.0), level(-5.0)),
            "best": scores(level(0.9), level(0.8)),
            "close behind": scores(level(0.86), level(0.76)),
            "level": scores(level(0.86, noise=other), level(0.76, noise=other)),
            "unknown": scores([math.nan] * 120, [math.nan] * 120),
        },
        resamples=200,
    )
    assert judged is not None
    assert (judged.best, judged.level, judged.avoid) == ("best", ["level"], ["poor"])
    assert list(judged.behind) == ["close behind", "level", "poor"]
    assert math.isclose(judged.quality["best"].estimate, (0.9 + 0.9) / 2)
    gap, wide = judged.behind["close behind"], judged.behind["level"]
    for number in (gap.estimate, gap.low, gap.high):
        assert math.isclose(number, (0.04 + 0.02) / 2)
    assert math.isclose(wide.estimate, 0.03)
    assert wide.low < 0.0 < wide.high
    assert judged.quality["close behind"].high > judged.quality["best"].low  # marginal ones overlap
    assert judged.sentence == (
        "Trust best on this network (0.900, the mean of AUROC and rank correlation, chance 0.5); "
        "the paired interval does not exclude level; avoid poor, whose intervals end below its own."
    )


def test_a_paired_interval_is_the_bootstrap_of_the_difference() -> None:
    other = np.random.default_rng(2).normal(size=120)
    judged = verdict({"a": scores(NOISE, NOISE), "b": scores(other, other)}, seed=5, resamples=300)
    assert judged is not None
    (behind,) = judged.behind.values()
    difference = (NOISE - other) * (1.0 if judged.best == "a" else -1.0) * 0.75
    wanted = bootstrap(
        lambda rows: float(difference[rows].mean()), 120, seed=5, resamples=300, groups=OBJECTS
    )
    for name in ("estimate", "low", "high"):
        assert math.isclose(getattr(behind, name), getattr(wanted, name), abs_tol=1e-12)


def test_methods_of_different_objects_cannot_be_paired() -> None:
    fewer = scores(NOISE[:60], NOISE[:60], OBJECTS[:60])
    with pytest.raises(ValueError, match="auroc_all of two methods is not of the same objects"):
        verdict({"all": scores(NOISE, NOISE), "some": fewer})


def test_without_a_choice_there_is_nothing_to_say() -> None:
    assert verdict({}) is None
    assert verdict({"one": scores(NOISE, NOISE)}) is None
    (*_, nothing) = scores(NOISE, NOISE)
    assert verdict({"one": [nothing], "other": [nothing]}) is None
