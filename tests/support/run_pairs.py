"""Two runs on the same samples, in folders as ``lmd evaluate`` and ``lmd report`` leave them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmd_cli.evaluation.ground.vehicles import object_fields
from lmd_cli.evaluation.run_metrics import BY_PARTS, BY_REMOVAL, DETECTED
from lmd_cli.results.detection_rows import PartColumns
from lmd_cli.results.run_folder import SAMPLE_FIELDS
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_files import write_survey
from lmd_cli.runtime.files import csv_lines
from tests.support import made_up

#: nuscenes-devkit's figures, as far as they are read.
FIGURES = {
    "mean_ap": 0.4,
    "nd_score": 0.5,
    "tp_errors": {"trans_err": 0.3, "scale_err": 0.2, "orient_err": 0.1, "vel_err": None}
    | {"attr_err": 0.1},
    "mean_dist_aps": {"car": 0.8, "bus": 0.0},
    "annotations": {"car": 3, "bus": 0},
}


def run_of(
    path: Path,
    survey: Survey | None = None,
    *,
    hits: tuple[int, ...] = (10, 10, 10),
    **options: Any,
) -> Path:
    """A run whose samples have so many cells of 20 right, with a survey (of no real run, so that
    commands take it with ``--no-survey`` only).

    Args:
        options: of :func:`made_up.run_folder`.
    """
    folder = made_up.run_folder(path, **options)
    rows = [
        (k, f"t{k}{options.get('text', '')}", "ok", 8, "", right, 20, 1e-7, 2e-7)
        for k, right in enumerate(hits)
    ]
    (folder / "samples.csv").write_bytes(csv_lines([SAMPLE_FIELDS, *rows]))
    if survey is not None:
        write_survey(survey, {"made": "up"}, folder / "survey")
    return folder


def changed_survey(text: str = "") -> Survey:
    """:func:`made_up.survey` with vehicle 0 decided by the radar, and vehicle 1 missed."""
    survey = made_up.survey(text)
    header = object_fields(survey.parts)
    rows = [dict(zip(header, row, strict=True)) for row in survey.objects]
    rows[0] |= {BY_PARTS: "radar", "part_camera": 0.0}
    rows[1] |= {DETECTED: 0, BY_PARTS: "", BY_REMOVAL: "", "score": -0.5}
    shown = [replace(one, parts=one.parts * 2) for one in survey.shown]
    return replace(survey, objects=[tuple(row.values()) for row in rows], shown=shown)


def before_and_after(folder: Path, text: str = "") -> tuple[Path, Path]:
    """Two runs with surveys; the second has more cells right and other vehicles."""
    folder.mkdir(exist_ok=True)
    before = run_of(folder / "before", made_up.survey(text), text=text)
    after = run_of(folder / "after", changed_survey(text), hits=(12, 14, 10), text=text)
    return before, after


def edit_record(folder: Path, **entries: Any) -> None:
    """Changes entries of ``run.json``, of the config where the name begins with ``config_``."""
    record = json.loads((folder / "run.json").read_text())
    for name, value in entries.items():
        of_config = name.startswith("config_")
        (record["config"] if of_config else record)[name.removeprefix("config_")] = value
    (folder / "run.json").write_text(json.dumps(record))


def detect_in(
    run: Path, boxes: dict[str, list[tuple[str, float, float]]], figures: Any = None
) -> None:
    """What ``lmd detect`` leaves in a run's folder.

    Args:
        boxes: for each sample (outcome, metres forward, metres left); a miss is an annotation.
        figures: of the devkit; none if none.
    """
    fields = PartColumns((), (), ()).fields()
    rows = []
    for sample, listed in boxes.items():
        for outcome, x, y in listed:
            kind = "annotation" if outcome == "miss" else "box"
            known = {"detection": len(rows), "sample": sample, "kind": kind, "class": "car"}
            known |= {"score": 0.5, "outcome": outcome, "distance": x, "x": x, "y": y}
            known |= {"closeness": 0.75}
            rows.append([known.get(name) for name in fields])
    folder = run / "detect"
    folder.mkdir()
    (folder / "detections.csv").write_bytes(csv_lines([fields, *rows]))
    entries = ",\n".join(f"{json.dumps(sample)}: []" for sample in boxes)
    (folder / "detections.json").write_text(f'{{"meta": {{}}, "results": {{\n{entries}\n}}}}\n')
    if figures is not None:
        (folder / "detection_metrics.json").write_text(json.dumps(figures))
    record = json.loads((run / "run.json").read_text()) | {"status": "finished"}
    (folder / "run.json").write_text(json.dumps(record))
