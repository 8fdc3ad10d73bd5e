"""``lmd detect`` on a network and data set of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.loading import load_config
from lmd_cli.workflows import detection_metrics
from tests.support.calling import Lmd
from tests.support.detect_runs import MODULE, boxes_of, needs_devkit, rows_of


@pytest.fixture
def custom(tiny_root: Path, tmp_path: Path) -> Path:
    """A network and data set of one's own that know the cars."""
    (tmp_path / "known.py").write_text(MODULE)
    content = {
        "model": {"target": "known:Truth", "modalities": ["camera", "radar"], "output": "boxes"},
        "data": {"target": "known:Boxes", "options": {"dataroot": str(tiny_root)}},
        "threads": 1,
    }
    path = tmp_path / "known.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@needs_devkit
def test_boxes_that_are_the_annotations_score_as_such(lmd: Lmd, custom: Path, tiny_root: Path):
    """Ego to global and back to the devkit: known cars, 0.1 m off, are all found."""
    result = lmd("detect", "-c", custom, "--output", "out")
    assert result.exit_code == 0, result.output
    assert "The data set is no nuScenes root: there is nothing to match." in result.stdout
    assert "global_T_ego" not in result.stdout
    tokens = list(boxes_of("out"))
    file = Path("out/detections.json")
    metrics = detection_metrics.detection_metrics(tiny_root, "v1.0-mini", tokens, file)
    assert metrics["annotations"]["car"] > 5
    assert metrics["mean_dist_aps"]["car"] > 0.99
    errors = metrics["label_tp_errors"]["car"]
    assert errors["trans_err"] == pytest.approx(0.1, abs=1e-3)
    assert errors["scale_err"] < 1e-4
    assert errors["orient_err"] < 1e-3
    assert errors["vel_err"] < 1e-2


def test_a_data_set_without_poses_says_so(lmd: Lmd, custom: Path):
    result = lmd("detect", "-c", custom, "--set", "data.options.posed=false", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "boxes are in the network's own frame" in result.stdout
    batch = build_dataset(load_config(custom))[0].tensors["boxes"][0]
    box = next(iter(boxes_of("out").values()))[0]
    assert box["translation"][0] == pytest.approx(float(batch[0, 0, 0]) + 0.1, abs=1e-4)


def test_classes_that_nuscenes_does_not_have_are_named(lmd: Lmd, custom: Path):
    result = lmd("detect", "-c", custom, "--set", "model.options={mode: tram}", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "No classes of nuScenes' detection task: tram." in result.stdout
    assert "nuscenes-devkit does not read files with boxes of such classes" in result.stdout


REFUSED = {
    "nan": "Truth.decode at sample {token}: scores holds NaN for finite features",
    "flat": "Truth.decode at sample {token}: a box has a size that is not above zero",
    "few": "boxes is (",
    "misplaced": "; expected (output, channel, row, column) of a value of boxes",
    "none": "Truth.decode at sample {token} gave 0 entries; expected a list with one entry",
    "raises": "Truth.decode at sample {token} raised KeyError: 'no such map'",
}


@pytest.mark.parametrize("mode", REFUSED)
def test_boxes_that_are_none_are_named(lmd: Lmd, custom: Path, mode: str):
    result = lmd("detect", "-c", custom, "--set", f"model.options={{mode: {mode}}}")
    assert result.exit_code == 2, result.output
    token = build_dataset(load_config(custom)).tokens[0]
    assert REFUSED[mode].format(token=token) in result.stderr


def test_a_network_without_decode_is_told_what_to_add(lmd: Lmd, custom: Path):
    result = lmd("detect", "-c", custom, "--set", "model.target=known:Mute")
    assert result.exit_code == 2
    assert "Mute has no decode(outputs): add a method that takes the dict" in result.stderr


def test_a_network_of_ones_own_says_where_its_boxes_are_decided(lmd: Lmd, custom: Path):
    placed = ("--set", "model.options={mode: placed}", "--variant", "identity-ratio")
    result = lmd("detect", "-c", custom, "--output", "out", *placed)
    assert result.exit_code == 0, result.output
    row = rows_of("out")[0]
    assert (row["output"], row["row"], row["column"], row["outcome"]) == ("boxes", 0, 1, "")
    assert row["logit"] == pytest.approx(row["y"], abs=1e-5)
    assert row["identity-ratio.camera"] == pytest.approx(row["y"], abs=1e-5)
    unknown = lmd("detect", "-c", custom, "--output", "none")
    assert "does not say where a box is decided" in unknown.stdout
