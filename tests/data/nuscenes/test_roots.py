"""Data sets that are not exactly nuScenes: elsewhere, of other splits, without annotations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from lmd_cli.data import KeyframeSamples, NuScenesSamples
from lmd_cli.errors import DataError
from lmd_cli.runtime.progress import Silent
from lmd_cli.workflows.check_data import Checks, check_contents, check_files, check_tables
from tests.support.tiny_nuscenes import VERSION, open_samples


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_root, tmp_path / "data" / "root"))


def edit(root: Path, table: str, change) -> None:
    path = root / VERSION / f"{table}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


# -- where it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "root/v1.0-mini", "root/samples", "root/samples/CAM_BACK"])
def test_a_folder_too_high_or_too_low_says_which_to_give(root: Path, given: str) -> None:
    with pytest.raises(DataError) as caught:
        open_samples(root.parent / given)
    assert f"but in {root}: give {root} as --dataroot" in str(caught.value)


def test_archives_in_folders_of_their_own_are_found(root: Path) -> None:
    (root.parent / "blobs").mkdir()
    for name in ("samples", "sweeps"):
        (root / name).rename(root.parent / "blobs" / name)
    with pytest.raises(DataError, match=r"give .*root as --dataroot"):
        open_samples(root.parent / "blobs")
    samples = open_samples(root)
    said = f"but in {root.parent / 'blobs'}: put the folders samples and sweeps of all archives"
    with pytest.raises(DataError) as caught:
        samples[0]
    assert said in str(caught.value)
    assert said in samples.missing_hint()


def test_key_frames_alone_need_no_sweeps(root: Path) -> None:
    shutil.rmtree(root / "sweeps")
    assert not any(open_samples(root, nsweeps=1).missing_files().values())
    with pytest.raises(DataError, match=r"no sweeps, which .* \(data.nsweeps=1 needs none\)"):
        open_samples(root, nsweeps=3)[0]


# -- splits -----------------------------------------------------------------------------------


def test_splits_of_ones_own(root: Path) -> None:
    own = root / VERSION / "splits.json"
    own.write_text(json.dumps({"garage": ["scene-0061", "scene-7"], "val": ["scene-0061"]}))
    samples = open_samples(root, split="garage")
    assert samples.scene_names == ["scene-0061"]
    assert samples.absent_scenes == ["scene-7"]
    own.write_text(json.dumps({"garage": ["scene-0103"], "test": ["scene-0061"]}))
    assert open_samples(root, split="garage").scene_names == ["scene-0103"]
    with pytest.raises(DataError, match=r"split garaje not found \(did you mean garage\?\)"):
        open_samples(root, split="garaje")
    with pytest.raises(DataError, match="no scene of split test"):  # nuScenes' own, as the devkit
        open_samples(root, split="test")


def test_a_list_of_scenes_is_a_split(root: Path) -> None:
    scenes = ("scene-0061", "scene-0916")
    assert sorted(open_samples(root, split=scenes).scene_names) == sorted(scenes)
    with pytest.raises(DataError, match=r"no scene of split of 1 scenes is in version v1\.0-mini"):
        open_samples(root, split=("scene-9999",))


@pytest.mark.parametrize("content", ["{", "[]", '{"garage": "scene-0103"}', '{"garage": [3]}'])
def test_splits_that_are_none_are_named(root: Path, content: str) -> None:
    (root / VERSION / "splits.json").write_text(content)
    with pytest.raises(DataError, match=r"splits\.json"):
        open_samples(root, split="garage")


# -- annotations --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["empty", "absent"])
def test_without_annotations_all_but_the_truth_is_there(
    root: Path, samples: NuScenesSamples, how: str
) -> None:
    for table in ("sample_annotation", "instance", "category", "visibility"):
        path = root / VERSION / f"{table}.json"
        path.unlink() if how == "absent" else path.write_text("[]")
    actual = open_samples(root)
    assert not actual.annotated
    assert samples.annotated
    left = {name for name in samples[0].tensors if name not in actual[0].tensors}
    assert left == {"segmentation", "valid", "center", "offset"}
    assert actual.boxes(0) == []
    crn = KeyframeSamples(root, VERSION, "mini_val", image_size=(32, 88))
    assert "cars" not in crn[0].tensors


def test_annotations_without_visibility_count_as_seen(root: Path, samples: NuScenesSamples) -> None:
    edit(root, "sample_annotation", lambda rows: [{**r, "visibility_token": ""} for r in rows])
    actual = open_samples(root)
    assert {box.visibility for box in actual.boxes(0)} == {0}
    assert bool(actual[0].tensors["valid"].all())
    assert torch.equal(actual[0].tensors["segmentation"], samples[0].tensors["segmentation"])


# -- what lmd check finds -------------------------------------------------------------------------


def test_check_finds_every_record_and_every_file(root: Path) -> None:
    def spoil(rows: list[dict]) -> list[dict]:
        bad = [f"pose-scene-0103-RADAR_FRONT-{step}" for step in (1, 4)]
        return [{**r, "rotation": [0, 0, 0, 0]} if r["token"] in bad else r for r in rows]

    edit(root, "ego_pose", spoil)
    images = sorted((root / "samples" / "CAM_BACK").glob("scene-0916*"))
    images[0].write_bytes(b"")
    images[1].write_bytes(images[1].read_bytes()[:900])
    actual, samples = Checks(), open_samples(root)
    check_tables(actual, samples)
    check_files(actual, samples)
    check_contents(actual, samples, Silent())
    said = {check.name: check for check in actual.checks}
    assert [check.status for check in actual.checks] == ["FAIL", "ok", "FAIL", "FAIL"]
    for step in (1, 4):
        record = f"ego_pose.json, record pose-scene-0103-RADAR_FRONT-{step}: rotation"
        assert record in said["tables"].detail
    assert said["empty files"].detail == images[0].relative_to(root).as_posix()
    assert f"{images[0]}: truncated: the file is empty" in said["file contents"].detail
    assert f"{images[1]}: truncated or not an image" in said["file contents"].detail


def test_check_is_content_with_a_whole_root(samples: NuScenesSamples) -> None:
    actual = Checks()
    check_tables(actual, samples)
    check_files(actual, samples)
    check_contents(actual, samples, Silent())
    assert actual.ok
    count = sum(map(len, samples.needed_files().values()))
    assert actual.checks[-1].detail == f"all {count} files are readable"


def test_a_data_root_of_any_length_is_not_found() -> None:
    with pytest.raises(DataError, match=f"data root {'a' * 5000} not found"):
        open_samples(Path("a" * 5000))
