"""Statistics against scipy, scikit-learn, and slow implementations in exact fractions or loops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from lmd_cli.evaluation.statistics import (
    Comoments,
    Interval,
    Moments,
    auroc,
    bootstrap,
    merge,
    merge_pairs,
    observe,
    observe_pairs,
    spearman,
)

numbers = st.floats(-1e6, 1e6, width=32)
batches = st.lists(st.lists(numbers, max_size=7), max_size=6)
pair_batches = st.lists(st.lists(st.tuples(numbers, numbers), max_size=7), max_size=6)


def exact_moments(values: list[float]) -> tuple[Fraction, Fraction]:
    """Mean and sum of squared deviations without rounding."""
    exact = [Fraction(v) for v in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return mean, sum(((v - mean) ** 2 for v in exact), Fraction(0))


def agrees(found: float, wanted: Fraction, scale: float) -> bool:
    return abs(found - float(wanted)) <= 1e-12 * max(scale, 1e-300)


@given(batches)
def test_streaming_moments_are_the_exact_ones(parts: list[list[float]]) -> None:
    state = Moments()
    for part in parts:
        state = observe(state, part)
    values = [v for part in parts for v in part]
    assert state.count == len(values)
    if values:
        mean, squares = exact_moments(values)
        size = max(map(abs, values))
        assert agrees(state.mean, mean, size)
        assert agrees(state.squares, squares, size**2 * len(values))


@given(batches, st.randoms(use_true_random=False))
def test_moments_merge_in_any_order(parts: list[list[float]], random: object) -> None:
    states = [observe(Moments(), part) for part in parts]
    random.shuffle(states)  # type: ignore[attr-defined]
    while len(states) > 1:
        states.append(merge(states.pop(0), states.pop(0)))
    values = [v for part in parts for v in part]
    found = states[0] if states else Moments()
    assert found.count == len(values)
    if values:
        assert agrees(found.mean, exact_moments(values)[0], max(map(abs, values)))
        assert found.std == pytest.approx(
            np.std(values), rel=1e-9, abs=1e-9 * max(map(abs, values))
        )


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_a_large_mean_does_not_swallow_the_variance(offset: float) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    state = Moments()
    for part in np.split(values + offset, 20):
        state = observe(state, part)
    assert state.variance == pytest.approx(values.var(), rel=1e-6)


@given(pair_batches)
def test_streaming_pairs_are_scipys(parts: list[list[tuple[float, float]]]) -> None:
    state = Comoments()
    for part in parts:
        state = observe_pairs(state, [x for x, _ in part], [y for _, y in part])
    pairs = np.array([pair for part in parts for pair in part], dtype=np.float64).reshape(-1, 2)
    if not len(pairs):
        assert math.isnan(state.pcc)
        assert math.isnan(state.mse)
        return
    x, y = pairs.T
    assert state.mse == pytest.approx(np.mean((x - y) ** 2), rel=1e-9, abs=1e-12)
    if min(np.ptp(x), np.ptp(y)) > 1e-3 * max(1.0, np.abs(pairs).max()):
        assert state.pcc == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-8)


@given(pair_batches, st.integers(0, 6))
def test_pairs_of_two_processes_merge(parts: list[list[tuple[float, float]]], cut: int) -> None:
    def of(some: list[list[tuple[float, float]]]) -> Comoments:
        state = Comoments()
        for part in some:
            state = observe_pairs(state, [x for x, _ in part], [y for _, y in part])
        return state

    whole, joined = of(parts), merge_pairs(of(parts[:cut]), of(parts[cut:]))
    assert joined.x.count == whole.x.count
    scale = max([abs(v) for part in parts for pair in part for v in pair], default=0.0) ** 2
    for name in ("products", "mse"):
        a, b = getattr(joined, name), getattr(whole, name)
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9 * scale, nan_ok=True)


def test_states_are_values() -> None:
    empty = Moments()
    assert observe(empty, [1.0, 3.0]) == Moments(2, 2.0, 2.0)
    assert empty == Moments()
    assert observe(Moments(2, 2.0, 2.0), []) == Moments(2, 2.0, 2.0)
    assert math.isnan(empty.variance)
    assert math.isnan(empty.std)
    with pytest.raises(ValueError, match="as many x as y, not 1 and 2"):
        observe_pairs(Comoments(), [1.0], [1.0, 2.0])


few_values = st.integers(-3, 3).map(float)  # many ties
scored = st.lists(st.tuples(few_values, st.booleans()), min_size=1, max_size=30)


@given(scored)
def test_auroc_is_the_share_of_ordered_pairs(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = [s for s, _ in pairs], [label for _, label in pairs]
    ones = [s for s, label in pairs if label]
    zeros = [s for s, label in pairs if not label]
    found = auroc(scores, labels)
    if not ones or not zeros:
        assert math.isnan(found)
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in ones for b in zeros)
    assert found == pytest.approx(wins / (len(ones) * len(zeros)), abs=1e-12)
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


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
    found = bootstrap(lambda i: float(x[i].mean()), 40, seed=seed, resamples=500, level=level)
    wanted = scipy.stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=500,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    assert found.estimate == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-12)


def test_bootstrap_by_groups_is_the_slow_one() -> None:
    rng = np.random.default_rng(1)
    groups = [f"car {g}" for g in rng.integers(0, 6, 30)]
    x = rng.normal(size=30)
    found = bootstrap(lambda i: float(x[i].mean()), 30, seed=5, resamples=200, groups=groups)
    names = list(dict.fromkeys(groups))
    draws = np.random.default_rng(5).integers(0, len(names), (200, len(names)))
    means = []
    for draw in draws:
        values = [x[i] for g in draw for i in range(30) if groups[i] == names[g]]
        means.append(sum(values) / len(values))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))


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
    found = bootstrap(lambda i: auroc(scores[i], labels[i]), 2, seed=0, resamples=400)
    assert found.estimate == found.low == found.high == 1.0
    assert 150 < found.undefined < 250  # half of the draws have one label only
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
