"""The rows of ``score.csv``, ``vehicles.csv`` and ``times.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmd_cli.decomposition.layout import BIAS
from lmd_cli.evaluation.scoring import GRADE, Score, Vehicle

SCORE_FIELDS = ("method", "score", "modality", "estimate", "low", "high", "vehicles", "undefined")
TIME_FIELDS = ("method", "seconds_per_sample", "plain_passes")


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
            i = s.interval
            yield name, s.name, s.modality, i.estimate, i.low, i.high, s.vehicles, i.undefined


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


def missed_by_steps(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """For methods with a quadrature: sum of |what it misses| over sum of |F(x) - F(0)|."""
    missed: dict[str, float] = {}
    whole: dict[str, float] = {}
    for entry in entries:
        for name, method in entry["methods"].items():
            for i, gap in enumerate(method.get("missed", ())):
                handed = sum(v[i] for part, v in method["shares"].items() if part != BIAS)
                missed[name] = missed.get(name, 0.0) + abs(gap)
                whole[name] = whole.get(name, 0.0) + abs(handed + gap)
    return {name: gap / whole[name] for name, gap in missed.items() if whole[name]}
