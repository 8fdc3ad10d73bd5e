"""The index of a split against the devkit, and everything that can happen to its file."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from nuscenes.nuscenes import NuScenes

from lmd_cli.data import KeyframeSamples
from lmd_cli.data.nuscenes.database import (
    CAMERAS,
    LIDAR,
    RADARS,
    Annotation,
    SampleRecord,
    SensorFrame,
)
from lmd_cli.data.nuscenes.index import open_index
from lmd_cli.data.nuscenes.index.cache import index_path
from tests.support.tiny_nuscenes import VERSION, open_samples


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "indexes").iterdir())


def edit(root: Path, table: str, change: Any) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(change(rows) or rows))


# -- what it holds ------------------------------------------------------------------------


def oracle(db: NuScenes, token: str, radar_sweeps: int, lidar_sweeps: int) -> SampleRecord:
    """The record from the devkit's own tables, one look-up at a time."""

    def frame(row: dict) -> SensorFrame:
        pose = db.get("ego_pose", row["ego_pose_token"])
        sensor = db.get("calibrated_sensor", row["calibrated_sensor_token"])
        return SensorFrame(
            *(row["filename"], row["timestamp"], pose["translation"], pose["rotation"]),
            *(sensor["translation"], sensor["rotation"], sensor["camera_intrinsic"]),
            *(row["width"], row["height"]),
        )

    def chain(channel: str, count: int) -> tuple[SensorFrame, ...]:
        actual, at = [], sample["data"][channel]
        while at and len(actual) < count:
            row = db.get("sample_data", at)
            actual.append(frame(row))
            at = row["prev"]
        return tuple(actual)

    sample = db.get("sample", token)
    scene = db.get("scene", sample["scene_token"])
    boxes = [db.get("sample_annotation", name) for name in sample["anns"]]
    vehicles = tuple(
        Annotation(
            *(box["token"], box["category_name"], int(box["visibility_token"])),
            *(box["translation"], box["rotation"], list(box["size"])),
            *(box["num_lidar_pts"], box["num_radar_pts"], db.box_velocity(box["token"]).tolist()),
            instance=box["instance_token"],
        )
        for box in boxes
        if "vehicle" in box["category_name"]
    )
    cameras = tuple(chain(camera, 1)[0] for camera in CAMERAS)
    radars = {radar: chain(radar, radar_sweeps) for radar in RADARS} if radar_sweeps else {}
    lidar = chain(LIDAR, lidar_sweeps)
    return SampleRecord(
        token, scene["name"], cameras, radars, {LIDAR: lidar}, vehicles, scene["description"]
    )


@pytest.mark.parametrize("sweeps", [(0, 1), (1, 3), (99, 99)])
@pytest.mark.parametrize("which", ["tiny", "drive"])
def test_records_are_the_devkits(request, which: str, sweeps: tuple[int, int]) -> None:
    root = request.getfixturevalue(f"{which}_root")
    db = request.getfixturevalue({"tiny": "devkit", "drive": "drive_devkit"}[which])
    index = open_index(root, VERSION, "mini_val")
    assert len(index) == {"tiny": 4, "drive": 16}[which]
    for i, token in enumerate(index.tokens()):
        # As text, since an unknown velocity is NaN; repr gives every digit.
        assert repr(index.record(i, *sweeps)) == repr(oracle(db, token, *sweeps))
    speeds = [
        vehicle.speed for i in range(len(index)) for vehicle in index.record(i, 0, 1).vehicles
    ]
    assert speeds
    assert which == "tiny" or any(math.isfinite(speed) and speed > 1 for speed in speeds)


def test_one_file_serves_any_sweeps_and_modalities(tiny_root: Path, cache: Path) -> None:
    for nsweeps, modalities in ((1, ("camera",)), (3, ("camera", "radar")), (9, ("lidar",))):
        open_samples(tiny_root, nsweeps=nsweeps, modalities=modalities)
    KeyframeSamples(tiny_root, VERSION, "mini_val", image_size=(32, 88))
    assert len(files(cache)) == 1
    open_samples(tiny_root, split="mini_train")
    assert len(files(cache)) == 2


@pytest.mark.parametrize("nothing", ["kept", "in memory"])
def test_a_pickled_dataset_is_small_and_the_same(
    drive_root: Path, cache: Path, nothing: str
) -> None:
    if nothing == "in memory":
        cache.write_text("a file where the folder should be")
    dataset = KeyframeSamples(drive_root, VERSION, "mini_val", image_size=(32, 88))
    assert dataset.padded[dataset.tokens[0]] == 3
    pickled = pickle.dumps(dataset)
    copy = pickle.loads(pickled)
    assert (copy.tokens, copy.padded) == (dataset.tokens, dataset.padded)
    assert repr(copy._records[5]) == repr(dataset._records[5])
    if nothing == "kept":
        assert len(pickled) < 2000
        assert not dataset._records.split.arrays["frames"].flags.writeable


def test_later_processes_and_workers_never_import_the_devkit(drive_root: Path) -> None:
    program = """
import sys
import lmd_cli.assembly.build
from lmd_cli.data import KeyframeSamples, NuScenesSamples, read_ahead
from lmd_cli.geometry import Grid
where = (sys.argv[1], "v1.0-mini", "mini_val")
options = dict(modalities=("camera", "radar", "lidar"), nsweeps=2, image_size=(32, 56))
simple = NuScenesSamples(*where, grid=Grid((8, 8, 8)), **options)
crn = KeyframeSamples(*where, image_size=(32, 88))
def looked(samples):
    return {"devkit": "nuscenes" in sys.modules}
for data in (simple, crn):
    with read_ahead(data, looked, [1, 0], 2) as read:
        print(read(1).batch, read(0).batch)
    assert len(data.boxes(0)) == len(data.boxes_on_map(0))
    assert not any(data.missing_files().values())
print("nuscenes" in sys.modules)
"""
    open_index(drive_root, VERSION, "mini_val")
    command = [sys.executable, "-c", program, str(drive_root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    each = "{'devkit': False} {'devkit': False}\n"
    assert done.stdout == each + each + "False\n"


# -- its file -----------------------------------------------------------------------------


def test_changed_tables_are_read_again(own_root: Path) -> None:
    assert open_samples(own_root).descriptions[0] == ""

    def describe(rows: list[dict]) -> None:
        rows[1]["description"] = "Night, rain"

    edit(own_root, "scene", describe)
    assert open_samples(own_root).descriptions[0] == "Night, rain"


def test_the_same_tables_elsewhere_or_touched_are_others(own_root: Path) -> None:
    before = index_path(own_root, VERSION, "mini_val")
    assert index_path(own_root, VERSION, "mini_val") == before
    assert index_path(own_root, VERSION, "mini_train") != before
    os.utime(own_root / VERSION / "ego_pose.json", ns=(1, 1))
    assert index_path(own_root, VERSION, "mini_val") != before


def test_a_link_to_a_root_shares_its_index(own_root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own_root)
    actual = [index_path(root, VERSION, "val") for root in (own_root, tmp_path / "link")]
    assert actual[0] == actual[1]


def test_an_index_is_made_once_and_says_how_far_it_is(tiny_root: Path) -> None:
    steps: list[tuple[int, int]] = []
    for _ in range(2):
        open_samples(tiny_root, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]


DAMAGE = {
    "empty": lambda content: b"",
    "cut in the middle": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "zeros at the front": lambda content: bytes(900) + content[900:],
    "one bit": lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
    "another file": lambda content: b"something else " * 99,
    "a bit of the header": lambda content: content[:-100] + b"#" + content[-99:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_made_again(tiny_root: Path, damage: str, caplog) -> None:
    path = index_path(tiny_root, VERSION, "mini_val")
    before = open_samples(tiny_root)._records[:]
    content = path.read_bytes()
    path.write_bytes(DAMAGE[damage](content))
    assert repr(open_samples(tiny_root)._records[:]) == repr(before)
    assert path.read_bytes() == content
    assert f"{path} is damaged" in caplog.text


@pytest.mark.parametrize("fault", ["no folder", "full disk"])
def test_without_a_cache_folder_the_index_stays_in_memory(
    tiny_root: Path, cache: Path, fault: str, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    expected = open_samples(tiny_root)[1]
    shutil.rmtree(cache)
    if fault == "no folder":
        cache.write_text("a file where the folder should be")
    else:
        monkeypatch.setattr("os.fsync", _full)
    actual = open_samples(tiny_root)
    assert actual._records.split.path is None
    assert all((actual[1].tensors[name] == value).all() for name, value in expected.tensors.items())
    assert "stays in memory" in caplog.text
    assert "set LMD_CACHE to a folder that can be written" in caplog.text
    if fault == "full disk":
        assert "No space left on device" in caplog.text
        assert files(cache) == []  # nothing half-written, no lock


def _full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open_and_note(root: Path, notes: Path) -> None:
    def note(done: int, total: int) -> None:
        with open(notes, "a") as file:
            file.write(f"{done}\n")

    assert len(open_samples(root, progress=note)) == 4


def test_of_several_processes_one_makes_the_index(
    tiny_root: Path, tmp_path: Path, cache: Path
) -> None:
    fork = multiprocessing.get_context("fork")
    notes = tmp_path / "notes"
    racers = [fork.Process(target=_open_and_note, args=(tiny_root, notes)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert notes.read_text().split() == ["0", "1", "2", "3"]
    assert files(cache) == [index_path(tiny_root, VERSION, "mini_val").name]


def test_waiting_for_another_process_is_said(tiny_root: Path, caplog) -> None:
    path = index_path(tiny_root, VERSION, "mini_val")
    path.parent.mkdir(parents=True)
    with open(path.with_name(f".{path.name}.lock"), "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        release = threading.Timer(0.3, fcntl.flock, (other, fcntl.LOCK_UN))
        release.start()
        assert len(open_samples(tiny_root)) == 4
        release.join()
    assert f"waiting for another process that makes {path.name}" in caplog.text


def test_indexes_that_nobody_opens_are_removed(tiny_root: Path, cache: Path) -> None:
    open_samples(tiny_root)
    path = index_path(tiny_root, VERSION, "mini_val")
    os.utime(path, (1e9, 1e9))
    open_samples(tiny_root)  # in use again
    open_samples(tiny_root, split="mini_train")
    assert len(files(cache)) == 2
    os.utime(path, (1e9, 1e9))
    index_path(tiny_root, VERSION, "mini_train").unlink()
    open_samples(tiny_root, split="mini_train")
    assert files(cache) == [index_path(tiny_root, VERSION, "mini_train").name]
