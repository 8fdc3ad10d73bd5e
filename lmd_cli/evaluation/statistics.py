"""Statistics in float64: AUROC, rank correlation, and bootstrap intervals of clustered data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


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
    if not a.size:
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    squares = float(np.square(a).sum()), float(np.square(b).sum())
    if min(squares) <= 0.0:
        return math.nan
    value = float(np.dot(a, b)) / math.sqrt(squares[0]) / math.sqrt(squares[1])
    return max(-1.0, min(1.0, value))


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
        groups: for each observation the cluster that it belongs to; whole clusters are drawn then,
            because observations of one cluster (an object seen many times) are not independent.

    Raises:
        ValueError: as many groups as observations are needed, or a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies between 0 and 1, not at {level}")
    if groups is not None and len(groups) != count:
        raise ValueError(f"{len(groups)} groups for {count} observations")
    if not count:
        return Interval(math.nan, math.nan, math.nan)
    estimate = float(statistic(np.arange(count, dtype=np.int64)))
    clusters = clusters_of(range(count) if groups is None else groups)
    draws = cluster_draws(len(clusters), seed, resamples)
    resampled = [np.concatenate([clusters[i] for i in draw]) for draw in draws]
    estimates = np.array([statistic(indices) for indices in resampled], dtype=np.float64)
    return percentile_interval(estimate, estimates, level)


def bootstrap_means(
    values: Array, groups: Sequence[object], *, seed: int, resamples: int, level: float = 0.95
) -> Array:
    """:func:`bootstrap` of the means of many columns, from each cluster's sums.

    Args:
        values: (n, k).
        groups: for each row its cluster.

    Returns:
        (2, k): lower and upper ends.
    """
    clusters = clusters_of(groups)
    sums = np.stack([values[rows].sum(0) for rows in clusters])  # (clusters, k)
    sizes = np.array([len(rows) for rows in clusters])
    draws = cluster_draws(len(clusters), seed, resamples)
    times = np.stack([np.bincount(draw, minlength=len(clusters)) for draw in draws])
    means = (times @ sums) / (times @ sizes)[:, None]  # (resamples, k); no cluster is empty
    return _percentile_interval(means, level)


class Resampling:
    """The same draws of clusters for every statistic, so that differences of statistics are paired.

    Args:
        clusters: the names of all clusters; with fewer than two no interval exists.
        seed: of the resampling.
        resamples: how often the clusters are drawn.
    """

    def __init__(self, clusters: Sequence[str], *, seed: int = 0, resamples: int = 1000):
        self._place = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
        self._times: Array = np.zeros((0, 0))
        count = len(self._place)
        if count > 1:
            draws = cluster_draws(count, seed, resamples)
            self._times = np.stack([np.bincount(d, minlength=count) for d in draws]).astype(float)

    def ratios(self, groups: Sequence[str], above: Array, below: Array) -> Array:
        """Sum of ``above`` over sum of ``below`` in every resample, (resamples,).

        Args:
            groups: for each of n observations its cluster.
            above, below: (n,); of a mean, the values and ones.

        Returns:
            NaN where the sum of ``below`` is zero; empty with fewer than two clusters.
        """
        if not self._times.size:
            return np.zeros(0)
        places = [self._place[group] for group in groups]
        sums = np.stack([self._sums(places, above), self._sums(places, below)], axis=1)
        top, bottom = (self._times @ sums).T  # (resamples,) each
        ratios: Array = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)
        return ratios

    def _sums(self, places: Sequence[int], values: Array) -> Array:
        sums: Array = np.zeros(len(self._place))
        np.add.at(sums, np.asarray(places, dtype=np.int64), values)
        return sums


def percentile_interval(estimate: float, resampled: Array, level: float = 0.95) -> Interval:
    """The interval of an estimate, from its resampled values (NaN where it does not exist)."""
    defined = resampled[~np.isnan(resampled)]
    undefined = len(resampled) - len(defined)
    if not defined.size:
        return Interval(estimate, math.nan, math.nan, undefined)
    low, high = _percentile_interval(defined, level)
    return Interval(estimate, float(low), float(high), undefined)


def cluster_draws(clusters: int, seed: int, resamples: int) -> Indices:
    """For each resample as many clusters as there are, with replacement."""
    return np.random.default_rng(seed).integers(0, clusters, (resamples, clusters))


def _percentile_interval(estimates: Array, level: float) -> Array:
    """The two ends of the central ``level`` of the resampled estimates, along the first axis."""
    tail = (1.0 - level) / 2
    ends: Array = np.quantile(estimates, [tail, 1.0 - tail], axis=0)
    return ends


def clusters_of(groups: Sequence[object]) -> list[Indices]:
    """The observations of each cluster, in order of first appearance."""
    members: dict[object, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [np.array(indices, dtype=np.int64) for indices in members.values()]


def _flat(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64).ravel()
