"""The files of ``lmd detect``, from its finished samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lmd_cli.config.schema import CustomModelConfig
from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.submission import DETECTION_NAMES
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.evaluation.detections.counts import clusters_note, count_rows, counts
from lmd_cli.evaluation.detections.left_out import left_out_notes
from lmd_cli.evaluation.detections.parts import probability_of, threshold_of
from lmd_cli.evaluation.detections.quality import instance_metrics
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.networks.detections import Place
from lmd_cli.results.detection_rows import (
    PartColumns,
    detection_rows,
    read_detections,
    value_rows,
)
from lmd_cli.results.detection_run import COUNTS, EXAMPLES, ROWS
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.matched_detections import BOXES, METRICS
from lmd_cli.runtime.files import csv_lines, disk_errors, remove_output, replacing, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.detect_examples import examples
from lmd_cli.workflows.detect_sample import Setting
from lmd_cli.workflows.detection_metrics import NoMetricsError, detection_metrics

VALUES = "detection_values.csv"
#: nuScenes' kinds of inputs that a submission declares.
INPUTS = ("camera", "lidar", "radar", "map", "external")


def write_boxes(
    path: Path, setting: Setting, entries: Iterable[Mapping[str, Any]]
) -> dict[str, int]:
    """Writes the submission, one sample a line; gives the number of boxes of each class."""
    boxes: Counter[str] = Counter()
    used = {f"use_{name}": name in setting.built.network.modalities for name in INPUTS}
    with disk_errors(path), replacing(path) as file:
        file.write(f'{{"meta": {json.dumps(used)}, "results": {{'.encode())
        for i, entry in enumerate(entries):
            boxes.update(box["detection_name"] for box in entry["boxes"])
            start = ",\n" if i else "\n"
            line = f"{start}{json.dumps(entry['sample'])}: {json.dumps(entry['boxes'])}"
            file.write(line.encode())
        file.write(b"\n}}\n")
    return dict(boxes)


def write_rows(
    folder: Path, setting: Setting, finished: FinishedSamples, count: int, progress: Progress
) -> tuple[list[str], list[str]]:
    """Writes a row for each detection, the parts of its values, and counts by sensor.

    Returns:
        names of the files, and notes.
    """
    columns = PartColumns(setting.names, _parts(setting), setting.built.network.modalities)
    limit = partial(_threshold, probability=probability_of(setting.config))
    _stream(folder / ROWS, detection_rows(finished.entries(count), columns, limit))
    rows = read_detections(folder / ROWS)
    known = [row for row in rows if row["output"]]
    written = [ROWS]
    if setting.names and any(_has_values(entry) for entry in finished.entries(count)):
        _stream(folder / VALUES, value_rows(finished.entries(count)))
        written.append(VALUES)
    if setting.names and setting.matched and known:
        made = counts(rows, setting.names[0], seed=setting.config.seed)
        write_atomically(folder / COUNTS, csv_lines(count_rows(made)))
        written.append(COUNTS)
    if COUNTS in written and not isinstance(setting.config.model, CustomModelConfig):
        shown = [one.model_dump() for one in examples(setting, rows, progress)]
        write_atomically(folder / EXAMPLES, json.dumps(shown).encode() + b"\n")
        written.append(EXAMPLES)
    for name in sorted({VALUES, COUNTS, EXAMPLES} - set(written)):
        with disk_errors(folder / name):
            remove_output(folder / name)
    return written, _row_notes(rows, known, setting, COUNTS in written)


def _has_values(entry: Mapping[str, Any]) -> bool:
    return any(one.get("values") for one in entry["detections"])


def _row_notes(
    rows: Sequence[Mapping[str, Any]],
    known: Sequence[Mapping[str, Any]],
    setting: Setting,
    counted: bool,
) -> list[str]:
    notes = []
    if setting.names and not known and rows:
        notes.append(
            "The network does not say where a box is decided, so its parts are not known: let "
            "decode give places (see docs/extending.md)."
        )
    else:
        custom = isinstance(setting.config.model, CustomModelConfig)
        classes = getattr(setting.built.network, "detection_classes", None)
        notes += left_out_notes(rows, classes, None if custom else plane_of(setting.config))
    return [*notes, clusters_note(rows)] if counted else notes


def _threshold(output: str, probability: float) -> float:
    none = np.zeros(0, dtype=np.int64)
    return threshold_of(Place(output, 0, none, none), probability)


def _parts(setting: Setting) -> list[str]:
    more = [INTERACTION] if setting.config.bilinear == INTERACTION else []
    return [*setting.built.network.modalities, BIAS, *more]


def _stream(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """A CSV that need not fit into memory."""
    with disk_errors(path), replacing(path) as file:
        for row in rows:
            file.write(csv_lines([row]))


def figures(
    setting: Setting, folder: Path, finished: FinishedSamples, count: int, progress: Progress
) -> tuple[dict[str, Any] | None, list[str]]:
    """The figures of the match, written, or why there are none."""
    path = folder / METRICS
    try:
        metrics = _matched(setting, folder / BOXES, finished, count, progress)
    except NoMetricsError as reason:
        with disk_errors(path):
            path.unlink(missing_ok=True)  # of an earlier run of more samples
        return None, [str(reason)]
    write_atomically(path, (json.dumps(metrics, indent=2) + "\n").encode())
    return metrics, []


def _matched(
    setting: Setting, file: Path, finished: FinishedSamples, count: int, progress: Progress
) -> dict[str, Any]:
    dataset = setting.dataset
    if isinstance(dataset, CustomSamples):
        frame = (
            ""
            if dataset.posed
            else (" It has no global_T_ego(index) either: boxes are in the network's own frame.")
        )
        raise NoMetricsError(f"The data set is no nuScenes root: there is nothing to match.{frame}")
    if not dataset.annotated:
        raise NoMetricsError(
            "The split has no annotations: boxes are written, and there is nothing to match."
        )
    if setting.is_segmentation:
        return instance_metrics(finished.entries(count))
    tokens = dataset.tokens[:count]
    return detection_metrics(dataset.dataroot, dataset.version, tokens, file, progress)


def result_notes(
    setting: Setting, boxes: dict[str, int], metrics: dict[str, Any] | None, count: int
) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    if setting.built.random:
        notes.append("Random weights: the boxes mean nothing.")
    classes = getattr(setting.built.network, "detection_classes", None)
    if foreign := sorted({*boxes, *(classes or ())} - set(DETECTION_NAMES)):
        notes.append(
            f"No classes of nuScenes' detection task: {', '.join(foreign)}. nuscenes-devkit does "
            "not read files with boxes of such classes."
        )
    if metrics is None:
        return notes
    samples = len(setting.dataset)
    if count < samples:
        notes.append(f"The figures are of the first {count} of {samples} samples.")
    if setting.is_segmentation:
        return [*notes, INSTANCES]
    if classes is not None:
        lacking = [name for name in DETECTION_NAMES if name not in classes]
        notes += _absent("The network does not have", lacking)
    unseen = [name for name, number in metrics["annotations"].items() if not number]
    return notes + _absent("These samples have no annotation of", unseen)


INSTANCES = (
    "Boxes are instances of the segmentation: rectangles around their cells, with a nominal height "
    "and no velocity. A hit overlaps its annotation by more than half (intersection over union)."
)


def _absent(why: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"{why} {', '.join(names)}: AP 0 and errors 1 in mAP and NDS, by nuScenes' rule."]
