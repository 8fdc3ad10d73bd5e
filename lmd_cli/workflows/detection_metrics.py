"""nuscenes-devkit's own detection evaluation of the samples that were detected."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmd_cli.data.nuscenes.database import LIDAR
from lmd_cli.errors import LmdError
from lmd_cli.evaluation.detections.figures import ERRORS
from lmd_cli.runtime.progress import Progress, Silent

SETTINGS = "detection_cvpr_2019"


class NoMetricsError(LmdError):
    """Why the devkit has no figures for boxes that are written all the same."""


def detection_metrics(
    root: Path,
    version: str,
    tokens: Sequence[str],
    file: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """mAP, NDS, the five errors, and the same for each class.

    Args:
        root: the nuScenes root.
        version: of its tables.
        tokens: the samples that count; they have entries in the file.
        file: boxes in nuScenes' submission format.
        progress: where to show progress.

    Raises:
        NoMetricsError: the devkit is not installed, cannot read the root, or has nothing to match.
    """
    try:
        import nuscenes.eval.detection.evaluate  # noqa: F401 - late: it takes a second
    except ImportError as error:
        raise NoMetricsError(
            f"No mAP and NDS: nuscenes-devkit cannot be imported ({error}); install it with pip "
            "install 'lmd-cli[devkit]' (Python below 3.13) and run the same command again"
        ) from None
    shown = progress or Silent()
    shown.start(4, "nuscenes-devkit's evaluation")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return _evaluated(root, version, list(tokens), file, shown)
    except NoMetricsError:
        raise
    except Exception as error:  # assertions and lookups of the devkit
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise NoMetricsError(f"No mAP and NDS: nuscenes-devkit fails at {root}: {what}") from error
    finally:
        shown.close()


def _evaluated(
    root: Path, version: str, tokens: list[str], file: Path, progress: Progress
) -> dict[str, Any]:
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import (
        load_gt_of_sample_tokens,
        load_prediction_of_sample_tokens,
    )
    from nuscenes.eval.detection.data_classes import DetectionBox

    config = config_factory(SETTINGS)
    tables = NuScenes(version=version, dataroot=str(root), verbose=False)
    progress.advance(note="tables")
    if any(LIDAR not in tables.get("sample", token)["data"] for token in tokens):
        raise NoMetricsError(f"No mAP and NDS: nuscenes-devkit measures distances from {LIDAR}")
    truth = _quiet(lambda: load_gt_of_sample_tokens(tables, tokens, DetectionBox))
    truth = _filtered(tables, truth, config)
    progress.advance(note="annotations")
    if not truth.all:
        raise NoMetricsError(
            "No mAP and NDS: no annotation of these samples is within nuScenes' range"
        )
    most = config.max_boxes_per_sample
    boxes, _ = load_prediction_of_sample_tokens(str(file), most, DetectionBox, tokens)
    boxes = _filtered(tables, boxes, config)
    progress.advance(note="boxes")
    metrics = _metrics(config, truth, boxes)
    progress.advance(note="metrics")
    counts = dict.fromkeys(config.class_names, 0)
    for box in truth.all:
        counts[box.detection_name] += 1
    return {"samples": len(tokens), "annotations": counts, **_plain(metrics)}


def _quiet(load: Callable[[], Any]) -> Any:
    """Without the devkit's bar on standard error."""
    with contextlib.redirect_stderr(io.StringIO()):
        return load()


def _filtered(tables: Any, boxes: Any, config: Any) -> Any:
    """As the devkit leaves boxes out: too far away, without points, bicycles in racks."""
    from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes

    if not boxes.all:  # of no boxes, the devkit does not know the kind
        return boxes
    return filter_eval_boxes(tables, add_center_dist(tables, boxes), config.class_range)


def _metrics(config: Any, truth: Any, boxes: Any) -> dict[str, Any]:
    from nuscenes.eval.detection.evaluate import DetectionEval

    class Evaluation(DetectionEval):
        """The devkit's evaluation of boxes that are loaded already."""

        def __init__(self) -> None:
            self.cfg, self.gt_boxes, self.pred_boxes, self.verbose = config, truth, boxes, False

    metrics, _ = Evaluation().evaluate()
    values: dict[str, Any] = metrics.serialize()
    del values["eval_time"]  # the same bytes each time
    return values


def _plain(value: Any) -> Any:
    """Numbers as JSON has them: what is not defined is null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return value


def metrics_table(metrics: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: the means, then each class with its number of annotations."""
    header = ("class", "annotations", "AP", *ERRORS.values())
    count = str(sum(metrics["annotations"].values()))
    mean = [metrics["mean_ap"], *(metrics["tp_errors"][name] for name in ERRORS)]
    rows = [("mean", count, *map(_digits, mean))]
    for name, ap in metrics["mean_dist_aps"].items():
        errors = (metrics["label_tp_errors"][name][error] for error in ERRORS)
        rows.append((name, str(metrics["annotations"][name]), *map(_digits, (ap, *errors))))
    return header, rows


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def instances_line(metrics: dict[str, Any]) -> str:
    """The figures of a segmentation's instances in one line."""
    figures = {
        "recall": "recall",
        "precision": "precision",
        "mean_iou": "mean IoU of the hits",
        "panoptic_quality": "panoptic quality",
    }
    said = ", ".join(f"{title} {_digits(metrics[name])}" for name, title in figures.items())
    counts = f"{metrics['annotations']} annotations of vehicles, {metrics['instances']} instances"
    return f"{said} ({counts}, N = {metrics['samples']})"
