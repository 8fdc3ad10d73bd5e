"""``lmd check``: what a checkpoint's authors report, and what came out here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmd_cli.assembly.build import BuiltNetwork
from lmd_cli.config.loading import load_config
from lmd_cli.workflows.check_data import Checks
from lmd_cli.workflows.check_published import check_published

BUILT = BuiltNetwork(None, "weights.pth", "ab12", False)


def said(config: str, results: Path, *settings: str, built: BuiltNetwork = BUILT) -> list[str]:
    checks = Checks()
    check_published(checks, load_config(config, list(settings)), built, results)
    return [check.detail for check in checks.checks]


@pytest.mark.parametrize(
    ("config", "settings", "figure"),
    [
        ("crn.yaml", (), "mAP 47.3, NDS 56.2"),
        ("crn.yaml", ("model.backbone=r18",), "mAP 44.9, NDS 54.2"),
        ("radar_cam.yaml", (), "IoU 55.8 at 448x800 images, 5 sweeps"),
        ("radar_cam.yaml", ("model.modalities=[camera]",), "IoU 47.6 at 448x800 images"),
        ("lidar_cam.yaml", (), "nothing for a network of these sizes and sensors"),
        ("demo_crn.yaml", (), "nothing for a network of these sizes and sensors"),
        ("demo.yaml", (), "nothing for a network of these sizes and sensors"),
    ],
)
def test_what_the_authors_report(
    config: str, settings: tuple[str, ...], figure: str, tmp_path: Path
):
    (line,) = said(config, tmp_path, *settings)
    assert line.startswith(f"its authors report {figure}; measured here: nothing yet")


def test_what_came_out_of_the_same_weights(tmp_path: Path):
    folder = tmp_path / "detect"
    folder.mkdir()
    record = {"status": "finished", "weights": {"sha256": "ab12", "random": False}}
    (folder / "run.json").write_text(json.dumps(record))
    figures = {"mean_ap": 0.4612, "nd_score": 0.555, "samples": 81}
    (folder / "detection_metrics.json").write_text(json.dumps(figures))
    (tmp_path / "run.json").write_text(json.dumps({**record, "vehicle_iou": 0.5}))
    (line,) = said("crn.yaml", tmp_path)
    assert f"measured here: mAP 46.1, NDS 55.5 for 81 samples ({folder}); IoU 50.0" in line
    (other,) = said("crn.yaml", tmp_path, built=BuiltNetwork(None, "other", "cd34", False))
    assert "measured here: nothing yet" in other


def test_random_weights_have_no_figures(tmp_path: Path):
    assert said("crn.yaml", tmp_path, built=BuiltNetwork(None, "random", None, True)) == []
