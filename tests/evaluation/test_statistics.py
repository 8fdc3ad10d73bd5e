"""Statistics against scipy, scikit-learn, and slow implementations in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from lmd_cli.evaluation.statistics import (
    Interval,
    auroc,
    bootstrap,
    bootstrap_means,
    spearman,
)

few_values = st.integers(-3, 3).map(float)  # many ties
scored = st.lists(st.tuples(few_values, st.booleans()), min_size=1, max_size=30)


@given(scored)
def test_auroc_is_the_share_of_ordered_pairs(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = [s for s, _ in pairs], [label for _, label in pairs]
    ones = [s for s, label in pairs if label]
    zeros = [s for s, label in pairs if not label]
    actual = auroc(scores, labels)
    if not ones or not zeros:
        assert math.isnan(actual)
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in ones for b in zeros)
    assert actual == pytest.approx(wins / (len(ones) * len(zeros)), abs=1e-12)
    assert actual == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_of_an_undefined_score_is_undefined() -> None:
    assert math.isnan(auroc([math.nan, 1.0, 2.0], [True, False, True]))


@given(arrays(np.int64, (2, 12), elements=st.integers(-4, 4)))
def test_spearman_is_scipys(pair: np.ndarray) -> None:
    x, y = pair
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(spearman(x, y))
        return
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


@given(st.permutations(range(8)))
def test_spearman_without_ties_is_the_textbooks(order: list[int]) -> None:
    squared = sum((i - rank) ** 2 for i, rank in enumerate(order))
    assert spearman(range(8), order) == pytest.approx(1 - 6 * squared / (8 * 63), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bootstrap_is_scipys(seed: int, level: float) -> None:
    x = np.random.default_rng(3).exponential(size=40)
    actual = bootstrap(lambda i: float(x[i].mean()), 40, seed=seed, resamples=500, level=level)
    wanted = scipy.stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=500,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    assert actual.estimate == pytest.approx(x.mean())
    assert (actual.low, actual.high) == pytest.approx((wanted.low, wanted.high), rel=1e-12)


def test_bootstrap_by_groups_is_the_slow_one() -> None:
    rng = np.random.default_rng(1)
    groups = [f"car {g}" for g in rng.integers(0, 6, 30)]
    x = rng.normal(size=30)
    actual = bootstrap(lambda i: float(x[i].mean()), 30, seed=5, resamples=200, groups=groups)
    names = list(dict.fromkeys(groups))
    draws = np.random.default_rng(5).integers(0, len(names), (200, len(names)))
    means = []
    for draw in draws:
        values = [x[i] for g in draw for i in range(30) if groups[i] == names[g]]
        means.append(sum(values) / len(values))
    assert (actual.low, actual.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


def test_intervals_of_many_means_are_those_of_each() -> None:
    rng = np.random.default_rng(2)
    groups, values = rng.integers(0, 7, 40).tolist(), rng.normal(size=(40, 3))
    together = bootstrap_means(values, groups, seed=5, resamples=300, level=0.9)
    for column, ends in zip(values.T, together.T, strict=True):
        alone = bootstrap(
            lambda i, x=column: float(x[i].mean()),  # type: ignore[misc]
            40,
            seed=5,
            resamples=300,
            level=0.9,
            groups=groups,
        )
        assert tuple(ends) == pytest.approx((alone.low, alone.high), rel=1e-12)


def test_groups_that_agree_within_widen_the_interval() -> None:
    """Twenty looks at each of ten cars are worth ten observations, not two hundred."""
    car = np.repeat(np.random.default_rng(0).normal(size=10), 20)
    groups = np.repeat(np.arange(10), 20).tolist()

    def width(interval: Interval) -> float:
        return interval.high - interval.low

    alone = bootstrap(lambda i: float(car[i].mean()), 200, seed=0)
    together = bootstrap(lambda i: float(car[i].mean()), 200, seed=0, groups=groups)
    assert width(together) / width(alone) == pytest.approx(math.sqrt(20), rel=0.2)


@given(st.integers(0, 2**32 - 1))
def test_bootstrap_is_a_function_of_its_seed(seed: int) -> None:
    x = np.arange(9.0)
    first, again = (
        bootstrap(lambda i: float(x[i].mean()), 9, seed=seed, resamples=20) for _ in range(2)
    )
    assert first == again


def test_undefined_resamples_are_counted_and_left_out() -> None:
    labels, scores = np.array([True, False]), np.array([1.0, 0.0])
    actual = bootstrap(lambda i: auroc(scores[i], labels[i]), 2, seed=0, resamples=400)
    assert actual.estimate == actual.low == actual.high == 1.0
    assert 150 < actual.undefined < 250  # half of the draws have one label only
    never = bootstrap(lambda i: math.nan, 3, seed=0, resamples=10)
    assert never.undefined == 10
    assert math.isnan(never.low)
    nothing = bootstrap(lambda i: 1.0, 0, seed=0)
    assert math.isnan(nothing.estimate)


def test_bootstrap_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, not at 95"):
        bootstrap(lambda i: 0.0, 3, seed=0, level=95)
    with pytest.raises(ValueError, match="2 groups for 3 observations"):
        bootstrap(lambda i: 0.0, 3, seed=0, groups=["a", "b"])
