"""Which method to trust: by hand-made scores of methods on the same objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lmd_cli.evaluation.scores.against_ground_truth import LEAST_OBJECTS, Score
from lmd_cli.evaluation.scores.best_method import LEAST_RESAMPLES, NoVerdict, Verdict, verdict
from lmd_cli.evaluation.statistics import bootstrap

OBJECTS = [str(i // 3) for i in range(120)]  # each is seen three times
NOISE = np.random.default_rng(0).normal(size=120).cumsum() / 10.0


def scores(
    auroc: Sequence[float] | np.ndarray,
    rank: Sequence[float] | np.ndarray,
    objects: Sequence[str] = OBJECTS,
    support: int = LEAST_OBJECTS,
) -> list[Score]:
    """Means over the observations stand for AUROC and rank correlation."""

    def score(name: str, modality: str, values: Sequence[float] | np.ndarray) -> Score:
        given = np.asarray(values, dtype=np.float64)

        def mean(rows: np.ndarray) -> float:
            return float(given[rows].mean())

        interval = bootstrap(mean, len(given), seed=0, resamples=200, groups=objects)
        return Score(name, modality, interval, len(given), support, mean, objects)

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
    assert isinstance(judged, Verdict)
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
    assert isinstance(judged, Verdict)
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
    one = NoVerdict("Fewer than two methods have scores")
    assert verdict({}) == verdict({"one": scores(NOISE, NOISE)}) == one
    unknown = scores([math.nan] * 120, [math.nan] * 120)
    assert verdict({"one": scores(NOISE, NOISE), "other": unknown}) == one
    (*_, share) = scores(NOISE, NOISE)
    few = verdict({"one": [share], "other": [share]})
    assert isinstance(few, NoVerdict)
    assert few.sentence == (
        "Too few objects (0 of at least 10 in each class of an AUROC): no verdict on which method "
        "to trust."
    )


def test_too_few_objects_or_resamples_give_no_verdict() -> None:
    good, poor = level(0.9), level(0.1)
    few = LEAST_OBJECTS - 1
    both = {"good": scores(good, good, support=few), "poor": scores(poor, poor, support=few)}
    assert verdict(both) == NoVerdict(
        "Too few objects (9 of at least 10 in each class of an AUROC)"
    )
    enough = {"good": scores(good, good), "poor": scores(poor, poor)}
    said = verdict(enough, resamples=LEAST_RESAMPLES - 1)
    assert said == NoVerdict("Too few resamples (199 of at least 200)")
    assert verdict(enough, resamples=LEAST_RESAMPLES).best == "good"


def test_a_score_of_too_few_objects_does_not_vote() -> None:
    """Rank correlation would decide for the other method."""
    few = LEAST_OBJECTS - 1
    given = {"a": scores(level(0.9), level(0.1)), "b": scores(level(0.8), level(0.9))}
    judged = verdict(
        {n: [s, *(replace(r, support=few) for r in rest)] for n, (s, *rest) in given.items()}
    )
    assert isinstance(judged, Verdict)
    assert (judged.best, judged.kinds) == ("a", ["auroc"])
    assert judged.sentence.startswith("Trust a on this network (0.900, the mean of AUROC, chance")
    counted = verdict(given)
    assert (counted.best, counted.kinds) == ("b", ["auroc", "rank"])


def test_a_score_that_one_method_lacks_counts_as_chance() -> None:
    lacking = scores(level(0.9), [math.nan] * 120)
    judged = verdict({"lacking": lacking, "whole": scores(level(0.9), level(0.4))}, resamples=200)
    assert isinstance(judged, Verdict)
    assert judged.best == "whole"
    assert judged.quality["lacking"].estimate == pytest.approx((0.9 + 0.5) / 2)
    assert judged.quality["whole"].estimate == pytest.approx((0.9 + 0.7) / 2)
