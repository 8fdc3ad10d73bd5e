"""``lmd gate``: whether a run meets requirements, for CI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.ground.vehicles import object_fields
from lmd_cli.evaluation.paired import Clusters, clusters_of, vehicle_key
from lmd_cli.evaluation.requirements import (
    Outcome,
    Requirement,
    check_requirement,
    parse_requirement,
    require_known,
)
from lmd_cli.evaluation.run_metrics import Vehicle
from lmd_cli.report.page.compare import comparison_page
from lmd_cli.report.page.gate import gate_page, verdict_values
from lmd_cli.report.tables.gate import junit_xml
from lmd_cli.results.comparison import RunComparison, caveats, labels_of
from lmd_cli.results.read_run import read_run
from lmd_cli.results.run_metrics import RunMetrics
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_files import TEXTS
from lmd_cli.results.survey_metrics import scenes_of
from lmd_cli.results.verdict import FILE, GATE, gate_json, results_sha256
from lmd_cli.runtime.files import disk_errors, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.compare import open_comparison, open_survey
from lmd_cli.workflows.report import ReportOptions, matched_of


@dataclass(frozen=True)
class Gated:
    """The verdict.

    Attributes:
        outcomes: in the order of the requirements.
        notes: what a reader must know.
        files: what was written.
    """

    outcomes: list[Outcome]
    notes: list[str]
    files: list[Path]

    @property
    def passed(self) -> bool:
        """Whether every requirement is met."""
        return all(outcome.passed for outcome in self.outcomes)


@dataclass(frozen=True, eq=False)
class _Opened:
    """The run, and the baseline on the same samples and vehicles."""

    metrics: RunMetrics
    baseline: RunMetrics | None
    clusters: Clusters
    comparison: RunComparison | None
    notes: list[str]

    def selected(self, requirement: Requirement) -> Callable[[Vehicle], bool]:
        """The vehicles that count, of which both runs have the same."""
        kept = filter(requirement.keeps, self.metrics.vehicles)
        keys = {vehicle_key(vehicle) for vehicle in kept}
        if self.baseline is not None:
            keys &= {vehicle_key(vehicle) for vehicle in self.baseline.vehicles}
        return lambda vehicle: vehicle_key(vehicle) in keys


def gate(
    path: Path,
    requirements: Sequence[str],
    baseline: Path | None = None,
    output: Path | None = None,
    options: ReportOptions | None = None,
    *,
    confident: bool = False,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Gated:
    """Checks requirements, and writes ``gate.html``, ``gate.json`` and ``gate.xml`` (JUnit).

    Args:
        path: the run.
        requirements: expressions, see :func:`~.requirements.parse_requirement`.
        baseline: another run that it is compared with.
        output: where files go; ``gate`` in the run's folder if none.
        options: how a survey is made of a run that has none.
        confident: the interval must meet a requirement, not the value alone.

    Raises:
        ConfigError: an expression is none, or names what the run has not.
        ResultsError: a folder is not a run's, or the baseline cannot be compared.
        RunError: the disk is full.
    """
    parsed = [parse_requirement(text) for text in requirements]
    _require_any(parsed, baseline)
    opened = _open(path, baseline, options, resamples, progress)
    _require_known(parsed, opened)
    outcomes = [_check(requirement, opened, confident) for requirement in parsed]
    notes = [*opened.notes, *(outcome.note for outcome in outcomes if outcome.note)]
    opened = replace(opened, notes=notes)
    folder = output or path / GATE
    return Gated(outcomes, opened.notes, _write(folder, path, baseline, outcomes, opened))


def _require_any(parsed: Sequence[Requirement], baseline: Path | None) -> None:
    if not parsed:
        raise ConfigError(
            "nothing is required; give at least one --require 'METRIC>=NUMBER', such as 'iou>=0.5' "
            "(all metrics: lmd_cli/docs/reference.md, Metrics by name)"
        )
    relative = next((requirement for requirement in parsed if requirement.relative), None)
    if relative is not None and baseline is None:
        raise ConfigError(
            f"--require {relative.text!r} needs a run to compare with: --baseline RUN"
        )


def _open(
    path: Path,
    baseline: Path | None,
    options: ReportOptions | None,
    resamples: int,
    progress: Progress | None,
) -> _Opened:
    if baseline is None:
        run = read_run(path)
        survey, why = open_survey(run, options, progress)
        clusters = clusters_of(run.tokens, scenes_of(survey), resamples=resamples)
        notes = [*caveats(labels_of([run])[0], run), *([why] if why else [])]
        matched = matched_of(run)
        within = None if matched is None else matched.within(run.tokens)
        return _Opened(RunMetrics(run, survey, None, within), None, clusters, None, notes)
    comparison = open_comparison([baseline, path], options, resamples=resamples, progress=progress)
    before, after = (
        RunMetrics(run, survey, frozenset(comparison.clusters.of), matched)
        for run, survey, matched in zip(
            comparison.runs, comparison.surveys, comparison.detections, strict=True
        )
    )
    return _Opened(after, before, comparison.clusters, comparison, comparison.notes)


def _require_known(parsed: Sequence[Requirement], opened: _Opened) -> None:
    survey = opened.metrics.survey
    lacking = "" if opened.metrics.of_objects else "those of vehicles need a survey with vehicles"
    if opened.metrics.detections is None:
        lacking += (
            "; " if lacking else ""
        ) + "those of detections need lmd detect --output RUN/detect"
    for requirement in parsed:
        names = opened.metrics.names
        if requirement.relative and opened.baseline is not None:
            shared = set(opened.baseline.names)
            names = [name for name in names if name in shared]
        require_known(requirement, names, _columns(survey), lacking)


def _columns(survey: Survey | None) -> dict[str, bool]:
    """Of ``objects.csv``: whether they hold text."""
    return {} if survey is None else {name: name in TEXTS for name in object_fields(survey.parts)}


def _check(requirement: Requirement, opened: _Opened, confident: bool) -> Outcome:
    keep = opened.selected(requirement)
    metric = opened.metrics.metric(requirement.metric, keep)
    base = None
    if requirement.relative and opened.baseline is not None:
        base = opened.baseline.metric(requirement.metric, keep)
    return check_requirement(requirement, metric, base, opened.clusters, confident=confident)


def _write(
    folder: Path, run: Path, baseline: Path | None, outcomes: Sequence[Outcome], opened: _Opened
) -> list[Path]:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    verdict = verdict_values(str(run), outcomes)
    page = (
        gate_page(opened.metrics.run, opened.clusters, verdict, opened.notes)
        if opened.comparison is None
        else comparison_page(replace(opened.comparison, notes=opened.notes), verdict)
    )
    against = None if baseline is None else str(baseline)
    files = {
        "gate.html": page,
        FILE: gate_json(str(run), against, outcomes, results_sha256(run)),
        "gate.xml": junit_xml(str(run), outcomes),
    }
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]
