"""Builds a run's page: one HTML file without network access, with all its text escaped.

Every text goes through Jinja's escaping, data for scripts through its JSON filter, and a content
security policy lets nothing run but the page's own scripts, by their hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmd_cli.config.schema import why_explained
from lmd_cli.data.synthetic.write import is_synthetic
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.errors import RunError
from lmd_cli.evaluation.ground.detection import criterion_of
from lmd_cli.evaluation.metrics import LARGE_BIAS
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.page.detections import detections_section
from lmd_cli.report.page.document import document, page_margin
from lmd_cli.report.page.figures import page_figures
from lmd_cli.report.page.gate import recorded_verdict
from lmd_cli.report.page.object_lists import all_objects
from lmd_cli.report.page.provenance import provenance_values
from lmd_cli.report.page.removal import changes_table, removal_tables
from lmd_cli.report.page.separation import by_construction, explained, separation, with_explained
from lmd_cli.report.page.svg_charts import layer_chart
from lmd_cli.report.page.table_cells import PageTable, TableCell, cell, page_table
from lmd_cli.report.page.vehicle_charts import detected_vehicles, objects_values
from lmd_cli.report.page.viewer import viewer_data
from lmd_cli.report.palette import slot
from lmd_cli.report.words import HOW, counted, words_of
from lmd_cli.results.detection_run import DetectionRun
from lmd_cli.results.provenance import read_data_hashes
from lmd_cli.results.read_run import RunResults, sequence_of
from lmd_cli.results.survey import LAYER_FIELDS, Shown, Survey, conflict_of
from lmd_cli.results.verdict import Verdict

SCRIPTS = ("tables.js", "charts.js", "images.js", "viewer.js")
#: A page may not be larger than this, bytes.
LARGEST = 15_000_000


def build_page(
    run: RunResults,
    survey: Survey | None,
    detections: DetectionRun | None = None,
    verdict: Verdict | None = None,
) -> bytes:
    """The page as UTF-8 bytes: the same for the same files.

    Args:
        run: the evaluation's results.
        survey: the survey of its samples; without it there are no maps, layers and vehicles.
        detections: the results of ``lmd detect``, if there are any.
        verdict: that of ``lmd gate``, if there is one.

    Raises:
        RunError: the page would be larger than :data:`LARGEST` with the maps of one sample. Of
            more, as many are left out as must be; the page says so.
    """
    render = document("page.html.j2", SCRIPTS, page_margin([run]))
    run_values = _run_values(with_explained(run, survey))
    kept = 0 if survey is None else len(survey.shown)
    run_values["facts"][2:2] = _detected_fact(survey)
    run_values["rules"] = survey and f"{survey.variant}, {why_explained(survey.variant)}"
    run_values["surveyed"] = _surveyed(run, survey)
    run_values["detections"] = detections_section(detections)
    run_values["verdict"] = recorded_verdict(run, verdict)
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
    words, fused = words_of(run.modalities), [part_title(name) for name in run.modalities]
    return {
        "ground": "target" not in config["model"],
        "title": f"Which {words.one} carried the predictions? {run.path.resolve().name}",
        "subtitle": _subtitle(run),
        "words": words,
        "fused": " and ".join((", ".join(fused[:-1]), fused[-1])).removeprefix(" and "),
        "warnings": _warnings(run),
        "facts": _facts(run),
        "residual": _scientific(record.get("conservation_residual")),
        "table": page_table("table", _caption(run), *sequence_of(run.table)),
        "metrics": page_table(
            "metrics",
            f"Means and standard deviations over all pairs of {run.scope}",
            *sequence_of(run.metrics),
        ),
        "notes": run.notes,
        "separation": separation(run),
        "explained": explained(run),
        "by_construction": by_construction(run),
        "three": len(run.modalities) == 3,
        "scope": run.scope,
        **provenance_values(run),
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
            f"{len(run.samples)} of {total} samples are in: the run was limited, or cut off. Every "
            "number on this page may still change; the same lmd evaluate without --limit goes on."
        )
    if run.record["weights"]["random"]:
        lines.append(
            "The network has random weights: nothing here says anything about a trained one."
        )
    named = run.record["config"].get("data", {}).get("dataroot") == "synthetic"
    if named or is_synthetic(read_data_hashes(run.path)):
        lines.append("The data are synthetic: no conclusion about a real vehicle or sensor.")
    skipped = [row for row in run.samples if row["status"] != "ok"]
    if skipped:
        lines.append(f"{len(skipped)} samples could not be read and were left out.")
    return lines


def _facts(run: RunResults) -> list[dict[str, str]]:
    record = run.record
    return [
        _fact("Samples", str(len(run.tokens)), f"of {record['samples']['count']} in the split"),
        _iou_fact(run),
        _fact(
            "Parts add up within",
            _scientific(record.get("conservation_residual")),
            "largest deviation, relative to the prediction",
        ),
        _fact(
            "Checked by a second calculation",
            _scientific(record.get("replay_deviation")),
            "largest deviation from a slower calculation of the same parts",
        ),
        _fact("Method", run.rows[0], _rows_note(len(run.rows) - 1)),
    ]


def _rows_note(more: int) -> str:
    return f"first row of the tables{f', {more} more follow' if more else ''}"


def _iou_fact(run: RunResults) -> dict[str, str]:
    record = run.record
    iou, model = record.get("vehicle_iou"), record["config"]["model"]
    output = str(model.get("output", ""))
    if record.get("annotated") is False:
        return _fact("Vehicle IoU", "not known", "the data has no annotations")
    if "target" in model:
        if iou is None:
            return _fact("IoU", "not known", "there is no segmentation to compare with")
        note = f"of the unmodified network with the data's segmentation, {run.scope}"
        return _fact("IoU", f"{iou:.3f}", note)
    if iou is not None:
        return _fact(
            "Vehicle IoU",
            f"{iou:.3f}",
            f"overlap of predicted and annotated, {run.scope}; 1 is perfect",
        )
    if criterion_of(output).peak:
        note = "a detection head marks centres, not the cells that a vehicle covers"
        return _fact("Vehicle IoU", "not defined", note)
    return _fact("Vehicle IoU", "not known", "this run has not measured it")


def _surveyed(run: RunResults, survey: Survey | None) -> str:
    """Of how many samples the survey's numbers are."""
    count, every = 0 if survey is None else len(survey.samples), run.record["samples"]["count"]
    return f"all {every} samples" if count == every else f"{count} of {every} samples"


def _detected_fact(survey: Survey | None) -> list[dict[str, str]]:
    """Of the survey, how many vehicles the network detects."""
    count, vehicles = detected_vehicles(survey) if survey is not None else (0, 0)
    if survey is None or not vehicles:
        return []
    words = survey.criterion.words
    return [_fact("Annotations detected", f"{count} of {vehicles}", f"{words} in the footprint")]


def _fact(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _scientific(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"


def _caption(run: RunResults) -> str:
    schedule = run.record["schedule"]
    return (
        f"Mean ± standard deviation over {run.scope}; each {words_of(run.modalities).one} is "
        f"replaced by that of {counted(schedule['count'], 'other sample')}, at steps of "
        f"{counted(schedule['stride'], 'sample')}"
    )


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
            "how",
            "variant",
            "listed",
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
        "listed": all_objects(survey, places) if survey.ground else None,
        "changes": changes_table(survey),
        "how": HOW[survey.removal],
        "variant": survey.variant,
    }


def _most_conflict(survey: Survey, kept: int) -> list[Shown]:
    """In the order of showing."""
    conflict = {row[0]: conflict_of(row) for row in survey.samples}
    ranked = sorted(survey.shown, key=lambda one: -conflict.get(one.token, 0.0))[:kept]
    return sorted(ranked, key=lambda one: one.index)


def _layer_shares(survey: Survey) -> dict[str, Any]:
    parts = survey.layer_parts
    header = [*LAYER_FIELDS, *(f"norm share of {name}" for name in parts)]
    last = dict(zip(header, survey.layers[-1], strict=True)) if survey.layers else {}
    return {
        "variant": survey.variant,
        "bias": last.get(f"norm share of {BIAS}", 0.0),
        "large_bias": LARGE_BIAS,
        "legend": [(name, slot(name, parts)) for name in parts],
        "svg": layer_chart(survey.layers, parts),
        "table": replace(
            page_table(
                "layer_shares", "Mean norm shares after each operation", header, survey.layers
            ),
            slots={f"norm share of {name}": slot(name, parts) for name in parts},
        ),
    }


def _disagreeing(survey: Survey, places: Mapping[str, int]) -> PageTable:
    """The ten samples with the largest conflict; each can be shown in the viewer."""
    ranked = sorted(survey.samples, key=lambda row: -conflict_of(row))[:10]
    rows = [
        [
            TableCell(token, sample=places.get(token)),
            *(cell(value) for value in (scene, description, vehicles, disagreement)),
        ]
        for token, scene, description, _, vehicles, disagreement, *_ in ranked
    ]
    header = ["sample", "scene", "description", "vehicles", "conflict (logits)"]
    if not survey.ground:
        header, rows = _named_alone([*header[:3], "conflict"], [[*r[:3], r[4]] for r in rows])
    caption = f"The {len(rows)} samples with the most conflict"
    return PageTable("disagreeing", caption, header, rows)


def _named_alone(header: list[str], rows: list[list[TableCell]]) -> tuple[list[str], Any]:
    """Without the columns, behind the first, that say the same of each sample or nothing."""
    kept = [i for i, column in enumerate(zip(*rows, strict=True)) if not i or _tells(column)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _tells(column: Sequence[TableCell]) -> bool:
    return column[0].number or len({entry.text for entry in column}) > 1
