"""The rows of the files of ``lmd score``, and the notes on interventions below its table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmd_cli.decomposition.layout import BIAS
from lmd_cli.evaluation.scores.against_ground_truth import GRADE, Score, Vehicle
from lmd_cli.evaluation.scores.against_interventions import AllEffects, Counts
from lmd_cli.evaluation.scores.interventions import Effect

VALUE_FIELDS = ("modality", "estimate", "low", "high", "vehicles", "objects", "undefined")
SCORE_FIELDS = ("method", "score", *VALUE_FIELDS)
AGREEMENT_FIELDS = ("agreement", *VALUE_FIELDS)
TIME_FIELDS = ("method", "seconds_per_sample", "plain_passes")
EFFECT_FIELDS = (
    *("annotation_token", "instance_token", "modality", "removed", "clipped_images"),
    *("before", "after", "drop", "lost", "inside", "outside", "elsewhere", "outside_share"),
)


@dataclass(frozen=True)
class MethodResult:
    """One method at every sample.

    Attributes:
        name: of the method.
        vehicles: with its parts of their mean logit.
        seconds: for each sample.
    """

    name: str
    vehicles: list[Vehicle]
    seconds: list[float]


def score_rows(scores: dict[str, list[Score]]) -> Iterable[tuple[Any, ...]]:
    """The rows of ``score.csv``, in the order of the methods."""
    for name, listed in scores.items():
        for s in listed:
            yield name, s.name, *_values(s)


def vehicle_rows(
    results: list[MethodResult], modalities: Sequence[str]
) -> Iterable[tuple[Any, ...]]:
    """``vehicles.csv`` with its header: every vehicle under every method."""
    seen = tuple(f"seen_by_{m}" for m in modalities)
    grades = tuple(GRADE.get(m, f"evidence_{m}") for m in modalities)
    columns = (*modalities, BIAS)
    yield ("method", "annotation_token", "instance_token", "detected", *seen, *grades, *columns)
    for result in results:
        for v in result.vehicles:
            truth = (*(int(v.sees(m)) for m in modalities), *map(v.grade, modalities))
            values = (v.parts[name] for name in columns)
            yield (result.name, v.token, v.instance, int(v.detected), *truth, *values)


def missed_by_steps(entries: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, float]:
    """For those of some methods with a quadrature: sum of |what it misses| over sum of
    |F(x) - F(0)|."""
    missed: dict[str, float] = {}
    whole: dict[str, float] = {}
    for entry in entries:
        for name in names:
            method = entry["methods"][name]
            for i, gap in enumerate(method.get("missed", ())):
                handed = sum(v[i] for part, v in method["shares"].items() if part != BIAS)
                missed[name] = missed.get(name, 0.0) + abs(gap)
                whole[name] = whole.get(name, 0.0) + abs(handed + gap)
    return {name: gap / whole[name] for name, gap in missed.items() if whole[name]}


def written_effects(effects: AllEffects) -> dict[str, dict[str, Any]]:
    """A sample's effects as its line among the finished holds them."""
    return {token: {m: asdict(e) for m, e in by.items()} for token, by in effects.items()}


def all_effects(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Effect]]:
    """The effects of all finished samples, by the objects' tokens."""
    return {
        token: {modality: Effect(**values) for modality, values in by.items()}
        for entry in entries
        for token, by in entry.get("effects", {}).items()
    }


def effect_rows(effects: AllEffects, instances: Mapping[str, str]) -> Iterable[tuple[Any, ...]]:
    """``interventions.csv`` with its header: every detected object without each sensor."""
    yield EFFECT_FIELDS
    for token, by in effects.items():
        for modality, e in by.items():
            what = (token, instances[token], modality, e.amount, e.clipped)
            change = (e.before, e.after, e.drop, int(e.lost))
            yield (*what, *change, e.inside, e.outside, e.elsewhere, e.outside_share)


def agreement_rows(scores: Sequence[Score]) -> Iterable[tuple[Any, ...]]:
    """The rows of ``agreement.csv``."""
    for s in scores:
        yield s.name, *_values(s)


def _values(s: Score) -> tuple[Any, ...]:
    i = s.interval
    return s.modality, i.estimate, i.low, i.high, s.vehicles, s.support, i.undefined


def intervention_notes(counts: Counts, agreed: Sequence[Score], order: float) -> list[str]:
    """What was done, what it did besides, and how far both truths agree."""
    lines = [
        f"Interventions: {counts.detected} of {counts.vehicles} are detected, {counts.scored} of "
        "these have evidence in every sensor and are scored"
        + f" ({counts.undecided} lose nothing without any sensor, and count for no AUROC). "
        + "Lost without: "
        + ", ".join(f"{name} {count}" for name, count in counts.lost.items())
        + f". An image's edge cuts {counts.clipped}."
    ]
    lines += [
        f"{name} holds nothing of {count} detected (first: {counts.first_unseen[name]})."
        for name, count in counts.unseen.items()
        if count
    ]
    if counts.scored:
        lines += [_beside(name, counts) for name in counts.inside]
    return lines + _agreed(agreed, order)


def _beside(name: str, counts: Counts) -> str:
    return (
        f"Without {name} the output changes by {counts.inside[name]:.3g} over the footprint, by "
        f"{counts.elsewhere[name]:.3g} over other objects and by {counts.outside[name]:.3g} over "
        f"all cells outside, which hold {counts.outside_share[name]:.0%} of the change in sum."
    )


def _agreed(scores: Sequence[Score], order: float) -> list[str]:
    if not scores:
        return []
    first, *others = scores
    correlations = [f"{s.modality} {_value(s)}" for s in others]
    lines = [
        f"Both truths: of {first.vehicles} detected that one sensor alone could see, this sensor "
        f"carries {_value(first)}; rank correlation of the drop with the recorded evidence: "
        f"{', '.join(correlations)}."
    ]
    if not math.isnan(order):
        lines.append(f"Rank correlation of the methods' AUROC under both truths: {order:.2f}.")
    return lines


def _value(score: Score) -> str:
    i = score.interval
    if math.isnan(i.estimate):
        return "undefined"
    if math.isnan(i.low):
        return f"{i.estimate:.2f}"
    return f"{i.estimate:.2f} [{i.low:.2f}, {i.high:.2f}]"
