"""Statistics in float64: streaming and mergeable moments, ranks, bootstrap intervals.

States are small frozen values. Feeding one more batch, and merging what two processes found, give
new states and are functions of their own; the result depends on the order only by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of the values seen so far.

    Attributes:
        count: number of values.
        mean: their mean, 0 without values.
        squares: sum of (x - mean)^2.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def variance(self) -> float:
        """With ddof 0; NaN without values."""
        return self.squares / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        """With ddof 0; NaN without values."""
        return math.sqrt(self.variance) if self.count else math.nan


def observe(state: Moments, values: ArrayLike) -> Moments:
    """The state after a batch of values of any shape."""
    x = _flat(values)
    if not x.size:
        return state
    mean = float(x.mean())
    return merge(state, Moments(x.size, mean, float(np.square(x - mean).sum())))


def merge(a: Moments, b: Moments) -> Moments:
    """What one process would have found on the values of both (Chan, Golub and LeVeque, 1979)."""
    count = a.count + b.count
    if not a.count or not b.count:
        return a if a.count else b
    gap = b.mean - a.mean
    return Moments(
        count,
        a.mean + gap * b.count / count,
        a.squares + b.squares + gap * gap * a.count * b.count / count,
    )


@dataclass(frozen=True)
class Comoments:
    """Joint moments of pairs (x, y) seen so far: what PCC and MSE need.

    Attributes:
        x, y: the moments of each.
        products: sum of (x - mean x)(y - mean y).
        difference: the moments of x - y.
    """

    x: Moments = Moments()
    y: Moments = Moments()
    products: float = 0.0
    difference: Moments = Moments()

    @property
    def pcc(self) -> float:
        """Pearson correlation coefficient (eq. 16); NaN where x or y is constant or absent."""
        if self.x.squares <= 0.0 or self.y.squares <= 0.0:
            return math.nan
        value = self.products / math.sqrt(self.x.squares) / math.sqrt(self.y.squares)
        return max(-1.0, min(1.0, value))

    @property
    def mse(self) -> float:
        """Mean squared difference (eq. 17); NaN without pairs."""
        return self.difference.variance + self.difference.mean**2


def observe_pairs(state: Comoments, x: ArrayLike, y: ArrayLike) -> Comoments:
    """The state after a batch of pairs; ``x`` and ``y`` have the same shape.

    Raises:
        ValueError: they do not.
    """
    a, b = _flat(x), _flat(y)
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many x as y, not {a.size} and {b.size}")
    if not a.size:
        return state
    products = float(np.dot(a - a.mean(), b - b.mean()))
    none = Moments()
    batch = Comoments(observe(none, a), observe(none, b), products, observe(none, a - b))
    return merge_pairs(state, batch)


def merge_pairs(a: Comoments, b: Comoments) -> Comoments:
    """What one process would have found on the pairs of both."""
    count = a.x.count + b.x.count
    gaps = (b.x.mean - a.x.mean) * (b.y.mean - a.y.mean)
    between = gaps * a.x.count * b.x.count / count if count else 0.0
    return Comoments(
        merge(a.x, b.x),
        merge(a.y, b.y),
        a.products + b.products + between,
        merge(a.difference, b.difference),
    )


# -- ranks --------------------------------------------------------------------------------


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney U).

    Args:
        scores: n values.
        labels: n truth values.

    Returns:
        A value in [0, 1]; NaN if there are no positives or no negatives, or a score is NaN.
    """
    ranks, positive = rankdata(_flat(scores)), np.asarray(labels, dtype=bool).ravel()
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return math.nan
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation, ties given their mean rank; NaN where x or y is constant."""
    a, b = rankdata(_flat(x)), rankdata(_flat(y))
    return observe_pairs(Comoments(), a, b).pcc


# -- bootstrap ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile interval.

    Attributes:
        estimate: of all observations.
        low, high: percentiles of the resampled estimates; NaN if none is defined.
        undefined: resamples in which the statistic does not exist.
    """

    estimate: float
    low: float
    high: float
    undefined: int = 0


def bootstrap(
    statistic: Callable[[Indices], float],
    count: int,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    groups: Sequence[object] | None = None,
) -> Interval:
    """Percentile bootstrap (Efron, 1979).

    Args:
        statistic: from the indices of the observations to a number; NaN where it does not exist.
        count: number of observations n.
        seed: of the resampling.
        resamples: how often it is drawn.
        level: of the interval.
        groups: for each observation what it belongs to; whole groups are drawn then, because
            observations of one group (an object seen many times) are not independent.

    Raises:
        ValueError: as many groups as observations are needed, or a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
    if groups is not None and len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} observations")
    everything = np.arange(count, dtype=np.int64)
    estimate = float(statistic(everything)) if count else math.nan
    draws = _draws(everything, groups, seed, resamples) if count else []
    found = np.array([statistic(draw) for draw in draws], dtype=np.float64)
    defined = found[~np.isnan(found)]
    if not defined.size:
        return Interval(estimate, math.nan, math.nan, len(found))
    tail = (1.0 - level) / 2
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Interval(estimate, float(low), float(high), len(found) - len(defined))


def _draws(
    everything: Indices, groups: Sequence[object] | None, seed: int, resamples: int
) -> list[Indices]:
    """Indices of each resample."""
    members = (
        _members(groups) if groups is not None else [everything[i : i + 1] for i in everything]
    )
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(members), (resamples, len(members)))
    if groups is None:
        return list(chosen)
    return [np.concatenate([members[i] for i in row]) for row in chosen]


def _members(groups: Sequence[object]) -> list[Indices]:
    """The observations of each group, in order of first appearance."""
    found: dict[object, list[int]] = {}
    for index, group in enumerate(groups):
        found.setdefault(group, []).append(index)
    return [np.array(indices, dtype=np.int64) for indices in found.values()]


def _flat(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64).ravel()
