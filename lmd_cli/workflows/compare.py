"""``lmd compare``: from the folders of runs to the page of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmd_cli.errors import ResultsError
from lmd_cli.report.page.compare import comparison_page
from lmd_cli.report.tables.comparison import (
    ALARM_FIELDS,
    CHANGE_FIELDS,
    METRIC_FIELDS,
    alarm_rows,
    change_rows,
    markdown,
    metric_rows,
)
from lmd_cli.results.comparable import Pairing, require_comparable
from lmd_cli.results.comparison import RunComparison, compare_runs
from lmd_cli.results.read_run import RunResults, read_run
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_files import surveyed_with
from lmd_cli.runtime.files import csv_lines, disk_errors, remove_output, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.report import SURVEY, ReportOptions, matched_of, run_survey

PAGE, ALARMS = "comparison.html", "changed_false_alarms.csv"


@dataclass(frozen=True)
class Compared:
    """The comparison, and what was written of it."""

    comparison: RunComparison
    files: list[Path]


def compare(
    paths: Sequence[Path],
    output: Path,
    options: ReportOptions | None = None,
    *,
    pairing: Pairing = "same",
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Compared:
    """Compares runs with the first of them, and writes tables and a page.

    Args:
        paths: folders that ``lmd evaluate`` wrote, at least two.
        output: where files go.
        options: how a survey is made of a run that has none.
        pairing: which samples are compared, see :func:`~.comparable.require_comparable`.
        resamples: of the bootstrap.

    Raises:
        ResultsError: a folder is not a run's, or the runs cannot be compared.
        LmdError: what a survey raises.
        RunError: the disk is full.
    """
    comparison = open_comparison(
        paths, options, pairing=pairing, resamples=resamples, progress=progress
    )
    return Compared(comparison, write_comparison(comparison, output))


def open_comparison(
    paths: Sequence[Path],
    options: ReportOptions | None = None,
    *,
    pairing: Pairing = "same",
    resamples: int = 1000,
    progress: Progress | None = None,
) -> RunComparison:
    """:func:`compare` without the files."""
    runs = [read_run(path) for path in paths]
    if len(runs) < 2:
        raise ResultsError("one run cannot be compared; give at least two: lmd compare RUN RUN")
    require_comparable(runs, [None] * len(runs), pairing)  # before hours of surveys
    options = _removed_alike(runs, options or ReportOptions())
    opened = [open_survey(run, options, progress) for run in runs]
    surveys, notes = [survey for survey, _ in opened], [note for _, note in opened if note]
    detections = [matched_of(run) for run in runs]
    comparison = compare_runs(runs, surveys, detections, pairing, resamples=resamples)
    return replace(comparison, notes=[*comparison.notes, *notes])


def _removed_alike(runs: Sequence[RunResults], options: ReportOptions) -> ReportOptions:
    """For runs without a survey: features removed as in the others'."""
    made = [surveyed_with(run.path / SURVEY) for run in runs]
    removal = next((one["removal"] for one in made if one), options.removal)
    return replace(options, removal=removal)


def open_survey(
    run: RunResults, options: ReportOptions | None = None, progress: Progress | None = None
) -> tuple[Survey | None, str]:
    """The survey that a run has, or a new one; and why there is none.

    One that was made with other options of ``lmd report`` is taken as it is.
    """
    options = options or ReportOptions()
    survey, why = run_survey(run, _as_made(run, options), progress)
    if survey is None and not why and not options.compute:
        why = f"{run.path} has no survey: lmd report {run.path} makes it."
    return survey, why


def _as_made(run: RunResults, options: ReportOptions) -> ReportOptions:
    """With the options of the survey that is there."""
    made = surveyed_with(run.path / SURVEY)
    known = made is not None and made["variant"] in run.known_variants
    return replace(options, **made) if made and known else options


def write_comparison(comparison: RunComparison, folder: Path) -> list[Path]:
    """Writes ``comparison.html``, ``.csv`` and ``.md``, ``changed_vehicles.csv``, and where every
    run has detections ``changed_false_alarms.csv``; what an earlier comparison left goes."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = {
        PAGE: comparison_page(comparison),
        "comparison.csv": csv_lines([METRIC_FIELDS, *metric_rows(comparison)]),
        "comparison.md": markdown(comparison).encode(),
        "changed_vehicles.csv": csv_lines([CHANGE_FIELDS, *change_rows(comparison)]),
    }
    if comparison.alarms:
        files[ALARMS] = csv_lines([ALARM_FIELDS, *alarm_rows(comparison)])
    else:
        with disk_errors(folder / ALARMS):
            remove_output(folder / ALARMS)
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]
