"""Runs compared with the first of them, from their rows and surveys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lmd_cli.evaluation.detections.figures import (
    AlarmChange,
    MatchedDetections,
    alarm_changes,
)
from lmd_cli.evaluation.paired import (
    Change,
    Clusters,
    MetricRow,
    clusters_of,
    metric_row,
    vehicle_changes,
    vehicle_key,
)
from lmd_cli.evaluation.run_metrics import Vehicle
from lmd_cli.results.comparable import Pairing, labels_of, require_comparable
from lmd_cli.results.read_run import RunResults
from lmd_cli.results.run_metrics import RunMetrics
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_metrics import scenes_of

UNPAIRED = (
    "The runs have different samples: a difference may come from the samples, from the networks, "
    "or from both. Single vehicles and maps are not compared."
)
NO_DETECTIONS = (
    "Boxes, mAP, NDS and single false alarms are compared where every run has detections in its "
    "folder: lmd detect with the run's config, and --output RUN/detect."
)


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Runs compared with the first.

    Attributes:
        labels: a short name for each run, the first run's first.
        runs, surveys: what is compared; the surveys of all, or of none.
        clusters: what the bootstrap draws.
        vehicles: how many are compared.
        rows: every metric that all runs have, but those that were measured in none.
        changes: for each other run, every vehicle.
        notes: what a reader must know.
        detections: of the runs, in the samples that are compared; of all, or none.
        alarms: for each other run, the false alarms that only one of the two has; empty without
            detections.
        paired: whether the samples are the same; else each run has its own.
    """

    labels: Sequence[str]
    runs: Sequence[RunResults]
    surveys: Sequence[Survey | None]
    clusters: Clusters
    vehicles: int
    rows: Sequence[MetricRow]
    changes: Sequence[Sequence[Change]]
    notes: list[str] = field(default_factory=list)
    detections: Sequence[MatchedDetections | None] = ()
    alarms: Sequence[Sequence[AlarmChange]] = ()
    paired: bool = True

    @property
    def others(self) -> Sequence[str]:
        """Labels of all but the first."""
        return self.labels[1:]


def compare_runs(
    runs: Sequence[RunResults],
    surveys: Sequence[Survey | None],
    detections: Sequence[MatchedDetections | None],
    pairing: Pairing = "same",
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> RunComparison:
    """Every metric of every run beside the first run's, and every vehicle.

    Args:
        runs: at least two.
        surveys: of the runs; without one of them none is used.
        detections: the same.
        pairing, seed, resamples: see :func:`~.comparable.require_comparable` and
            :class:`~.statistics.Resampling`. The samples of unpaired runs are drawn together.

    Raises:
        ResultsError: the runs cannot be compared.
    """
    surveys = surveys if all(surveys) else [None] * len(runs)
    paired, samples = pairing != "none", require_comparable(runs, surveys, pairing)
    matched, why = _detections(detections, samples, paired=paired)
    metrics = [
        RunMetrics(run, survey, samples, own)
        for run, survey, own in zip(runs, surveys, matched, strict=True)
    ]
    tokens = dict.fromkeys(token for run in runs for token in run.tokens if token in samples)
    scenes = {token: scene for survey in surveys for token, scene in scenes_of(survey).items()}
    clusters = clusters_of(list(tokens), scenes, seed=seed, resamples=resamples)
    there = [{vehicle_key(v) for v in m.vehicles} for m in metrics]
    keys = set.intersection(*there) if paired else set.union(*there)

    def shared(vehicle: Vehicle) -> bool:
        return vehicle_key(vehicle) in keys

    names = [n for n in metrics[0].names if all(n in other.names for other in metrics[1:])]
    all_rows = [metric_row([m.metric(name, shared) for m in metrics], clusters) for name in names]
    rows = [row for row in all_rows if any(row.counts)]
    left_out = max(map(len, there)) - len(keys) if paired else 0
    notes = [*_notes(runs, surveys, metrics, left_out), *why]
    compared = (labels_of(runs), runs, surveys, clusters, len(keys), rows)
    if not paired:
        return RunComparison(
            *compared, [[] for _ in runs[1:]], [UNPAIRED, *notes], matched, (), False
        )
    first, *others = ([v for v in m.vehicles if shared(v)] for m in metrics)
    changes = [vehicle_changes(first, other) for other in others]
    alarms = [alarm_changes(matched[0], m) for m in matched[1:] if matched[0] and m]
    return RunComparison(*compared, changes, notes, matched, alarms)


def _detections(
    given: Sequence[MatchedDetections | None], samples: frozenset[str], *, paired: bool
) -> tuple[Sequence[MatchedDetections | None], list[str]]:
    """The detections in the samples that all have, and what a reader must know of them."""
    none, known = [None] * len(given), [one for one in given if one is not None]
    if not known or len(known) < len(given):
        return none, [NO_DETECTIONS]
    if not paired:
        return [one.within(samples) for one in known], []
    shared = samples.intersection(*(one.samples for one in known))
    if not shared:
        return none, ["The detections have no sample in common with the runs and are left out."]
    notes = []
    if len(shared) < len(samples):
        notes.append(f"Detections are compared in {len(shared)} of the {len(samples)} samples.")
    within = [one.within(shared) for one in known]
    if all("mean_ap" in one.figures for one in known):
        evaluated = {one.evaluated for one in known}
        if len(evaluated) > 1:
            notes.append("mAP and NDS are of different samples in the runs and are left out.")
            return [replace(one, figures={}) for one in within], notes
        if evaluated != {samples}:
            count = len(known[0].evaluated)
            notes.append(f"mAP and NDS are of all samples of lmd detect ({count}).")
    return within, notes


def caveats(label: str, run: RunResults) -> list[str]:
    """What a reader of a run's figures must know: random weights, and a part of the samples."""
    notes = []
    if run.record["weights"]["random"]:
        notes.append(
            f"{label} has random weights: the numbers say nothing about a trained network."
        )
    if len(run.tokens) < run.record["samples"]["count"]:
        notes.append(f"{label} has {run.scope}.")
    return notes


def _notes(
    runs: Sequence[RunResults],
    surveys: Sequence[Survey | None],
    metrics: Sequence[RunMetrics],
    left_out: int,
) -> list[str]:
    notes = []
    variants = list(dict.fromkeys(m.variants[0] for m in metrics))
    if len(variants) > 1:
        notes.append(f"PCC and MSE are of each run's first variant: {', '.join(variants)}.")
    rules = list(dict.fromkeys(s.variant for s in surveys if s is not None))
    if len(rules) > 1:
        notes.append(
            f"The parts are made by different rules ({', '.join(rules)}), so a difference of parts "
            "need not be one of the networks."
        )
    for label, run in zip(labels_of(runs), runs, strict=True):
        notes += caveats(label, run)
    if left_out:
        notes.append(f"{left_out} vehicles are not in every run and are left out.")
    if surveys[0] is None:
        notes.append("Without surveys of all runs, vehicles, removal and maps are not compared.")
    return notes
