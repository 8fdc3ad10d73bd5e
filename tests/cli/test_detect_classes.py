"""``lmd detect`` with classes that are no vehicles: pedestrians of the synthetic world."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from nuscenes.eval.detection.utils import category_to_detection_name

from lmd_cli.results.detection_rows import read_detections
from tests.support.calling import Lmd
from tests.support.tiny_settings import crn_config

needs_devkit = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="nuscenes-devkit needs numpy below 2"
)
WALKING = "model.sizes.tasks=[[car], [truck, bus], [pedestrian]]"


def classes_in_tables(root: Path) -> Counter[str]:
    """Annotations of the detection task's classes, counted in the tables themselves."""

    def rows(name: str) -> dict[str, dict]:
        table = json.loads((root / "v1.0-mini" / f"{name}.json").read_text())
        return {row["token"]: row for row in table}

    instances, categories = rows("instance"), rows("category")
    names = (
        categories[instances[row["instance_token"]]["category_token"]]["name"]
        for row in rows("sample_annotation").values()
    )
    return Counter(filter(None, map(category_to_detection_name, names)))


@needs_devkit
def test_pedestrians_are_matched_where_the_network_has_them(
    lmd: Lmd, tiny_root: Path, tmp_path: Path
):
    path = crn_config(tmp_path, tiny_root)
    parts = ("--set", WALKING, "--set", "detection=0.02", "--variant", "identity-ratio")
    for folder, more in (("with", parts), ("without", ("--no-parts",))):
        result = lmd("detect", "-c", path, "--output", folder, *more)
        assert result.exit_code == 0, result.output
    lacking = r"annotations are of classes that the network does not have \(.*pedestrian \d+"
    assert re.search(lacking, result.stdout)
    assert re.search(r"\d+ annotations are outside the map: no parts of them", result.stdout)
    rows = read_detections(Path("with/detections.csv"))
    annotations = [row for row in rows if row["kind"] == "annotation"]
    known = Counter(row["class"] for row in annotations if row["class"])
    assert known == classes_in_tables(tiny_root)
    assert known["pedestrian"] > 5
    metrics = json.loads(Path("with/detection_metrics.json").read_text())
    for name in ("car", "truck", "bus", "pedestrian"):
        own = [row for row in annotations if row["class"] == name]
        counted = [row for row in own if row["outcome"] in ("hit", "miss")]
        assert len(counted) == metrics["annotations"][name], name
    walkers = [row for row in rows if row["class"] == "pedestrian"]
    assert all(row["output"] == "task2.heatmap" for row in walkers if row["outcome"] == "hit")
    seen = [row for row in walkers if row["kind"] == "annotation" and row["output"]]
    assert seen
    assert all(row["instance"] and row["category"] == "human.pedestrian.adult" for row in seen)
    for row in seen:
        parts = [row[f"identity-ratio.{name}"] for name in ("camera", "radar", "bias")]
        assert sum(parts) == pytest.approx(row["logit"], abs=1e-4)
    without = read_detections(Path("without/detections.csv"))
    absent = [row for row in without if row["class"] == "pedestrian"]
    assert len(absent) == known["pedestrian"]
    assert {(row["outcome"], row["output"]) for row in absent} == {("not counted", "")}
    drawn = ("--detection", absent[0]["detection"], "--detections", "without")
    refused = lmd("decompose", "-c", path, *drawn, "--output", "one")
    assert refused.exit_code == 2
    said = f"detection {absent[0]['detection']} is outside the map, or of a class that the network"
    assert said in refused.stderr


def pedestrian(root: Path) -> tuple[Path, list[dict], dict]:
    """The table of annotations, its rows, and one of a pedestrian."""
    folder = root / "v1.0-mini"
    names = ("sample_annotation", "instance", "category")
    rows, instances, categories = (
        json.loads((folder / f"{name}.json").read_text()) for name in names
    )
    (walking,) = (c["token"] for c in categories if c["name"] == "human.pedestrian.adult")
    walkers = {one["token"] for one in instances if one["category_token"] == walking}
    return (
        folder / "sample_annotation.json",
        rows,
        next(row for row in rows if row["instance_token"] in walkers),
    )


def test_a_broken_annotation_is_named_before_anything_is_detected(
    lmd: Lmd, own_root: Path, tmp_path: Path
):
    path, rows, broken = pedestrian(own_root)
    broken["rotation"] = [0, 0, 0, 0]
    path.write_text(json.dumps(rows))
    result = lmd("detect", "-c", crn_config(tmp_path, own_root), "--output", "out")
    assert result.exit_code == 2, result.output
    said = f"v1.0-mini/sample_annotation.json, record {broken['token']}: rotation is [0, 0, 0, 0]"
    assert said in result.stderr
    assert f"needed by sample {broken['sample_token']}" in result.stderr
    assert not Path("out").exists()


def test_rows_of_changed_annotations_are_not_mixed(lmd: Lmd, own_root: Path, tmp_path: Path):
    given = ("detect", "-c", crn_config(tmp_path, own_root), "--output", "out", "--no-parts")
    assert lmd(*given, "--limit", "1").exit_code == 0
    path, rows, moved = pedestrian(own_root)
    moved["translation"][0] += 1
    path.write_text(json.dumps(rows))
    result = lmd(*given, "--limit", "2")
    assert result.exit_code == 2, result.output
    assert "out holds results of other data: the tables changed" in result.stderr
