"""The files and notes that ``lmd score`` writes from its finished samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from lmd_cli.attribution import Method
from lmd_cli.data.synthetic import Evidence
from lmd_cli.evaluation.scores.against_ground_truth import (
    LEAST_OBJECTS,
    ObjectDraws,
    Score,
    Vehicle,
    ground_truth_scores,
)
from lmd_cli.evaluation.scores.against_interventions import (
    AllEffects,
    agreement,
    counted,
    intervention_scores,
)
from lmd_cli.evaluation.scores.best_method import NoVerdict, Verdict, verdict
from lmd_cli.evaluation.scores.ground_truth import RegionGroundTruth
from lmd_cli.evaluation.scores.planted import planted_scores
from lmd_cli.evaluation.statistics import spearman
from lmd_cli.report.figures.scores import score_png
from lmd_cli.results.score_rows import (
    AGREEMENT_FIELDS,
    SCORE_FIELDS,
    TIME_FIELDS,
    MethodResult,
    agreement_rows,
    all_effects,
    effect_rows,
    intervention_notes,
    missed_by_steps,
    score_rows,
    vehicle_rows,
)
from lmd_cli.runtime.files import csv_lines, write_atomically
from lmd_cli.workflows.score_inputs import Setting

PICTURE = "score.png"


@dataclass(frozen=True)
class ScoreSummary:
    """The results of ``lmd score``.

    Attributes:
        modalities: of the network.
        scores: for each method its scores.
        seconds: for each method the median time for a sample.
        plain_seconds: the median time of the network itself behind the encoders.
        notes: lines that belong under the table.
        files: what was written.
        verdict: which method to trust, or why the scores do not say.
    """

    modalities: tuple[str, ...]
    scores: dict[str, list[Score]]
    seconds: dict[str, float]
    plain_seconds: float
    notes: list[str]
    files: list[Path]
    verdict: Verdict | NoVerdict


def _vehicles(
    entry: Mapping[str, Any], name: str, kind: Literal["vehicles", "planted"] = "vehicles"
) -> Iterable[Vehicle]:
    """A sample's vehicles, or its planted false alarms, with their parts under one method."""
    shares = entry["methods"][name]["shares"]
    before = len(entry["vehicles"]) if kind == "planted" else 0
    for i, vehicle in enumerate(entry.get(kind, ()), start=before):
        evidence = vehicle["evidence"]
        yield Vehicle(
            vehicle["token"],
            vehicle["instance"],
            Evidence(**evidence) if vehicle["synthetic"] else evidence,
            vehicle["detected"],
            {part: values[i] for part, values in shares.items()},
        )


def write_results(
    setting: Setting,
    folder: Path,
    entries: Sequence[Mapping[str, Any]],
    resamples: int,
) -> ScoreSummary:
    """Writes the tables of the finished samples, and says what is in them."""
    modalities = setting.built.network.modalities
    kept = [_result(name, entries) for name in kept_methods(setting.methods, entries)]
    effects = all_effects(entries)
    draw = ObjectDraws(setting.config.seed, resamples)
    scored = {f.name: _scores(setting, f.vehicles, effects, draw) for f in kept}
    if setting.planted is not None:
        for name, listed in scored.items():
            planted = [one for entry in entries for one in _vehicles(entry, name, "planted")]
            how = {"seed": draw.seed, "resamples": draw.resamples}
            listed += planted_scores(planted, modalities, **how)
    seconds = {f.name: median(f.seconds) for f in kept}
    usual = median(entry["plain_seconds"] for entry in entries)
    tables: dict[str, list[Any]] = {
        "score.csv": [SCORE_FIELDS, *score_rows(scored)],
        "vehicles.csv": list(vehicle_rows(kept, modalities)),
        "times.csv": [TIME_FIELDS, *((n, s, s / usual) for n, s in seconds.items())],
    }
    if setting.truth.intervenes:
        instances = {v["token"]: v["instance"] for e in entries for v in e["vehicles"]}
        tables["interventions.csv"] = list(effect_rows(effects, instances))
    if agreed := _agreement(setting, kept, effects, draw):
        tables["agreement.csv"] = [AGREEMENT_FIELDS, *agreement_rows(agreed)]
    for name, rows in tables.items():
        write_atomically(folder / name, csv_lines(rows))
    notes = _notes(setting, kept, left_out_methods(entries))
    if setting.planted is not None:
        notes.append(_planted_note(entries))
    if setting.truth.intervenes:
        counts = counted(sum(len(e["vehicles"]) for e in entries), effects, modalities)
        notes += intervention_notes(counts, agreed, _same_order(scored))
    notes += [
        f"{name}: its steps miss {share:.1%} of F(x) - F(0) (sums of magnitudes over the "
        "vehicles); that is in the bias."
        for name, share in missed_by_steps(entries, scored).items()
    ]
    files = [folder / name for name in (*tables, PICTURE, "run.json")]
    said = _verdict(setting, scored, draw)
    write_atomically(folder / PICTURE, score_png(scored, said.sentence))
    notes += [*_without_interval(scored), said.sentence]
    return ScoreSummary(modalities, scored, seconds, usual, notes, files, said)


def _verdict(
    setting: Setting, scores: Mapping[str, Sequence[Score]], draw: ObjectDraws
) -> Verdict | NoVerdict:
    if setting.built.random:
        return NoVerdict("Random weights")
    return verdict(scores, seed=draw.seed, resamples=draw.resamples)


def _without_interval(scores: Mapping[str, Sequence[Score]]) -> list[str]:
    """Which scores are there that too few objects carry."""
    few = {
        f"{s.name} {s.modality}".rstrip(): s.support
        for listed in scores.values()
        for s in listed
        if s.support < LEAST_OBJECTS and not math.isnan(s.interval.estimate)
    }
    listed = ", ".join(f"{name} ({count})" for name, count in few.items())
    said = f"No interval, and no vote in a verdict, of fewer than {LEAST_OBJECTS} objects: "
    return [f"{said}{listed}."] if few else []


def _planted_note(entries: Sequence[Mapping[str, Any]]) -> str:
    planted = [one for entry in entries for one in entry["planted"]]
    objects = len({one["token"] for one in planted})
    alarms = [one for one in planted if one["detected"]]
    by_sensor = Counter(next(n for n, x in one["evidence"].items() if x) for one in alarms)
    listed = ", ".join(f"{name} {count}" for name, count in sorted(by_sensor.items())) or "none"
    return (
        f"{len(planted)} planted false alarms ({objects} objects); the network falls for "
        f"{len(alarms)}: {listed}."
    )


def _scores(
    setting: Setting, vehicles: Sequence[Vehicle], effects: AllEffects, draw: ObjectDraws
) -> list[Score]:
    """A method's scores against the ground truth that was chosen."""
    modalities = setting.built.network.modalities
    known = modalities if setting.truth.recorded else ()  # the share of the bias needs no truth
    *listed, bias = ground_truth_scores(vehicles, known, seed=draw.seed, resamples=draw.resamples)
    if setting.truth.intervenes:
        listed += intervention_scores(vehicles, effects, modalities, draw)
    return [*listed, bias]


def _agreement(
    setting: Setting, kept: Sequence[MethodResult], effects: AllEffects, draw: ObjectDraws
) -> list[Score]:
    """How far both truths agree, where there are both."""
    if setting.truth.kind != "both" or not kept:
        return []
    return agreement(kept[0].vehicles, effects, setting.built.network.modalities, draw)


def _same_order(scores: Mapping[str, Sequence[Score]]) -> float:
    """Rank correlation, over the methods, of their mean AUROC under the two truths."""

    def means(name: str) -> list[float]:
        return [fmean(s.interval.estimate for s in listed if s.name == name) for listed in both]

    both = [x for x in scores.values() if any(s.name == "auroc_detected" for s in x)]
    return spearman(means("auroc_detected"), means("auroc_intervention")) if both else math.nan


def left_out_methods(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Methods that could not explain the network, and why not the first such sample."""
    left_out: dict[str, str] = {}
    for entry in entries:
        for name, why in entry["left_out"].items():
            left_out.setdefault(name, why)
    return left_out


def kept_methods(chosen: Sequence[Method], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the methods that explained every sample."""
    left_out = left_out_methods(entries)
    return [method.name for method in chosen if method.name not in left_out]


def _result(name: str, entries: Sequence[Mapping[str, Any]]) -> MethodResult:
    vehicles = [v for entry in entries for v in _vehicles(entry, name)]
    return MethodResult(name, vehicles, [entry["methods"][name]["seconds"] for entry in entries])


def outcome(chosen: Sequence[Method], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``run.json`` says of the results."""
    kept = kept_methods(chosen, entries)
    return {
        "scored": len(entries),
        "methods": kept,
        "left_out": left_out_methods(entries),
        "missed_by_steps": missed_by_steps(entries, kept),
    }


def _notes(setting: Setting, kept: list[MethodResult], left_out: dict[str, str]) -> list[str]:
    lines = []
    if setting.built.random:
        lines.append("Random weights: the numbers say nothing about a trained network.")
    vehicles = kept[0].vehicles if kept else []
    objects = len({v.instance for v in vehicles})
    if isinstance(setting.truth.objects, RegionGroundTruth):
        counted_objects = (
            f"{len(vehicles)} regions ({objects} objects; intervals resample objects)."
        )
    else:
        many = f"{len(vehicles)} annotations of {objects} vehicles"
        counted_objects = f"{many}; intervals resample vehicles."
    if setting.truth.recorded:
        lines.append(
            f"{counted_objects} AUROC is over those that one sensor alone could see. That truth is "
            "itself a removal, which favours methods that remove a sensor; rank correlation with "
            "graded evidence does not."
        )
    else:
        lines.append(counted_objects)
    lines += [
        f"{name} was left out (ask for it with --method): {why}" for name, why in left_out.items()
    ]
    return lines
