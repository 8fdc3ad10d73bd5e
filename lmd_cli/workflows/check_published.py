"""The part of ``lmd check`` on figures: what a checkpoint's authors report, what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmd_cli.assembly.build import BuiltNetwork
from lmd_cli.config.schema import CRNConfig, RunConfig, SimpleBEVConfig
from lmd_cli.config.sizes import SimpleBEVSizes
from lmd_cli.results.run_folder import read_record
from lmd_cli.runtime.files import read_own
from lmd_cli.workflows.check_data import Checks

#: On nuScenes' validation split, as the repositories' pages say.
CRN_FIGURES = {"r50": "mAP 47.3, NDS 56.2", "r18": "mAP 44.9, NDS 54.2"}
SIMPLEBEV_FIGURES = {
    ("camera",): "IoU 47.6 at 448x800 images",
    ("camera", "radar"): "IoU 55.8 at 448x800 images, 5 sweeps",
}


def check_published(checks: Checks, config: RunConfig, built: BuiltNetwork, results: Path) -> None:
    """Notes both; nothing of random weights, or of networks of the user's own.

    Args:
        results: the folder of ``lmd evaluate``, in which that of ``lmd detect`` is.
    """
    if built.random or not isinstance(config.model, CRNConfig | SimpleBEVConfig):
        return
    reported = _reported(config) or "nothing for a network of these sizes and sensors"
    came_out = "; ".join(_measured(built, results)) or (
        "nothing yet: lmd detect measures mAP and NDS (of instances panoptic quality), "
        "lmd evaluate the IoU"
    )
    checks.note("figures", f"its authors report {reported}; measured here: {came_out}")


def _reported(config: RunConfig) -> str | None:
    model = config.model
    if isinstance(model, CRNConfig):
        usual = not model.sizes.model_dump(exclude_none=True)
        return CRN_FIGURES[model.backbone] if usual else None
    if not isinstance(model, SimpleBEVConfig):
        return None
    usual = dict(model.widths) == vars(SimpleBEVSizes()) and model.encoder == "res101"
    return SIMPLEBEV_FIGURES.get(model.modalities) if usual else None


def _measured(built: BuiltNetwork, results: Path) -> list[str]:
    """What runs of these weights have found, in words."""
    said = []
    detected, run = results / "detect", read_record(results)
    record = read_record(detected)
    if _same(record, built) and (metrics := _metrics(detected)) is not None:
        said.append(f"{_figures(metrics)} for {metrics['samples']} samples ({detected})")
    if _same(run, built) and run is not None and run.get("vehicle_iou") is not None:
        status = "" if run.get("status") == "finished" else f", {run.get('status')}"
        said.append(f"IoU {100 * run['vehicle_iou']:.1f} ({results}{status})")
    return said


def _same(record: dict[str, Any] | None, built: BuiltNetwork) -> bool:
    return record is not None and record["weights"]["sha256"] == built.sha256


def _metrics(folder: Path) -> dict[str, Any] | None:
    try:
        made: dict[str, Any] = json.loads(read_own(folder / "detection_metrics.json"))
    except (FileNotFoundError, ValueError):
        return None
    return made


def _figures(metrics: dict[str, Any]) -> str:
    if "mean_ap" in metrics:
        return f"mAP {100 * metrics['mean_ap']:.1f}, NDS {100 * metrics['nd_score']:.1f}"
    return f"panoptic quality {100 * (metrics['panoptic_quality'] or 0):.1f}"
