"""``lmd detect`` on the tiny root, with random weights and with boxes that are known."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lmd_cli.assembly.build import build_dataset
from lmd_cli.cli.app import app
from lmd_cli.config.loading import load_config
from lmd_cli.workflows import detection_metrics
from tests.support.calling import Lmd
from tests.support.detect_runs import boxes_of, needs_devkit, rows_of
from tests.support.tiny_settings import crn_config


@pytest.fixture(scope="module")
def config(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crn_config(tmp_path_factory.mktemp("detect"), tiny_root)


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run's folder, and what it showed."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    result = CliRunner().invoke(app, ["detect", "-c", str(config), "--output", str(folder)])
    return folder, result


@needs_devkit
def test_boxes_and_figures(config: Path, whole: tuple[Path, Result]):
    out, result = whole
    assert result.exit_code == 0, result.output
    tokens = build_dataset(load_config(config)).tokens
    results = boxes_of(out)
    assert list(results) == tokens
    meta = json.loads((out / "detections.json").read_text())["meta"]
    assert [name for name, used in meta.items() if used] == ["use_camera", "use_radar"]
    for token, boxes in results.items():
        assert 0 < len(boxes) <= 500
        assert {box["sample_token"] for box in boxes} == {token}
        scores = [box["detection_score"] for box in boxes]
        assert scores == sorted(scores, reverse=True)
    metrics = json.loads((out / "detection_metrics.json").read_text())
    assert metrics["samples"] == 6
    assert set(metrics["tp_errors"]) == set(detection_metrics.ERRORS)
    assert len(metrics["mean_dist_aps"]) == 10
    assert metrics["label_tp_errors"]["barrier"]["vel_err"] is None
    assert "Random weights: the boxes mean nothing." in result.stdout
    assert "The network does not have trailer, construction_vehicle, pedestrian" in result.stdout
    assert f"mAP {metrics['mean_ap']:.3f}, NDS {metrics['nd_score']:.3f} (N = 6)" in result.stdout
    record = json.loads((out / "run.json").read_text())
    assert (record["status"], record["detected"]) == ("finished", 6)
    assert record["boxes"] == sum(map(len, results.values()))


@needs_devkit
def test_a_run_that_was_cut_off_ends_with_the_same_bytes(
    lmd: Lmd, config: Path, whole: tuple[Path, Result]
):
    first = lmd("detect", "-c", config, "--output", "parts", "--limit", "2")
    assert "The figures are of the first 2 of 6 samples." in first.stdout
    assert len(boxes_of("parts")) == 2
    journal = Path("parts/finished.jsonl")
    journal.write_bytes(journal.read_bytes() + b'{"sample": "torn')
    second = lmd("detect", "-c", config, "--output", "parts")
    assert "detect: 4 to do" in second.stderr
    for name in ("detections.json", "detection_metrics.json", "run.json"):
        assert (whole[0] / name).read_bytes() == Path("parts", name).read_bytes(), name
    other = lmd("detect", "-c", config, "--output", whole[0], "--set", "seed=1")
    assert other.exit_code == 2
    assert "holds the results of another run" in other.stderr


def test_a_split_without_annotations_writes_boxes(lmd: Lmd, own_root: Path, tmp_path: Path):
    for table in ("sample_annotation", "instance"):
        (own_root / "v1.0-mini" / f"{table}.json").write_text("[]")
    path = crn_config(tmp_path, own_root)
    Path("out").mkdir()
    Path("out/detection_metrics.json").write_text("{}")
    result = lmd("detect", "-c", path, "--output", "out", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert "has no annotations: boxes are written, and there is nothing to match" in result.stdout
    assert not Path("out/detection_metrics.json").exists()
    assert len(boxes_of("out")) == 1


def test_without_the_devkit_boxes_are_written(
    lmd: Lmd, config: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "nuscenes.eval.detection.evaluate", None)
    result = lmd("detect", "-c", config, "--output", "out", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert "No mAP and NDS: nuscenes-devkit cannot be imported" in result.stdout
    assert "pip install 'lmd-cli[devkit]'" in result.stdout
    assert not Path("out/detection_metrics.json").exists()
    assert len(boxes_of("out")) == 1


@needs_devkit
def test_a_root_that_the_devkit_cannot_read_is_named(lmd: Lmd, own_root: Path, tmp_path: Path):
    (own_root / "v1.0-mini" / "map.json").unlink()
    path = crn_config(tmp_path, own_root)
    result = lmd("detect", "-c", path, "--output", "out", "--limit", "1")
    assert result.exit_code == 0, result.output
    assert f"nuscenes-devkit fails at {own_root}: FileNotFoundError" in result.stdout


def test_instances_of_a_segmentation_are_matched_by_overlap(lmd: Lmd, tiny_config: Path):
    """The network's own output as annotated: what it says is what was put in."""
    components = ("--set", "model.instances=components", "--variant", "identity-ratio")
    result = lmd("detect", "-c", tiny_config, "--output", "out", *components)
    assert result.exit_code == 0, result.output
    assert "Boxes are instances of the segmentation" in result.stdout
    metrics = json.loads(Path("out/detection_metrics.json").read_text())
    rows = rows_of("out")
    boxes = [row for row in rows if row["kind"] == "box"]
    assert boxes
    assert {row["class"] for row in rows} == {"vehicle"}
    assert metrics["hits"] + metrics["misses"] == metrics["annotations"] > 0
    for row in boxes:
        parts = [row[f"identity-ratio.{name}"] for name in ("camera", "radar", "bias")]
        assert sum(parts) == pytest.approx(row["logit"], abs=1e-4)
        assert row["score"] == pytest.approx(1 / (1 + math.exp(-row["logit"])), abs=1e-5)
        assert row["score"] > 0.5
    assert "panoptic quality" in result.stdout
    record = json.loads(Path("out/run.json").read_text())
    assert record["config"]["model"]["instances"] == "components"


def test_each_box_has_its_parts_its_match_and_its_sensors(lmd: Lmd, config: Path):
    wanted = ("--variant", "identity-ratio", "--method", "leave-one-out")
    low = ("--set", "detection=0.02", "--limit", "2")
    result = lmd("detect", "-c", config, "--output", "out", *wanted, *low)
    assert result.exit_code == 0, result.output
    rows = rows_of("out")
    assert [row["detection"] for row in rows] == list(range(len(rows)))
    boxes = [row for row in rows if row["kind"] == "box"]
    annotations = [row for row in rows if row["kind"] == "annotation"]
    dataset = build_dataset(load_config(config))
    assert [row["annotation"] for row in annotations] == [
        one.token for index in range(2) for one in dataset.annotations(index)
    ]
    assert len(boxes) > 1
    assert all(row["score"] > 0.02 for row in boxes)
    for row in boxes:
        assert row["score"] == pytest.approx(1 / (1 + math.exp(-row["logit"])), abs=1e-5)
        for method in ("identity-ratio", "leave-one-out"):
            parts = [row[f"{method}.{name}"] for name in ("camera", "radar", "bias")]
            assert sum(parts) == pytest.approx(row["logit"], abs=1e-3)
    for row in rows:
        if row["match"] is not None and row["outcome"] == "hit":
            other = rows[row["match"]]
            assert (other["match"], other["outcome"]) == (row["detection"], "hit")
            assert other["sample"] == row["sample"]
    values = [line.split(",") for line in Path("out/detection_values.csv").read_text().split()]
    totals = {(v[0], v[3]): float(v[6]) for v in values[1:] if v[5] == "total"}
    first = boxes[0]
    heading = math.atan2(totals["0", "sin_yaw"], totals["0", "cos_yaw"])
    assert heading == pytest.approx(first["yaw"], abs=1e-4)
    assert totals["0", "vx"] == pytest.approx(first["vx"], abs=1e-5)
    assert math.exp(totals["0", "log_width"]) == pytest.approx(first["width"], rel=1e-4)
    parts = [float(v[6]) for v in values[1:] if v[:1] + v[3:5] == ["0", "vx", "identity-ratio"]]
    assert sum(parts) == pytest.approx(first["vx"], abs=1e-4)


def test_without_parts_there_are_rows_and_matches(lmd: Lmd, config: Path):
    result = lmd("detect", "-c", config, "--output", "out", "--no-parts", "--limit", "1")
    assert result.exit_code == 0, result.output
    rows = rows_of("out")
    assert len(rows) > 1
    assert all(row["logit"] is None for row in rows)
    assert not Path("out/detection_counts.csv").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--variant", "identity"), "identity"),
        (("--method", "lrp"), "lrp works backwards"),
        (("--method", "shaply"), "no method 'shaply'; did you mean 'shapley'?"),
    ],
)
def test_what_has_no_parts_is_refused(lmd: Lmd, config: Path, given: tuple[str, ...], said: str):
    result = lmd("detect", "-c", config, "--output", "out", *given)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not Path("out").exists()


def test_the_page_leads_from_each_count_to_a_picture(lmd: Lmd, tiny_config: Path):
    one = ("-c", tiny_config, "--set", "model.instances=components", "--limit", "2")
    assert lmd("evaluate", *one, "--output", "run").exit_code == 0
    detected = lmd("detect", *one, "--variant", "identity-ratio", "--output", "run/detect")
    assert detected.exit_code == 0, detected.output
    result = lmd("report", "run", "--no-survey")
    assert result.exit_code == 0, result.output
    page = Path("run/report.html").read_text()
    assert '<h2 id="detections">' in page
    links = re.findall(r'href="#detection-(\d+)"', page)
    pictures = re.findall(r'id="detection-(\d+)"', page)
    assert len(links) > 3
    assert set(links) <= set(pictures)
    assert not re.search(r'<td class="number">\d+ <small', page)  # a count without a link
    assert len(set(pictures)) == len(pictures)
    counts = Path("run/detect/detection_counts.csv").read_text().splitlines()[1:]
    total = {line.split(",")[2]: int(line.split(",")[5]) for line in counts if "all,all" in line}
    rows = rows_of("run/detect")
    assert total["miss"] == sum(row["outcome"] == "miss" and bool(row["output"]) for row in rows)
    drawn = ("--detection", pictures[0], "--detections", "run/detect", "--output", "one")
    picture = lmd("decompose", *one[:4], *drawn)
    assert picture.exit_code == 0, picture.output
    assert Path(f"one/detection_{pictures[0]}.png").read_bytes().startswith(b"\x89PNG")
    assert f"detection {pictures[0]}: " in picture.stdout
    missing = lmd("decompose", *one[:4], "--detection", "100000", "--detections", "run/detect")
    assert missing.exit_code == 2
    assert f"has the detections 0 to {len(rows) - 1}, not 100000" in missing.stderr
    nowhere = lmd("decompose", *one[:4], "--detection", "0", "--detections", "elsewhere")
    assert "detections.csv does not exist; lmd detect writes it" in nowhere.stderr

    examples = Path("run/detect/detection_examples.json")
    examples.write_text(examples.read_text().replace('"map": "iVBOR', '"map": "<b>BOR', 1))
    damaged = lmd("report", "run", "--no-survey")
    assert damaged.exit_code == 2
    assert "is damaged" in damaged.stderr
