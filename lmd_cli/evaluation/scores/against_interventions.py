"""Scores of methods against interventions, and how far these agree with recorded ground truth.

Over a vehicle that every sensor can see and the network detects, the drop of the mean prediction
over its footprint without its evidence in sensor m says how far m carries it.

- Over the vehicles with a positive drop, does d_m separate those that m carries (the largest drop)
  from the others? AUROC; again over those that are lost without exactly one sensor.
- Does a sensor's part rank the vehicles as the drop does? Spearman's correlation.

Intervals are those of :mod:`.against_ground_truth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmd_cli.evaluation.scores.against_ground_truth import (
    ObjectDraws,
    Score,
    Vehicle,
    separations,
)
from lmd_cli.evaluation.scores.interventions import Effects

#: For each object's token what its removals did.
AllEffects = Mapping[str, Effects]


def seen_by_all(effects: Effects) -> bool:
    """Whether every sensor held evidence that could be taken away."""
    return all(effect.amount for effect in effects.values())


def carrier(effects: Effects) -> str | None:
    """The sensor without which the prediction drops most; none where it drops without none."""
    best = max(effects, key=lambda name: effects[name].drop)
    return best if effects[best].drop > 0 else None


def decisive(effects: Effects) -> str | None:
    """The one sensor without which the object is lost."""
    lost = [name for name, effect in effects.items() if effect.lost]
    return lost[0] if len(lost) == 1 else None


def intervention_scores(
    vehicles: Sequence[Vehicle],
    effects: AllEffects,
    modalities: Sequence[str],
    draws: ObjectDraws | None = None,
) -> list[Score]:
    """Every score of one method by intervention, in a fixed order.

    Args:
        vehicles: with their parts; those without effects, or that a sensor could not see, are left
            out.
        effects: of the detected vehicles.
        modalities: of the network; of two, one AUROC says all.
        draws: of the intervals.
    """
    draws = draws or ObjectDraws()
    kept = [v for v in vehicles if v.token in effects and seen_by_all(effects[v.token])]
    scores = []
    for name, owner in (("auroc_intervention", carrier), ("auroc_lost", decisive)):
        chosen = [v for v in kept if owner(effects[v.token]) is not None]
        labels = np.array([owner(effects[v.token]) for v in chosen])
        for modality in modalities if len(modalities) > 2 else modalities[:1]:
            d = separations(chosen, modality, modalities)
            scores.append(draws.auroc(name, modality, chosen, d, labels == modality))
    for modality in modalities:
        part = np.array([v.parts[modality] for v in kept])
        drop = np.array([effects[v.token][modality].drop for v in kept])
        name = "rank_correlation_intervention"
        scores.append(draws.rank_correlation(name, modality, kept, part, drop))
    return scores


def agreement(
    vehicles: Sequence[Vehicle],
    effects: AllEffects,
    modalities: Sequence[str],
    draws: ObjectDraws | None = None,
) -> list[Score]:
    """How far interventions agree with what was recorded, over the detected vehicles.

    - ``same_sensor``: of those that one sensor alone could see, the share that this sensor carries.
    - ``rank_correlation``: of a sensor's drop with the evidence that was recorded.
    """
    draws = draws or ObjectDraws()
    kept = [v for v in vehicles if v.token in effects]
    single = [v for v in kept if sum(map(v.sees, modalities)) == 1]
    same = np.array([_sees_carrier(v, effects[v.token]) for v in single], dtype=float)
    scores = [draws.score("same_sensor", "", single, lambda rows: float(same[rows].mean()))]
    for modality in modalities:
        drop = np.array([effects[v.token][modality].drop for v in kept])
        grade = np.array([v.grade(modality) for v in kept])
        scores.append(draws.rank_correlation("rank_correlation", modality, kept, drop, grade))
    return scores


def _sees_carrier(vehicle: Vehicle, effects: Effects) -> bool:
    name = carrier(effects)
    return name is not None and vehicle.sees(name)


# -- counts -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """What was done, and what it did besides.

    Attributes:
        vehicles, detected: all annotated vehicles on the map, and those that the network
            detects.
        scored: detected ones that every sensor could see.
        undecided: of these, those whose prediction drops without no sensor.
        unseen: for each sensor the detected vehicles that it holds nothing of.
        first_unseen: for each sensor the token of the first of them.
        lost: for each sensor the scored vehicles that are not detected without it.
        clipped: detected vehicles whose region an image's edge cuts.
        inside, outside, elsewhere, outside_share: of :class:`Effect`, means over the removals, by
            sensor.
    """

    vehicles: int
    detected: int
    scored: int
    undecided: int
    unseen: dict[str, int]
    first_unseen: dict[str, str]
    lost: dict[str, int]
    clipped: int
    inside: dict[str, float]
    outside: dict[str, float]
    elsewhere: dict[str, float]
    outside_share: dict[str, float]


def counted(vehicles: int, effects: AllEffects, modalities: Sequence[str]) -> Counts:
    """The counts over all objects with effects."""
    scored = [e for e in effects.values() if seen_by_all(e)]
    unseen = {m: [t for t, e in effects.items() if not e[m].amount] for m in modalities}

    def mean(name: str) -> dict[str, float]:
        means = {}
        for m in modalities:
            values = np.array([getattr(e[m], name) for e in scored], dtype=np.float64)
            defined = values[~np.isnan(values)]
            means[m] = float(defined.mean()) if defined.size else float("nan")
        return means

    return Counts(
        vehicles=vehicles,
        detected=len(effects),
        scored=len(scored),
        undecided=sum(carrier(e) is None for e in scored),
        unseen={m: len(tokens) for m, tokens in unseen.items()},
        first_unseen={m: tokens[0] for m, tokens in unseen.items() if tokens},
        lost={m: sum(e[m].lost for e in scored) for m in modalities},
        clipped=sum(any(x.clipped for x in e.values()) for e in effects.values()),
        inside=mean("inside"),
        outside=mean("outside"),
        elsewhere=mean("elsewhere"),
        outside_share=mean("outside_share"),
    )
