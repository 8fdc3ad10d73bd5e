"""Builds a run's page: one HTML file without network access, with all its text escaped.

Every text goes through Jinja's escaping, data for scripts through its JSON filter, and a content
security policy lets nothing run but the page's own scripts, by their hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from lmd_cli.decomposition.layout import BIAS
from lmd_cli.errors import RunError
from lmd_cli.evaluation.ground.detection import criterion_of
from lmd_cli.evaluation.metrics import LARGE_BIAS
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.page.document import document
from lmd_cli.report.page.figures import page_figures
from lmd_cli.report.page.removal import changes_table, removal_tables
from lmd_cli.report.page.svg_charts import WIDTH, Bar, Group, bars, chart_width, layer_chart, slot
from lmd_cli.report.page.table_cells import PageTable, TableCell, cell, flat, page_table
from lmd_cli.report.page.vehicle_charts import detected_vehicles, objects_values
from lmd_cli.report.page.viewer import viewer_data
from lmd_cli.results.read_run import RunResults, sequence_of
from lmd_cli.results.survey import LAYER_FIELDS, Shown, Survey

SCRIPTS = ("tables.js", "charts.js", "viewer.js")
#: Colours of variants: none of a sensor's.
VARIANT_SLOTS = (7, 5, 6, 4)
#: A page may not be larger than this, bytes.
LARGEST = 15_000_000


def build_page(run: RunResults, survey: Survey | None) -> bytes:
    """The page as UTF-8 bytes: the same for the same files.

    Args:
        run: the evaluation's results.
        survey: the survey of its samples; without it there are no maps, layers and vehicles.

    Raises:
        RunError: the page would be larger than :data:`LARGEST` with the maps of one sample. Of
            more, as many are left out as must be; the page says so.
    """
    render = document("page.html.j2", SCRIPTS)
    run_values, kept = _run_values(run), 0 if survey is None else len(survey.shown)
    run_values["facts"][2:2] = _detected_fact(survey)
    while True:
        data = render(**run_values, **_survey_values(survey, kept))
        if len(data) <= LARGEST:
            return data
        if kept < 2:
            raise RunError(
                f"the page would be {len(data) / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}; "
                "make one without maps with --no-survey"
            )
        kept = int(kept * min(0.9, LARGEST / len(data)))


# -- what the run says ------------------------------------------------------------------------


def _run_values(run: RunResults) -> dict[str, Any]:
    record, config = run.record, run.record["config"]
    sensors = [part_title(name) for name in config["model"]["modalities"]]
    return {
        "ground": "target" not in config["model"],
        "title": f"Which sensor carried the predictions? {run.path.resolve().name}",
        "subtitle": _subtitle(run),
        "sensors": " and ".join((", ".join(sensors[:-1]), sensors[-1])).removeprefix(" and "),
        "warnings": _warnings(run),
        "facts": _facts(run),
        "residual": _scientific(record.get("conservation_residual")),
        "table": page_table("table", _caption(run), *sequence_of(run.table)),
        "metrics": page_table(
            "metrics", "Means and standard deviations over all pairs", *sequence_of(run.metrics)
        ),
        "notes": run.notes,
        "separation": _separation(run),
        "provenance": _provenance(run),
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "evaluated": _evaluated(run),
    }


def _subtitle(run: RunResults) -> str:
    config = run.record["config"]
    data, model = config.get("data", {}), config["model"]
    known = [data.get(key) for key in ("target", "dataroot", "version", "split")]
    where = ", ".join(str(value) for value in known if value)
    name = model.get("name") or model.get("target", "of your own")
    network = f"network {name} with {', '.join(model['modalities'])}"
    return f"Run {run.path.resolve().name}; {network}; data {where or 'of your own'}"


def _warnings(run: RunResults) -> list[str]:
    lines = []
    total = run.record["samples"]["count"]
    if not run.finished:
        lines.append(
            f"This run is not finished: {len(run.samples)} of {total} samples are in. Every number "
            "on this page may still change."
        )
    if run.record["weights"]["random"]:
        lines.append(
            "The network has random weights: nothing here says anything about a trained one."
        )
    skipped = [row for row in run.samples if row["status"] != "ok"]
    if skipped:
        lines.append(f"{len(skipped)} samples could not be read and were left out.")
    return lines


def _facts(run: RunResults) -> list[dict[str, str]]:
    record = run.record
    variants = record["config"]["variants"]
    return [
        _fact("Samples", str(len(run.tokens)), f"of {record['samples']['count']} in the split"),
        _iou_fact(record),
        _fact(
            "Parts add up within",
            _scientific(record.get("conservation_residual")),
            "largest deviation, relative to the prediction",
        ),
        _fact(
            "Calculated twice",
            _scientific(record.get("replay_deviation")),
            "largest deviation from a slower calculation of the same parts",
        ),
        _fact("Rules", variants[0], _rules_note(record, len(variants) - 1)),
    ]


def _rules_note(record: dict[str, Any], more: int) -> str:
    explain = record["config"].get("explain")
    drawn = f"; maps: {explain}" if explain else ""
    return f"of the tables{f', with {more} more' if more else ''}{drawn}"


def _iou_fact(record: dict[str, Any]) -> dict[str, str]:
    iou, model = record.get("vehicle_iou"), record["config"]["model"]
    output = str(model.get("output", ""))
    if record.get("annotated") is False:
        return _fact("Vehicle IoU", "not known", "the data has no annotations")
    if "target" in model:
        known = "not known" if iou is None else f"{iou:.3f}"
        return _fact("IoU", known, "of the unmodified network with the data's segmentation")
    if iou is not None:
        return _fact(
            "Vehicle IoU", f"{iou:.3f}", "overlap of predicted and annotated; 1 is perfect"
        )
    if criterion_of(output).peak:
        note = "a detection head marks centres, not the cells that a vehicle covers"
        return _fact("Vehicle IoU", "not defined", note)
    return _fact("Vehicle IoU", "not known", "this run has not measured it")


def _detected_fact(survey: Survey | None) -> list[dict[str, str]]:
    """Of the survey, how many vehicles the network detects."""
    count, vehicles = detected_vehicles(survey) if survey is not None else (0, 0)
    if survey is None or not vehicles:
        return []
    words = survey.criterion.words
    return [_fact("Vehicles detected", f"{count} of {vehicles}", f"{words} in the footprint")]


def _fact(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _scientific(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"


def _caption(run: RunResults) -> str:
    schedule = run.record["schedule"]
    return (
        f"Mean ± standard deviation over {len(run.tokens)} samples, each with "
        f"{schedule['count']} others at multiples of {schedule['stride']} samples"
    )


def _separation(run: RunResults) -> dict[str, Any] | None:
    """One chart for PCC and one for MSE: a group for each cell, a bar for each variant."""
    if not len(run.table):
        return None
    variants = run.variants
    slots = [VARIANT_SLOTS[i % len(VARIANT_SLOTS)] for i in range(len(variants))]
    names = {"pcc": "correlation (PCC)", "mse": "mean squared error (MSE)"}
    charts = [
        {"svg": bars(_cells(run, kind), variants, label, slots=slots), "caption": label}
        for kind, label in names.items()
    ]
    legend, cells = list(zip(variants, slots, strict=True)), len(run.metrics) // len(variants)
    return {"legend": legend, "charts": charts, "broad": chart_width(cells) > WIDTH}


def _cells(run: RunResults, kind: str) -> list[Group]:
    titles = [str(name)[4:] for name in run.table.columns if str(name).startswith(kind.upper())]
    # Both frames list a variant's cells in one order, the table's first.
    groups = []
    for number, title in enumerate(titles):
        bars = []
        for variant in run.variants:
            row = run.metrics[run.metrics.variant == variant].iloc[number]
            mean, deviation = float(row[f"{kind}_mean"]), float(row[f"{kind}_std"])
            known = mean == mean
            text = f"{variant}, {kind.upper()} {title}: {mean:.3f} ± {deviation:.3f}"
            whisker = (mean - deviation, mean + deviation) if known else (None, None)
            bars.append(Bar(mean if known else None, text, *whisker))
        expected = str(run.metrics.iloc[number].expected)
        groups.append(Group(title, bars, f"should {expected}"))
    return groups


def _provenance(run: RunResults) -> PageTable:
    kept = ("status", "checkpoint", "weights", "samples", "schedule", "threads", "device")
    record = {key: run.record[key] for key in kept if key in run.record}
    rows = [*flat(record), *flat({"versions": run.record.get("versions", {})})]
    return page_table("provenance", "From run.json", ["entry", "value"], rows)


def _evaluated(run: RunResults) -> PageTable:
    header = ["position", "sample_token", "status", "pairs", "residual"]
    rows = [[row[name] for name in header] for row in run.samples]
    return page_table("evaluated", "In the order of the walk", header, rows)


# -- what the survey says ---------------------------------------------------------------------


def _survey_values(survey: Survey | None, kept: int) -> dict[str, Any]:
    """With the maps of the ``kept`` samples that disagree most."""
    if survey is None or not survey.samples:
        absent = (
            "viewer",
            "left_out",
            "figures",
            "layer_shares",
            "objects",
            "samples",
            "removal",
            "changes",
        )
        return {**dict.fromkeys(absent), "numbers": False}
    left_out = len(survey.shown) - kept
    numbers = not survey.ground and survey.plane.rows == 1
    survey = replace(survey, shown=_most_conflict(survey, kept))
    places = {} if numbers else {one.token: place for place, one in enumerate(survey.shown)}
    return {
        "viewer": None if numbers else viewer_data(survey, survey.shown),
        "numbers": numbers,
        "left_out": left_out,
        "figures": page_figures(survey),
        "layer_shares": _layer_shares(survey),
        "objects": objects_values(survey) if survey.ground else None,
        "samples": _disagreeing(survey, places),
        "removal": removal_tables(survey, places) if survey.ground else None,
        "changes": changes_table(survey),
    }


def _most_conflict(survey: Survey, kept: int) -> list[Shown]:
    """In the order of showing."""
    conflict = {row[0]: row[4] for row in survey.samples}
    ranked = sorted(survey.shown, key=lambda one: -conflict.get(one.token, 0.0))[:kept]
    return sorted(ranked, key=lambda one: one.index)


def _layer_shares(survey: Survey) -> dict[str, Any]:
    parts = survey.layer_parts
    header = [*LAYER_FIELDS, *(f"norm share of {name}" for name in parts)]
    last = dict(zip(header, survey.layers[-1], strict=True)) if survey.layers else {}
    return {
        "samples": len(survey.samples),
        "variant": survey.variant,
        "bias": last.get(f"norm share of {BIAS}", 0.0),
        "large_bias": LARGE_BIAS,
        "legend": [(name, slot(name, parts)) for name in parts],
        "svg": layer_chart(survey.layers, parts),
        "table": page_table(
            "layer_shares", "Mean norm shares after each operation", header, survey.layers
        ),
    }


def _disagreeing(survey: Survey, places: Mapping[str, int]) -> PageTable:
    """The ten samples with the largest conflict; each can be shown in the viewer."""
    ranked = sorted(survey.samples, key=lambda row: -row[4])[:10]
    rows = [
        [
            TableCell(token, sample=places.get(token)),
            *(cell(value) for value in (scene, description, vehicles, disagreement)),
        ]
        for token, scene, description, vehicles, disagreement, *_ in ranked
    ]
    header = ["sample", "scene", "description", "vehicles", "conflict (logits)"]
    if not survey.ground:
        header, rows = [*header[:3], "conflict"], [[*row[:3], row[4]] for row in rows]
    caption = f"The {len(rows)} samples with the most conflict"
    return PageTable("disagreeing", caption, header, rows)
