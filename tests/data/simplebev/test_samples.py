"""The dataset as a whole: order, contents, batches, and what it says of bad input."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from nuscenes.nuscenes import NuScenes
from torch.utils.data import DataLoader

from lmd_cli.data import Channels, NuScenesSamples, Sample, collate
from lmd_cli.data.nuscenes.database import RADARS
from lmd_cli.errors import DataError
from tests.support.tiny_nuscenes import VERSION, open_samples

SHAPES = {
    "images": (6, 3, 32, 56),
    "pix_T_cams": (6, 4, 4),
    "cam0_T_camXs": (6, 4, 4),
    "segmentation": (1, 40, 40),
    "valid": (1, 40, 40),
    "center": (1, 40, 40),
    "offset": (2, 40, 40),
}
POINTS = {"radar_xyz": 3, "radar_features": 16, "lidar_xyz": 3}


@pytest.fixture
def broken_root(tiny_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_root, tmp_path / "root"))


def test_order_is_by_scene_token_then_time(samples: NuScenesSamples, devkit: NuScenes) -> None:
    assert len(samples) == 4
    assert samples.scene_names == ["scene-0916", "scene-0103"]  # tokens a-scene, b-scene
    rows = [devkit.get("sample", token) for token in samples.tokens]
    keys = [(row["scene_token"], row["timestamp"]) for row in rows]
    assert keys == sorted(keys)
    assert [samples[i].scene for i in (0, 3)] == ["scene-0916", "scene-0103"]
    assert [samples.index_of(token) for token in samples.tokens] == [0, 1, 2, 3]


def test_contents(samples: NuScenesSamples) -> None:
    sample = samples[2]
    assert sample.token == samples.tokens[2]
    assert set(sample.tensors) == set(SHAPES) | set(POINTS)
    for name, tensor in sample.tensors.items():
        assert tensor.dtype == torch.float32, name
        assert tensor.isfinite().all(), name
    assert {name: tuple(sample.tensors[name].shape) for name in SHAPES} == SHAPES
    for name, width in POINTS.items():
        assert sample.tensors[name].shape[1] == width
        assert len(sample.tensors[name]) > 50
    assert len(sample.tensors["radar_xyz"]) == len(sample.tensors["radar_features"])
    assert sample.tensors["images"].min() == -0.5
    assert sample.tensors["images"].max() == 0.5
    assert sample.tensors["segmentation"].sum() > 0
    assert sample.tensors["valid"].min() == 0


@pytest.mark.parametrize(
    ("modalities", "points"),
    [
        (("camera",), set()),
        (("camera", "radar"), {"radar_xyz", "radar_features"}),
        (("camera", "lidar"), {"lidar_xyz"}),
    ],
)
def test_points_only_of_the_modalities(
    tiny_root: Path, modalities: tuple[str, ...], points: set[str]
) -> None:
    samples = open_samples(tiny_root, modalities=modalities)
    assert set(samples[0].tensors) == set(SHAPES) | points


def test_split_of_other_scenes(tiny_root: Path) -> None:
    samples = open_samples(tiny_root, split="mini_train")
    assert samples.scene_names == ["scene-0061"]
    assert len(samples.absent_scenes) == 7
    assert "scene-0553" in samples.absent_scenes


def test_collate(samples: NuScenesSamples) -> None:
    pair = [samples[0], samples[3]]
    batch = collate(pair)
    for name, shape in SHAPES.items():
        value = batch[name]
        assert isinstance(value, torch.Tensor)
        assert tuple(value.shape) == (2, *shape)
        assert torch.equal(value[1], pair[1].tensors[name])
    for name in POINTS:
        value = batch[name]
        assert isinstance(value, list)
        assert [len(points) for points in value] == [len(s.tensors[name]) for s in pair]


def test_collate_refuses_what_does_not_fit(tiny_root: Path, samples: NuScenesSamples) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        collate([])
    other = open_samples(tiny_root, modalities=("camera",))[1]
    with pytest.raises(ValueError, match=other.token):
        collate([samples[0], other])


def test_pickles_small_and_equal(samples: NuScenesSamples) -> None:
    content = pickle.dumps(samples)
    assert len(content) < 100_000
    again: NuScenesSamples = pickle.loads(content)
    assert again.tokens == samples.tokens
    assert_same(again[1], samples[1])


def test_loader_workers_give_the_same_samples(samples: NuScenesSamples) -> None:
    loader = DataLoader(samples, batch_size=None, num_workers=1, collate_fn=lambda sample: sample)
    for i, sample in enumerate(loader):
        assert_same(sample, samples[i])


def assert_same(left: Sample, right: Sample) -> None:
    assert (left.token, left.scene) == (right.token, right.scene)
    assert all(torch.equal(left.tensors[name], right.tensors[name]) for name in right.tensors)


def test_missing_files_are_counted(broken_root: Path) -> None:
    samples = open_samples(broken_root)
    assert samples.missing_files() == dict.fromkeys(samples.missing_files(), 0)
    assert len(samples.missing_files()) == 6 + 5 + 1
    shutil.rmtree(broken_root / "sweeps" / "RADAR_FRONT")
    next((broken_root / "samples" / "CAM_BACK").glob("scene-0103*")).unlink()
    next((broken_root / "samples" / "CAM_BACK").glob("scene-0061*")).unlink()  # another split's
    counts = samples.missing_files()
    assert {channel: count for channel, count in counts.items() if count} == {
        "RADAR_FRONT": 6,  # of either scene: one sweep before the first sample, two the second
        "CAM_BACK": 1,
    }
    without_sweeps = open_samples(broken_root, nsweeps=1, modalities=("camera", "radar"))
    assert without_sweeps.missing_files()["RADAR_FRONT"] == 0
    assert "LIDAR_TOP" not in without_sweeps.missing_files()


@pytest.mark.parametrize("channel", ["CAM_BACK", "RADAR_BACK_RIGHT", "LIDAR_TOP"])
@pytest.mark.parametrize("truncated", [False, True])
def test_unusable_files_name_file_and_sample(
    broken_root: Path, channel: str, truncated: bool
) -> None:
    samples = open_samples(broken_root)
    path = broken_root / dict(samples._frames())[channel].filename
    path.write_bytes(path.read_bytes()[:-101]) if truncated else path.unlink()
    with pytest.raises(DataError) as caught:
        samples[3]
    expected = "truncated" if truncated else "file not found"
    assert f"{path}: {expected}" in str(caught.value)
    assert str(caught.value).endswith(f"(needed by sample {samples.tokens[3]})")
    assert (caught.value.path, caught.value.token) == (str(path), samples.tokens[3])
    assert samples[0].token == samples.tokens[0]  # the others can be loaded


def test_unknown_token_says_how_to_list(samples: NuScenesSamples) -> None:
    with pytest.raises(DataError, match="lmd samples --config") as caught:
        samples.index_of("nonesuch")
    assert "sample nonesuch is not in split mini_val of v1.0-mini" in str(caught.value)
    assert caught.value.token == "nonesuch"


def test_index_out_of_range(samples: NuScenesSamples) -> None:
    with pytest.raises(IndexError):
        samples[4]


def test_data_root_not_found(tiny_root: Path, tmp_path: Path) -> None:
    (tmp_path / "nuscenes").mkdir()
    with pytest.raises(DataError) as caught:
        open_samples(tmp_path / "nuscnes")
    assert str(caught.value) == (
        f"data root {tmp_path / 'nuscnes'} not found; {tmp_path} holds nuscenes"
    )
    with pytest.raises(DataError, match=r"nor does .*/no exist"):
        open_samples(tmp_path / "no" / "such")


def test_version_not_found(tiny_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_samples(tiny_root, version="v1.0-trainval")
    assert str(caught.value) == (
        f"version v1.0-trainval not found in {tiny_root}; versions there: v1.0-mini"
    )
    with pytest.raises(DataError, match="holds nothing"):
        open_samples(tmp_path)
    for i in range(12):
        (tmp_path / f"folder{i:02}").mkdir()
    with pytest.raises(DataError, match=r"folder00, .*, folder09 and 2 more"):
        open_samples(tmp_path)


def test_split_not_found(tiny_root: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_samples(tiny_root, split="mini_vall")
    message = str(caught.value)
    assert message.startswith("split mini_vall not found (did you mean mini_val?); splits: ")
    assert "mini_train" in message


def test_split_without_a_scene_in_the_version(tiny_root: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_samples(tiny_root, split="test")
    message = str(caught.value)
    assert message.startswith("no scene of split test is in version v1.0-mini, whose 3 scenes ")
    assert "mini_train" in message
    assert "mini_val" in message


def test_tables_that_cannot_be_read(broken_root: Path) -> None:
    table = broken_root / VERSION / "sample_data.json"
    content = table.read_text()
    table.write_text(content[:-100])
    with pytest.raises(DataError, match=r"sample_data\.json cannot be read as a table"):
        open_samples(broken_root)
    table.unlink()
    with pytest.raises(DataError, match=r"sample_data\.json: file not found"):
        open_samples(broken_root)


def test_what_no_sample_needs_may_be_missing_or_half_unpacked(
    broken_root: Path, samples: NuScenesSamples
) -> None:
    (broken_root / "maps" / "blank.png").unlink()
    for table in ("map", "log", "attribute", "visibility"):
        (broken_root / VERSION / f"{table}.json").unlink()
    (broken_root / VERSION / "lidarseg.json").write_text('[{"token": "of no file"}]')
    assert_same(open_samples(broken_root)[0], samples[0])


def test_sample_without_a_channel(broken_root: Path) -> None:
    table = broken_root / VERSION / "sample_data.json"
    rows = json.loads(table.read_text())
    table.write_text(json.dumps([row for row in rows if "RADAR_FRONT_LEFT" not in row["token"]]))
    some = open_samples(broken_root)
    assert some.left_out == ["RADAR_FRONT_LEFT"]
    assert list(some._records[0].radars) == [r for r in RADARS if r != "RADAR_FRONT_LEFT"]
    with pytest.raises(DataError) as caught:
        open_samples(broken_root, channels=Channels(radars=RADARS))
    assert "the tables have no radar RADAR_FRONT_LEFT" in str(caught.value)
    assert "RADAR_FRONT (radar)" in str(caught.value)
    assert open_samples(broken_root, modalities=("camera", "lidar")).left_out == []


def test_a_channel_that_one_sample_lacks_is_an_error(broken_root: Path) -> None:
    table = broken_root / VERSION / "sample_data.json"
    rows = json.loads(table.read_text())
    lost = "scene-0916-RADAR_FRONT_LEFT-1"
    kept = [{**row, "prev": ""} if row["prev"] == lost else row for row in rows]
    table.write_text(json.dumps([row for row in kept if row["token"] != lost]))
    samples = open_samples(broken_root)
    assert samples[1].token
    with pytest.raises(DataError, match="no key frame of RADAR_FRONT_LEFT") as caught:
        samples[0]
    assert caught.value.token == "scene-0916-sample0"


def test_bad_arguments(tiny_root: Path) -> None:
    with pytest.raises(ValueError, match="unknown modality 'sonar'; there are camera, radar"):
        open_samples(tiny_root, modalities=("camera", "sonar"))
    with pytest.raises(ValueError, match="nsweeps must be at least 1, not 0"):
        open_samples(tiny_root, nsweeps=0)
