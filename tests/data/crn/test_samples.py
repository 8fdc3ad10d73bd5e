"""CRN's dataset as a whole: key frames, contents, batches, and what it says of bad input."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nuscenes.nuscenes import NuScenes
from torch.utils.data import DataLoader

from lmd_cli.data import KeyframeSamples, Sample, collate
from lmd_cli.data.crn import samples as samples_module
from lmd_cli.data.crn.matrices import PERSPECTIVE_CAMERAS
from lmd_cli.errors import DataError
from tests.support.tiny_nuscenes import VERSION

SHAPES = {
    "imgs": (4, 6, 3, 32, 88),
    "sensor2ego_mats": (4, 6, 4, 4),
    "intrin_mats": (4, 6, 4, 4),
    "ida_mats": (4, 6, 4, 4),
    "pts_pv": (4, 6, 128, 5),
    "bda_mat": (4, 4),
    "cars": (1, 128, 128),
    "vehicles": (1, 128, 128),
}


def open_drive(root: Path, **changes: Any) -> KeyframeSamples:
    settings: dict[str, Any] = {"image_size": (32, 88), "radar_slots": 128, **changes}
    return KeyframeSamples(root, VERSION, "mini_val", **settings)


@pytest.fixture
def broken_root(drive_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drive_root, tmp_path / "root"))


def assert_same(left: Sample, right: Sample) -> None:
    assert (left.token, left.scene) == (right.token, right.scene)
    assert list(left.tensors) == list(right.tensors)
    assert all(torch.equal(left.tensors[name], right.tensors[name]) for name in right.tensors)


def test_radar_points_in_the_images_are_those_that_the_network_takes(
    drive: KeyframeSamples, drive_root: Path
) -> None:
    rows = drive[7].tensors["pts_pv"][0].numpy()  # (6, P, 5), the current frame
    actual = drive.radar_in_images(7)
    assert list(actual) == list(PERSPECTIVE_CAMERAS)
    height, width = drive.image_size
    for camera, taken in zip(actual.values(), rows, strict=True):
        real = taken[(taken[:, 0] != -999) & (taken[:, 2] == 1)]  # not the made-up one
        np.testing.assert_array_equal(camera[:, [0, 2]], real[:, :2])
        assert ((camera[:, 1] > -1) & (camera[:, 1] < height)).all()
        assert ((camera[:, 0] > -1) & (camera[:, 0] < width)).all()
    assert sum(map(len, actual.values())) > 0
    assert open_drive(drive_root, modalities=["camera"]).radar_in_images(7) == {}


def test_contents(drive: KeyframeSamples) -> None:
    sample = drive[7]
    assert (sample.token, sample.scene) == (drive.tokens[7], drive.scenes[7])
    assert {name: tuple(tensor.shape) for name, tensor in sample.tensors.items()} == SHAPES
    for name, tensor in sample.tensors.items():
        assert tensor.dtype == torch.float32, name
        assert tensor.isfinite().all(), name
    assert torch.equal(sample.tensors["bda_mat"], torch.eye(4))
    taken = (sample.tensors["pts_pv"][..., 0] != -999).sum(dim=-1)  # (4, 6)
    assert taken.min() >= 1
    assert taken.sum() > 200


def test_order_and_names_are_those_of_the_split(
    drive: KeyframeSamples, drive_devkit: NuScenes
) -> None:
    rows = [drive_devkit.get("sample", token) for token in drive.tokens]
    keys = [(row["scene_token"], row["timestamp"]) for row in rows]
    assert keys == sorted(keys)
    assert len(drive) == 16
    assert len(drive.scene_names) == 2
    assert drive.absent_scenes == []
    assert [drive.index_of(token) for token in drive.tokens] == list(range(16))
    with pytest.raises(DataError, match="sample nonesuch is not in split mini_val"):
        drive.index_of("nonesuch")


def upstream_frames(drive: KeyframeSamples, index: int) -> list[int]:
    """CRN's rule, word for word."""
    frames = []
    for s in range(4):
        past = index - 2 * s
        while past < 0 or drive.scenes[past] != drive.scenes[index]:
            past += 1
        frames.append(past)
    return frames


def test_key_frames_a_second_apart(drive: KeyframeSamples) -> None:
    """The images are those of the frames as current ones; the first scene's and the second's."""
    current = [drive[i].tensors for i in range(len(drive))]
    for i, tensors in enumerate(current):
        for s, frame in enumerate(upstream_frames(drive, i)):
            for name in ("imgs", "intrin_mats", "ida_mats", "pts_pv"):
                assert torch.equal(tensors[name][s], current[frame][name][0]), (i, s, name)


def test_padded_counts_key_frames_before_the_scene(drive: KeyframeSamples) -> None:
    assert list(drive.padded) == drive.tokens
    assert list(drive.padded.values()) == 2 * [3, 3, 2, 2, 1, 1, 0, 0]
    assert upstream_frames(drive, 3) == [3, 1, 0, 0]
    assert upstream_frames(drive, 8) == [8, 8, 8, 8]


def test_one_key_frame_needs_no_padding(drive_root: Path) -> None:
    samples = open_drive(drive_root, key_frames=1)
    assert set(samples.padded.values()) == {0}
    assert samples[0].tensors["imgs"].shape == (1, 6, 3, 32, 88)


def test_every_file_is_read_once(drive_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a key frame stands in several times, or key frames share sweeps."""
    opened: Counter[Path] = Counter()

    def counted(read):  # type: ignore[no-untyped-def]
        def wrapper(path, *args, **kwargs):  # type: ignore[no-untyped-def]
            opened[path] += 1
            return read(path, *args, **kwargs)

        return wrapper

    for name in ("read_radar", "read_window"):
        monkeypatch.setattr(samples_module, name, counted(getattr(samples_module, name)))
    samples = open_drive(drive_root)
    for index, key_frames in ((0, 1), (7, 4)):
        opened.clear()
        samples[index]
        assert set(opened.values()) == {1}
        assert sum(path.suffix == ".jpg" for path in opened) == 6 * key_frames


def test_other_image_sizes(drive_root: Path) -> None:
    samples = open_drive(drive_root, image_size=(64, 176), key_frames=1)
    small, large = open_drive(drive_root, key_frames=1)[5].tensors, samples[5].tensors
    assert large["imgs"].shape == (1, 6, 3, 64, 176)
    torch.testing.assert_close(large["ida_mats"][..., :2, 0], 2 * small["ida_mats"][..., :2, 0])
    for name in ("sensor2ego_mats", "intrin_mats", "cars"):
        assert torch.equal(large[name], small[name])
    # As a whole the pictures agree: 17 of 49 rows are cut, and 34 of 98.
    halved = torch.nn.functional.avg_pool2d(large["imgs"][0], 2)
    assert (halved - small["imgs"][0]).abs().mean() < 0.05
    assert (halved[:, :, 1:] - small["imgs"][0, :, :, :-1]).abs().mean() > 0.05


def test_camera_only(drive_root: Path) -> None:
    samples = open_drive(drive_root, modalities=("camera",))
    assert set(samples[0].tensors) == set(SHAPES) - {"pts_pv"}
    assert set(samples.missing_files()) == set(PERSPECTIVE_CAMERAS)


def test_collate_stacks_everything(drive: KeyframeSamples) -> None:
    pair = [drive[0], drive[9]]
    batch = collate(pair)
    for name, shape in SHAPES.items():
        value = batch[name]
        assert isinstance(value, torch.Tensor)
        assert tuple(value.shape) == (2, *shape)
        assert torch.equal(value[1], pair[1].tensors[name])


def test_pickles_small_and_equal(drive: KeyframeSamples) -> None:
    content = pickle.dumps(drive)
    # Records of key frames are shared: four key frames are no larger than one.
    assert len(content) < 1.01 * len(pickle.dumps(open_drive(drive.dataroot, key_frames=1)))
    assert len(content) < 16 * 20_000
    again: KeyframeSamples = pickle.loads(content)
    assert again.padded == drive.padded
    assert_same(again[9], drive[9])


def test_the_same_in_every_process_and_run(drive: KeyframeSamples) -> None:
    loader = DataLoader(drive, batch_size=None, num_workers=1, collate_fn=lambda sample: sample)
    for i, sample in enumerate(loader):
        torch.manual_seed(i)
        np.random.seed(i)
        assert_same(sample, drive[i])


def test_slots_that_do_not_suffice_are_filled_the_same_in_every_run(drive_root: Path) -> None:
    few, many = open_drive(drive_root, radar_slots=5), open_drive(drive_root)
    assert (many[7].tensors["pts_pv"][..., 5, 0] != -999).any()
    for seed in range(2):
        np.random.seed(seed)
        assert torch.equal(few[7].tensors["pts_pv"], many[7].tensors["pts_pv"][..., :5, :])


def test_missing_files_are_counted(broken_root: Path) -> None:
    samples = open_drive(broken_root)
    assert set(samples.missing_files().values()) == {0}
    assert len(samples.missing_files()) == 6 + 5
    shutil.rmtree(broken_root / "samples" / "LIDAR_TOP")  # not read
    next((broken_root / "samples" / "CAM_BACK").iterdir()).unlink()
    next((broken_root / "sweeps" / "RADAR_FRONT").iterdir()).unlink()
    lacking = {channel: n for channel, n in samples.missing_files().items() if n}
    assert lacking == {"CAM_BACK": 1, "RADAR_FRONT": 1}
    assert samples.boxes(0)


@pytest.mark.parametrize("channel", ["CAM_BACK", "RADAR_BACK_RIGHT"])
@pytest.mark.parametrize("frame", [7, 1])
@pytest.mark.parametrize("truncated", [False, True])
def test_unusable_files_name_file_and_sample(
    broken_root: Path, channel: str, frame: int, truncated: bool
) -> None:
    """Of the current key frame and of the oldest one, six before it."""
    samples = open_drive(broken_root)
    path = broken_root / dict(samples._opened(samples._records[frame]))[channel].filename
    path.write_bytes(path.read_bytes()[:-101]) if truncated else path.unlink()
    with pytest.raises(DataError) as caught:
        samples[7]
    expected = "truncated" if truncated else "file not found"
    assert f"{path}: {expected}" in str(caught.value)
    assert str(caught.value).endswith(f"(needed by sample {samples.tokens[7]})")
    assert (caught.value.path, caught.value.token) == (str(path), samples.tokens[7])
    assert samples[8].token == samples.tokens[8]  # the others can be loaded


def test_index_from_the_end_and_out_of_range(drive: KeyframeSamples) -> None:
    assert_same(drive[-1], drive[15])
    with pytest.raises(IndexError):
        drive[16]


def test_bad_arguments(drive_root: Path) -> None:
    with pytest.raises(ValueError, match="unknown modality 'lidar'; there are camera, radar"):
        open_drive(drive_root, modalities=("camera", "lidar"))
    with pytest.raises(ValueError, match="key_frames must be at least 1, not 0"):
        open_drive(drive_root, key_frames=0)
    with pytest.raises(ValueError, match="radar_slots must be at least 1, not 0"):
        open_drive(drive_root, radar_slots=0)
