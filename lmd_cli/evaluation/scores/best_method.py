"""Which method to trust on a network, from the scores of all on the same objects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.evaluation.statistics import (
    Array,
    Indices,
    Interval,
    cluster_draws,
    clusters_of,
    percentile_interval,
)

#: A score of whichever method: its name and its modality.
Key = tuple[str, str]
#: Names of scores that make a method's quality begin with these.
KINDS = ("auroc", "rank")


@dataclass(frozen=True)
class Verdict:
    """What the scores say of the methods.

    Attributes:
        best: the method of the highest quality: the mean of its AUROC and its rank correlations,
            these brought to the same scale from 0 to 1, where 0.5 is chance.
        quality: for each method, with its interval.
        behind: for each other method, how far it is behind the best, with the paired interval: both
            are worked out on the same draws of objects.
        level: those whose paired interval does not exclude 0, best first.
        avoid: of those that it excludes, the ones whose own intervals end before the best's begins,
            worst last.
    """

    best: str
    quality: Mapping[str, Interval]
    behind: Mapping[str, Interval]
    level: list[str]
    avoid: list[str]

    @property
    def sentence(self) -> str:
        """One, to end the report of the scores with."""
        level, avoid = (_listed(names) for names in (self.level, self.avoid))
        level = level and f"the paired interval does not exclude {level}"
        avoid = avoid and f"avoid {avoid}, whose intervals end below its own"
        value = self.quality[self.best].estimate
        how = f"{value:.3f}, the mean of AUROC and rank correlation, chance 0.5"
        best = f"Trust {self.best} on this network ({how})"
        return "; ".join(filter(None, (best, level, avoid))) + "."


def verdict(
    scores: Mapping[str, Sequence[Score]],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Verdict | None:
    """The verdict; none without two methods that have scores.

    Raises:
        ValueError: two methods were not scored on the same objects.
    """
    estimates = {
        name: _quality((s.name, s.interval.estimate) for s in listed)
        for name, listed in scores.items()
    }
    known = {name: value for name, value in estimates.items() if not math.isnan(value)}
    if len(known) < 2:
        return None
    drawn = _resampled({name: scores[name] for name in known}, seed, resamples)
    quality = {n: percentile_interval(known[n], drawn[n], level) for n in known}
    best, *others = sorted(known, key=lambda name: -known[name])
    behind = {
        n: percentile_interval(known[best] - known[n], drawn[best] - drawn[n], level)
        for n in others
    }
    equal = [n for n in others if not behind[n].low > 0.0]
    below = [n for n in others if n not in equal and quality[n].high < quality[best].low]
    return Verdict(best, quality, behind, equal, below)


def _quality(values: Iterable[tuple[str, float]]) -> float:
    """Of AUROCs and rank correlations, each kind counting half; NaN if there are none."""
    known = [(name, value) for name, value in values if not math.isnan(value)]
    aurocs, ranks = ([v for name, v in known if name.startswith(kind)] for kind in KINDS)
    means = [fmean(v) for v in (aurocs, [(1.0 + r) / 2.0 for r in ranks]) if v]
    return fmean(means) if means else math.nan


def _resampled(
    scores: Mapping[str, Sequence[Score]], seed: int, resamples: int
) -> dict[str, Array]:
    """Each method's quality on the same draws of whole objects, ``(resamples,)``."""
    by_key: dict[Key, dict[str, Score]] = {}
    for name, listed in scores.items():
        for score in (s for s in listed if s.name.startswith(KINDS)):
            by_key.setdefault((score.name, score.modality), {})[name] = score
    members = {key: _members(alike.values()) for key, alike in by_key.items()}
    objects = list(dict.fromkeys(o for own in members.values() for o in own))
    qualities: dict[str, list[float]] = {name: [] for name in scores}
    for draw in cluster_draws(len(objects), seed, resamples):
        chosen = [objects[i] for i in draw]
        values: dict[str, list[tuple[str, float]]] = {name: [] for name in scores}
        for key, alike in by_key.items():
            rows = _rows(members[key], chosen)
            for name, score in alike.items():
                values[name].append((score.name, score.statistic(rows)))
        for name, drawn in values.items():
            qualities[name].append(_quality(drawn))
    return {name: np.array(drawn, dtype=np.float64) for name, drawn in qualities.items()}


def _members(alike: Iterable[Score]) -> dict[str, Indices]:
    """For each object its observations, the same in a score of every method."""
    first, *others = alike
    if any(list(s.objects) != list(first.objects) for s in others):
        raise ValueError(f"{first.name} of two methods is not of the same objects")
    return dict(zip(dict.fromkeys(first.objects), clusters_of(first.objects), strict=True))


def _rows(members: Mapping[str, Indices], chosen: Sequence[str]) -> Indices:
    """The observations of some objects."""
    rows = [members[o] for o in chosen if o in members]
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
