"""The rows of ``interventions.csv`` and ``agreement.csv``, and the notes below the table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lmd_cli.evaluation.intervention_scores import AllEffects, Counts
from lmd_cli.evaluation.interventions import Effect
from lmd_cli.evaluation.scoring import Score

EFFECT_FIELDS = (
    *("annotation_token", "instance_token", "modality", "removed", "clipped_images"),
    *("before", "after", "drop", "lost", "inside", "outside", "elsewhere", "outside_share"),
)
AGREEMENT_FIELDS = ("agreement", "modality", "estimate", "low", "high", "vehicles", "undefined")


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
        i = s.interval
        yield s.name, s.modality, i.estimate, i.low, i.high, s.vehicles, i.undefined


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
    return f"{i.estimate:.2f} [{i.low:.2f}, {i.high:.2f}]"
