"""``lmd detect`` with the demos' trained networks, and the page on it."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from lmd_cli.results.detection_rows import read_detections
from tests.support.calling import Lmd

needs_devkit = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="nuscenes-devkit needs numpy below 2"
)


def on(root: Path) -> list[object]:
    """One sample of a root."""
    return ["--dataroot", root, "--limit", "1", "--set", "threads=1"]


@pytest.mark.parametrize("demo", ["demo", "demo_lidar", "demo_three"])
def test_instances_of_every_fusion(lmd: Lmd, tiny_root: Path, demo: str):
    rules = ("--variant", "identity-ratio")
    result = lmd("detect", "-c", demo, *on(tiny_root), *rules, "--output", "out")
    assert result.exit_code == 0, result.output
    rows = read_detections(Path("out/detections.csv"))
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes["hit"] > 4
    metrics = json.loads(Path("out/detection_metrics.json").read_text())
    assert metrics["hits"] == outcomes["hit"] / 2
    assert metrics["panoptic_quality"] > 0.2
    sensors = json.loads(Path("out/run.json").read_text())["config"]["model"]["modalities"]
    for row in rows:
        if row["output"]:
            parts = [row[f"identity-ratio.{name}"] for name in (*sensors, "bias")]
            assert sum(parts) == pytest.approx(row["logit"], abs=1e-3)
    assert "No classes of nuScenes' detection task: vehicle" in result.stdout


@needs_devkit
def test_boxes_of_the_demo_and_their_page(lmd: Lmd, tiny_root: Path):
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox

    one = ("-c", "demo_crn", *on(tiny_root))
    protocol = ("perturbation.stride=auto", "perturbation.count=1")
    few = [word for key in protocol for word in ("--set", key)]
    assert lmd("evaluate", *one, *few, "--output", "run").exit_code == 0
    rules = ("--variant", "identity-ratio")
    result = lmd("detect", *one, *few, *rules, "--output", "run/detect")
    assert result.exit_code == 0, result.output
    boxes, _ = load_prediction("run/detect/detections.json", 500, DetectionBox)
    assert len(boxes.all) > 100
    rows = read_detections(Path("run/detect/detections.csv"))
    assert Counter(row["outcome"] for row in rows)["hit"] > 4
    result = lmd("report", "run", "--no-survey")
    assert result.exit_code == 0, result.output
    page = Path("run/report.html").read_text()
    assert '<h2 id="detections">' in page
    links = set(re.findall(r'href="#detection-(\d+)"', page))
    assert links
    assert links <= set(re.findall(r'id="detection-(\d+)"', page))
