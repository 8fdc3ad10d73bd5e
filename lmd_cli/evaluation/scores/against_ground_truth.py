"""Scores of methods against recorded ground truth: their parts and what each sensor could see.

Every vehicle's parts are its parts' means over the footprint. Two questions:

- Over vehicles that one sensor alone could see, does d_m = part of m - mean of the other sensors'
  parts separate m's own vehicles from the others? AUROC, for detected vehicles and for all. This
  truth is a removal, which favours methods that remove.
- Over all vehicles, does a sensor's part rank them as the evidence that it had does (visible
  pixels through the fog, number of returns)? Spearman's correlation.

Intervals resample whole objects, since one object is seen in many samples. A score that fewer than
:data:`LEAST_OBJECTS` carry has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmd_cli.data.synthetic.evidence import Evidence
from lmd_cli.evaluation.metrics import bias_share
from lmd_cli.evaluation.statistics import (
    Array,
    Indices,
    Interval,
    auroc,
    bootstrap,
    spearman,
)

#: The column of the side table that grades each sensor's evidence.
#: Objects that an interval needs, of an AUROC in each class. Of fewer the bootstrap is too narrow:
#: of one it has no width (measured in docs/mathematics.md).
LEAST_OBJECTS = 10
GRADE = {"camera": "visible_pixels", "radar": "radar_returns", "lidar": "lidar_returns"}


@dataclass(frozen=True)
class Vehicle:
    """One annotated vehicle in one sample, under one method.

    Attributes:
        token: the annotation's.
        instance: the object's; what intervals resample.
        evidence: what each sensor had to go by.
        detected: by the criterion of :mod:`.ground.detection`.
        parts: for each modality and ``bias``, its part's mean over the footprint.
    """

    token: str
    instance: str
    evidence: Evidence | Mapping[str, float]
    detected: bool
    parts: Mapping[str, float]

    def sees(self, modality: str) -> bool:
        """Whether a sensor could see it."""
        if isinstance(self.evidence, Mapping):
            return self.evidence[modality] > 0
        return bool(getattr(self.evidence, modality))

    def grade(self, modality: str) -> float:
        """How much evidence a sensor had."""
        if isinstance(self.evidence, Mapping):
            return float(self.evidence[modality])
        return float(getattr(self.evidence, GRADE[modality]))


@dataclass(frozen=True)
class Score:
    """One number of ``score.csv``.

    Attributes:
        name: ``auroc_all``, ``auroc_detected``, ``rank_correlation`` or ``bias_share``.
        modality: whose; empty where it is nobody's.
        interval: the estimate and its bootstrap interval; NaN where it does not exist.
        vehicles: how many vehicles it is made of.
        support: how many objects carry it: of an AUROC those of the smaller class, of a rank
            correlation those whose evidence is not the most frequent one.
        statistic: the estimate of some of them, by their indices.
        objects: which object each of them is.
    """

    name: str
    modality: str
    interval: Interval
    vehicles: int
    support: int
    statistic: Callable[[Indices], float] = field(repr=False, compare=False)
    objects: Sequence[str] = field(repr=False, compare=False)


@dataclass(frozen=True)
class ObjectDraws:
    """How intervals are drawn: whole objects, so often, from a seed."""

    seed: int = 0
    resamples: int = 1000
    level: float = 0.95

    def score(
        self,
        name: str,
        modality: str,
        vehicles: Sequence[Vehicle],
        statistic: Callable[[Indices], float],
        support: Callable[[Sequence[str]], int] = lambda objects: len(set(objects)),
    ) -> Score:
        """A statistic of some vehicles with its interval, if enough objects carry it.

        Args:
            support: how many do, from the object of each vehicle.
        """
        groups = [v.instance for v in vehicles]
        carried = support(groups)
        resamples = self.resamples if carried >= LEAST_OBJECTS else 0
        draws = {"seed": self.seed, "resamples": resamples}
        interval = bootstrap(statistic, len(vehicles), **draws, level=self.level, groups=groups)
        return Score(name, modality, interval, len(vehicles), carried, statistic, groups)

    def auroc(
        self, name: str, modality: str, vehicles: Sequence[Vehicle], d: Array, own: Array
    ) -> Score:
        """How well d_m (n,) tells ``own`` vehicles (n,) from the others."""
        return self.score(
            *(name, modality, vehicles, lambda rows: auroc(d[rows], own[rows])),
            lambda objects: _smaller_class(objects, own),
        )

    def rank_correlation(
        self, name: str, modality: str, vehicles: Sequence[Vehicle], part: Array, evidence: Array
    ) -> Score:
        """Of a sensor's part (n,) with the evidence that it had (n,)."""
        return self.score(
            *(name, modality, vehicles, lambda rows: spearman(part[rows], evidence[rows])),
            lambda objects: _varied(objects, evidence),
        )


def ground_truth_scores(
    vehicles: Sequence[Vehicle],
    modalities: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Score]:
    """Every score of one method, in a fixed order.

    With two modalities d_1 = -d_2, and one AUROC says all: it is given for the first.
    """

    draws, scores = ObjectDraws(seed, resamples, level), list[Score]()
    single = [v for v in vehicles if sum(map(v.sees, modalities)) == 1]
    detected = [v for v in single if v.detected]
    for name, chosen in (("auroc_all", single), ("auroc_detected", detected)):
        scores += separated(name, chosen, modalities, draws)
    for modality in modalities:
        part = np.array([v.parts[modality] for v in vehicles])
        grade = np.array([v.grade(modality) for v in vehicles])
        scores.append(draws.rank_correlation("rank_correlation", modality, vehicles, part, grade))
    some = [v for v in vehicles if any(v.parts.values())]
    shares = bias_shares(some)
    mean = draws.score("bias_share", "", some, lambda chosen: float(shares[chosen].mean()))
    return [*scores, mean]


def separated(
    name: str, vehicles: Sequence[Vehicle], modalities: Sequence[str], draws: ObjectDraws
) -> list[Score]:
    """How well d_m tells each modality's own vehicles from the others' (AUROC).

    With two modalities d_1 = -d_2, and one AUROC says all: it is given for the first.
    """
    return [
        draws.auroc(
            *(name, modality, vehicles),
            separations(vehicles, modality, modalities),
            np.array([v.sees(modality) for v in vehicles], dtype=bool),
        )
        for modality in (modalities if len(modalities) > 2 else modalities[:1])
    ]


def separations(vehicles: Sequence[Vehicle], modality: str, modalities: Sequence[str]) -> Array:
    """d_m of each vehicle (n,): a modality's part less the mean of any others'."""
    others = [name for name in modalities if name != modality]
    means = [sum(v.parts[name] for name in others) / max(1, len(others)) for v in vehicles]
    return np.array([v.parts[modality] for v in vehicles], dtype=np.float64) - np.array(means)


def bias_shares(vehicles: Sequence[Vehicle]) -> Array:
    """:func:`~.metrics.bias_share` of each vehicle, of which no one's parts are all zero."""
    return np.array([bias_share(vehicle.parts) for vehicle in vehicles], dtype=np.float64)


def _smaller_class(groups: Sequence[object], labels: Sequence[object] | Array) -> int:
    """How many clusters the class with the fewest of them has; 0 with fewer than two classes."""
    members: dict[object, set[object]] = {}
    for group, label in zip(groups, np.asarray(labels).tolist(), strict=True):
        members.setdefault(label, set()).add(group)
    return min(map(len, members.values())) if len(members) > 1 else 0


def _varied(groups: Sequence[object], values: Array) -> int:
    """How many clusters have an observation that differs from the most frequent value."""
    if not len(values):
        return 0
    distinct, counts = np.unique(values, return_counts=True)
    off = values != distinct[counts.argmax()]
    return len({group for group, differs in zip(groups, off, strict=True) if differs})
