"""A real keyframe through the published network's sizes, with random weights.

Set ``LMD_REAL_KEYFRAME`` to a nuScenes root (v1.0-mini) that holds a sample of ``mini_train``.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lmd_cli.results.detection_rows import read_detections
from tests.support.calling import Lmd
from tests.support.repeated_keyframe import repeat_keyframe


@pytest.fixture(scope="module")
def arguments() -> list[str]:
    root = os.environ.get("LMD_REAL_KEYFRAME")
    if root is None:
        pytest.skip("LMD_REAL_KEYFRAME is not set: no real nuScenes keyframe to test on")
    return ["-c", "radar_cam_mini", "--dataroot", root, "--set", "data.split=mini_train"]


def test_decompose(lmd: Lmd, arguments: list[str]):
    result = lmd("decompose", *arguments, "--output", "out")
    assert result.exit_code == 0, result.output
    arrays = np.load("out/parts.npz")
    assert arrays["total"].shape == (200, 200)
    parts = sum(arrays[name].astype(np.float64) for name in ("camera", "radar", "bias"))
    np.testing.assert_allclose(parts, arrays["total"], atol=1e-4 * abs(arrays["total"]).max())
    assert 0 < arrays["ground_truth"].sum() < 2000
    assert json.loads(Path("out/decomposition.json").read_text())["residual"] < 1e-4


def test_check(lmd: Lmd, arguments: list[str]):
    result = lmd("check", *arguments)
    assert result.exit_code == 0, result.output
    assert "none missing, 11 channels" in result.stdout
    assert "7 scenes of mini_train are not in v1.0-mini" in result.stdout


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of four samples with real images, LiDAR, calibration and annotations."""
    root = os.environ.get("LMD_REAL_KEYFRAME")
    if root is None:
        pytest.skip("LMD_REAL_KEYFRAME is not set: no real nuScenes keyframe to test on")
    return repeat_keyframe(Path(root), tmp_path_factory.mktemp("real") / "root", 4)


@pytest.mark.parametrize("network", ["lidar_cam", "radar_lidar_cam", "crn"])
def test_evaluate_on_real_images(lmd: Lmd, several: Path, tmp_path: Path, network: str):
    """The shipped configs on real data: smaller sizes for SimpleBEV and CRN alike, for speed."""
    smaller = {
        "lidar_cam": ["model.image_size=[64, 112]", "model.grid=[40, 8, 40]"],
        "radar_lidar_cam": ["model.image_size=[64, 112]", "model.grid=[40, 8, 40]"],
        "crn": ["model.backbone=r18", "model.image_size=[96, 256]", "model.sizes.cells=32"],
    }[network]
    common = ["data.version=v1.0-mini", "data.split=mini_train", "perturbation.count=2"]
    chosen = [*common, "perturbation.stride=auto", "threads=1", *smaller]
    given = [word for setting in chosen for word in ("--set", setting)]
    result = lmd(
        *("evaluate", "-c", network, "--dataroot", several, "--checkpoint", "random"),
        *(*given, "--output", "out", "--limit", "2"),
    )
    assert result.exit_code == 0, result.output
    record = json.loads(Path("out/run.json").read_text())
    assert record["evaluated"] == 2
    assert record["conservation_residual"] < 1e-4
    assert record["replay_deviation"] < 1e-3
    if network == "crn":
        assert sorted(record["padded"].values()) == [2, 2, 3, 3]


@pytest.mark.parametrize("demo", ["demo", "demo_lidar", "demo_three", "demo_crn"])
def test_detect(lmd: Lmd, several: Path, demo: str):
    """Boxes of the demos' networks on real images, matched, and shown on the page."""
    given = ["-c", demo, "--dataroot", several, "--limit", "1", "--set", "threads=1"]
    chosen = ["data.split=mini_train", "perturbation.stride=auto", "perturbation.count=1"]
    given += [word for setting in chosen for word in ("--set", setting)]
    assert lmd("evaluate", *given, "--output", "run").exit_code == 0
    result = lmd("detect", *given, "--output", "run/detect")
    assert result.exit_code == 0, result.output
    metrics = json.loads(Path("run/detect/detection_metrics.json").read_text())
    assert metrics["samples"] == 1
    rows = read_detections(Path("run/detect/detections.csv"))
    kinds = Counter(row["class"] for row in rows if row["kind"] == "annotation")
    if demo == "demo_crn":
        classes = {"car": 4, "truck": 2, "pedestrian": 10, "traffic_cone": 3, "barrier": 15}
        assert {name: n for name, n in metrics["annotations"].items() if n} == classes
        assert all(kinds[name] >= count for name, count in classes.items())
    else:
        assert set(kinds) == {"vehicle"}
    assert lmd("report", "run", "--no-survey").exit_code == 0
    assert '<h2 id="detections">' in Path("run/report.html").read_text()


@pytest.mark.parametrize("demo", ["demo", "demo_crn", "demo_lidar"])
def test_score_by_intervention(lmd: Lmd, arguments: list[str], demo: str):
    """The demos' networks on real vehicles: nobody recorded which sensor saw them."""
    _, _, *rest = arguments
    few = ("--method", "lmd", "--method", "shapley", "--set", "threads=1")
    result = lmd("score", "-c", demo, *rest, *few, "--output", "out")
    assert result.exit_code == 0, result.output
    record = json.loads(Path("out/run.json").read_text())
    assert record["rows"]["truth"] == "intervention"
    assert "are detected" in result.stdout
    assert record["verdict"]["best"] is None
    assert "of at least 10 in each class of an AUROC): no verdict on which method" in result.stdout
    header, *rows = Path("out/interventions.csv").read_text().splitlines()
    assert "outside_share" in header
    assert len(rows) % 2 == 0
