"""``--log``: a run's scalars, figures and tables in an experiment tracker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from lmd_cli.config.schema import RunConfig
from lmd_cli.evaluation.comparisons import Comparison
from lmd_cli.evaluation.paired import clusters_of
from lmd_cli.report.figures.styles import STYLES
from lmd_cli.report.notebook import drawing
from lmd_cli.report.page.figures import survey_pictures
from lmd_cli.results.comparison import scenes_of
from lmd_cli.results.frames import RunTables, load_run
from lmd_cli.results.read_run import RunResults, read_run
from lmd_cli.results.run_metrics import RunMetrics
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_files import read_survey
from lmd_cli.runtime.trackers import Tracker, open_tracker
from lmd_cli.workflows.decompose import decompose_sample
from lmd_cli.workflows.report import SURVEY, matched_of

#: Metrics that :func:`track_run` writes; and those in ``run.json``, of the run as a whole.
_OF_TRACK_RUN = ("pcc", "mse", "residual", "replay_deviation")
_FIGURES = ("vehicle_iou", "conservation_residual", "replay_deviation")


def track_run(kinds: Sequence[str], folder: Path, config: RunConfig) -> None:
    """Writes an evaluation into trackers: means, the tables, and the first sample in its parts.

    Args:
        kinds: see :func:`~lmd_cli.runtime.trackers.open_tracker`.
        folder: that ``lmd evaluate`` wrote.
        config: the run's, with its data and weights where they are now.

    Raises:
        ConfigError: a tracker that cannot be opened.
        LmdError: what decomposing a sample raises.
    """
    run = load_run(folder)
    split = decompose_sample(config, next(iter(run.results.tokens), None))
    pictures = {f"decomposition/{style}": drawing(split)(style, "png") for style in STYLES}
    for kind in kinds:
        tracker = open_tracker(kind, folder, config.name, run.results.record["config"])
        try:
            tracker.scalars(run_scalars(run))
            _write(tracker, {"metrics": run["metrics"], "table": run.table}, pictures)
        finally:
            tracker.close()


def track_files(
    kinds: Sequence[str], folder: Path, config: RunConfig, files: Iterable[Path]
) -> None:
    """Writes a command's files into trackers: CSV as tables, PNG as figures.

    Raises:
        ConfigError: a tracker that cannot be opened.
    """
    named = {file.name: file for file in files}
    tables = {n[:-4]: pd.read_csv(f) for n, f in named.items() if n.endswith(".csv")}
    pictures = {n[:-4]: f.read_bytes() for n, f in named.items() if n.endswith(".png")}
    for kind in kinds:
        tracker = open_tracker(kind, folder, config.name, config.model_dump(mode="json"))
        try:
            _write(tracker, tables, pictures)
        finally:
            tracker.close()


def track_report(kinds: Sequence[str], folder: Path) -> None:
    """Writes what a run's page says of its samples into trackers: every metric of vehicles, removal
    and detections, by the names that ``lmd gate`` has for them; layers; the page's figures.

    Args:
        folder: that ``lmd evaluate`` wrote, after :func:`~.report.make_report`.

    Raises:
        ConfigError: a tracker that cannot be opened.
        ResultsError: a file is damaged.
    """
    run, survey = read_run(folder), read_survey(folder / SURVEY, None)
    metrics = _report_metrics(run, survey)
    scalars = metrics.set_index("metric")["value"].dropna().to_dict()
    tables = {"survey": metrics}
    if survey is not None:
        tables["layers"] = load_run(folder)["layers"]
    figures = [] if survey is None else survey_pictures(survey)
    pictures = {f"report/{figure.name}": figure.png for figure in figures}
    for kind in kinds:
        tracker = open_tracker(kind, folder, run.path.resolve().name, run.record["config"])
        try:
            tracker.scalars(scalars)
            _write(tracker, tables, pictures)
        finally:
            tracker.close()


def _report_metrics(run: RunResults, survey: Survey | None) -> pd.DataFrame:
    """Those that :func:`track_run` has not: name, value, interval, number of rows, meaning."""
    clusters = clusters_of(run.tokens, scenes_of(survey))
    matched = matched_of(run)
    within = None if matched is None else matched.within(run.tokens)
    known = RunMetrics(run, survey, None, within)
    rows = []
    for name in known.names:
        if name.split(".")[0] not in _OF_TRACK_RUN:
            metric = known.metric(name)
            found = metric.interval(clusters.draws, clusters.of)
            ends = (found.estimate, found.low, found.high)
            rows.append((name, *ends, len(metric.samples), metric.meaning))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "rows", "meaning"])


def _write(tracker: Tracker, tables: dict[str, pd.DataFrame], pictures: dict[str, bytes]) -> None:
    for name, frame in tables.items():
        tracker.table(name, frame)
    for name, png in pictures.items():
        tracker.figure(name, png)


def run_scalars(run: RunTables) -> dict[str, float]:
    """``identity-ratio/R_p/C/pcc``, its ``mse``, and what ``run.json`` says of the whole run."""
    values = {}
    for row in run["metrics"].to_dict("records"):
        compared = Comparison(tuple(str(row["perturbed"]).split("+")), str(row["target"]))
        for metric in ("pcc", "mse"):
            name = f"{row['variant']}/{compared.title}/{metric}"
            values[name] = float(row[f"{metric}_mean"])
    record = run.results.record
    return values | {n: float(record[n]) for n in _FIGURES if record.get(n) is not None}
