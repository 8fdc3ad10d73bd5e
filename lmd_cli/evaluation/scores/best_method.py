"""Which method to trust on a network, from the scores of all on the same objects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from lmd_cli.evaluation.scores.against_ground_truth import LEAST_OBJECTS, Score
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
#: For each score that counts, its own of every method.
Alike = Mapping[Key, Mapping[str, Score]]
#: Names of scores that make a method's quality begin with these.
AUROC, RANK = KINDS = ("auroc", "rank")
WORDS = {AUROC: "AUROC", RANK: "rank correlation"}
#: What a method without any knowledge gets, and one whose score does not exist where others' do.
CHANCE = {AUROC: 0.5, RANK: 0.0}
#: Resamples that a verdict needs: five lie beyond either end of a 95 % interval.
LEAST_RESAMPLES = 200


@dataclass(frozen=True)
class NoVerdict:
    """Why the scores say nothing of the methods; ``best`` is none."""

    reason: str
    best: None = None

    @property
    def sentence(self) -> str:
        """To end the report of the scores with."""
        return f"{self.reason}: no verdict on which method to trust."


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
        kinds: of the scores that count, of :data:`KINDS`.
    """

    best: str
    quality: Mapping[str, Interval]
    behind: Mapping[str, Interval]
    level: list[str]
    avoid: list[str]
    kinds: list[str]

    @property
    def sentence(self) -> str:
        """To end the report of the scores with."""
        level, avoid = (_listed(names) for names in (self.level, self.avoid))
        level = level and f"the paired interval does not exclude {level}"
        avoid = avoid and f"avoid {avoid}, whose intervals end below its own"
        value = self.quality[self.best].estimate
        what = " and ".join(WORDS[kind] for kind in self.kinds)
        best = f"Trust {self.best} on this network ({value:.3f}, the mean of {what}, chance 0.5)"
        return "; ".join(filter(None, (best, level, avoid))) + "."


def verdict(
    scores: Mapping[str, Sequence[Score]],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Verdict | NoVerdict:
    """The verdict of AUROCs with at least :data:`LEAST_OBJECTS` objects in each class and of rank
    correlations that as many carry; none without such an AUROC, or without two methods.

    Raises:
        ValueError: two methods were not scored on the same objects.
    """
    if resamples < LEAST_RESAMPLES:
        return NoVerdict(f"Too few resamples ({resamples} of at least {LEAST_RESAMPLES})")
    known = {name: listed for name, listed in scores.items() if any(map(_exists, listed))}
    every = [s for listed in scores.values() for s in listed if s.name.startswith(AUROC)]
    most = max((s.support for s in every), default=0)
    if len(scores) > 1 and most < LEAST_OBJECTS:
        least = f"{most} of at least {LEAST_OBJECTS} in each class of an AUROC"
        return NoVerdict(f"Too few objects ({least})")
    if len(known) < 2:
        return NoVerdict("Fewer than two methods have scores")
    alike = _counting(known)
    estimates = {key: {n: s.interval.estimate for n, s in of.items()} for key, of in alike.items()}
    kinds = [kind for kind in KINDS if any(name.startswith(kind) for name, _ in alike)]
    return _judged(_qualities(estimates), _resampled(alike, seed, resamples), level, kinds)


def _judged(
    estimates: Mapping[str, float], drawn: Mapping[str, Array], level: float, kinds: list[str]
) -> Verdict:
    """From each method's quality, and that on the same draws of objects, ``(resamples,)``."""
    quality = {n: percentile_interval(value, drawn[n], level) for n, value in estimates.items()}
    best, *others = sorted(estimates, key=lambda name: -estimates[name])
    behind = {
        n: percentile_interval(estimates[best] - estimates[n], drawn[best] - drawn[n], level)
        for n in others
    }
    equal = [n for n in others if not behind[n].low > 0.0]
    below = [n for n in others if n not in equal and quality[n].high < quality[best].low]
    return Verdict(best, quality, behind, equal, below, kinds)


def _exists(score: Score) -> bool:
    return score.name.startswith(KINDS) and not math.isnan(score.interval.estimate)


def _counting(scores: Mapping[str, Sequence[Score]]) -> Alike:
    """The scores that enough objects carry and that a method has."""
    by_key = {n: {(s.name, s.modality): s for s in listed} for n, listed in scores.items()}
    keys = dict.fromkeys(
        key
        for own in by_key.values()
        for key, score in own.items()
        if _exists(score) and score.support >= LEAST_OBJECTS
    )
    return {key: {n: own[key] for n, own in by_key.items() if key in own} for key in keys}


def _qualities(values: Mapping[Key, Mapping[str, float]]) -> dict[str, float]:
    """Each method's, of AUROCs and rank correlations, each kind counting half; NaN of none.

    A value that no method has does not count; one that a single method lacks counts as chance.
    """
    there = {key: of for key, of in values.items() if not all(map(math.isnan, of.values()))}
    names = dict.fromkeys(name for of in values.values() for name in of)
    return {name: _quality((key, of[name]) for key, of in there.items()) for name in names}


def _quality(values: Iterable[tuple[Key, float]]) -> float:
    by_kind: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for (name, _), value in values:
        kind = AUROC if name.startswith(AUROC) else RANK
        value = CHANCE[kind] if math.isnan(value) else value
        by_kind[kind].append(value if kind == AUROC else (1.0 + value) / 2.0)
    means = [fmean(listed) for listed in by_kind.values() if listed]
    return fmean(means) if means else math.nan


def _resampled(alike: Alike, seed: int, resamples: int) -> dict[str, Array]:
    """Each method's quality on the same draws of whole objects, ``(resamples,)``."""
    members = {key: _members(of.values()) for key, of in alike.items()}
    objects = list(dict.fromkeys(o for own in members.values() for o in own))
    drawn: list[dict[str, float]] = []
    for draw in cluster_draws(len(objects), seed, resamples):
        chosen = [objects[i] for i in draw]
        rows = {key: _rows(own, chosen) for key, own in members.items()}
        values = {k: {n: s.statistic(rows[k]) for n, s in of.items()} for k, of in alike.items()}
        drawn.append(_qualities(values))
    names = dict.fromkeys(name for of in alike.values() for name in of)
    return {name: np.array([of[name] for of in drawn], dtype=np.float64) for name in names}


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
