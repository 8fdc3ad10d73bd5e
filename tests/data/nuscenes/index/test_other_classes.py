"""Annotations that are no vehicles: which the index keeps, and who stumbles over broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes

from lmd_cli.data import KeyframeSamples
from lmd_cli.data.content import index_sha256
from lmd_cli.data.nuscenes.database import BICYCLE_RACK, DETECTION_CLASSES, Annotation
from lmd_cli.data.nuscenes.index import cache, open_index
from lmd_cli.errors import DataError
from tests.support.tiny_nuscenes import VERSION, open_samples

PEDESTRIAN = "human.pedestrian.adult"
#: nuScenes' categories that are no vehicles.
CATEGORIES = (
    *("animal", "flat.driveable_surface", "human.pedestrian.adult", "human.pedestrian.child"),
    *("human.pedestrian.construction_worker", "human.pedestrian.personal_mobility"),
    *("human.pedestrian.police_officer", "human.pedestrian.stroller"),
    *("human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris"),
    *("movable_object.pushable_pullable", "movable_object.trafficcone", BICYCLE_RACK),
)


def edit(root: Path, table: str, change: Any) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def keyframes(root: Path) -> KeyframeSamples:
    return KeyframeSamples(root, VERSION, "mini_val", image_size=(32, 88), radar_slots=128)


def test_detection_classes_are_the_devkits() -> None:
    vehicles = [name for name in DETECTION_CLASSES if name.startswith("vehicle")]
    vehicles += ["vehicle.emergency.ambulance", "vehicle.emergency.police", "vehicle.ego"]
    named = {name: category_to_detection_name(name) for name in (*vehicles, *CATEGORIES)}
    assert {name: value for name, value in named.items() if value} == DETECTION_CLASSES
    assert len(set(DETECTION_CLASSES.values())) == 10


def oracle(db: NuScenes, token: str) -> tuple[Annotation, ...]:
    boxes = [db.get("sample_annotation", name) for name in db.get("sample", token)["anns"]]
    return tuple(
        Annotation(
            *(box["token"], box["category_name"], int(box["visibility_token"])),
            *(box["translation"], box["rotation"], list(box["size"])),
            *(box["num_lidar_pts"], box["num_radar_pts"], db.box_velocity(box["token"]).tolist()),
            instance=box["instance_token"],
        )
        for box in boxes
        if "vehicle" not in box["category_name"]
    )


@pytest.mark.parametrize("which", ["tiny", "drive"])
def test_the_others_are_the_devkits(request: pytest.FixtureRequest, which: str) -> None:
    root = request.getfixturevalue(f"{which}_root")
    db = request.getfixturevalue({"tiny": "devkit", "drive": "drive_devkit"}[which])
    index = open_index(root, VERSION, "mini_val")
    every = [index.others(i) for i in range(len(index))]
    # As text, since an unknown velocity is NaN; repr gives every digit.
    assert repr(every) == repr([oracle(db, token) for token in index.tokens()])
    assert {one.category for some in every for one in some} == {PEDESTRIAN}


@pytest.mark.parametrize("category", CATEGORIES)
def test_which_others_are_kept(own_root: Path, category: str) -> None:
    def rename(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["name"] == PEDESTRIAN)["name"] = category

    edit(own_root, "category", rename)
    kept = [one.category for one in open_index(own_root, VERSION, "mini_val").others(0)]
    wanted = category_to_detection_name(category) is not None or category == BICYCLE_RACK
    assert kept == ([category] if wanted else [])


def test_boxes_of_a_detection_network_have_all_classes(drive: KeyframeSamples) -> None:
    vehicles = drive.boxes_on_map(3)
    every = drive.boxes_on_map(3, drive.annotations(3))
    assert [box.token for box in every[: len(vehicles)]] == [box.token for box in vehicles]
    assert {box.category for box in every[len(vehicles) :]} == {PEDESTRIAN}
    names = {box.name for box in drive.boxes(3, drive.annotations(3)[len(vehicles) :])}
    assert names == {"pedestrian"}


def test_a_broken_pedestrian_is_named_to_those_who_need_it(own_root: Path) -> None:
    def flatten(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["token"] == "scene-0916-sample1-box2")["size"] = [0, 1, 1]

    edit(own_root, "sample_annotation", flatten)
    simple, crn = open_samples(own_root), keyframes(own_root)
    for dataset in (simple, crn):
        dataset.require_records()
        index = dataset.index_of("scene-0916-sample1")
        assert len(dataset.boxes(index)) == len(dataset.boxes(0)) == 4
    assert len(simple.annotations(index)) == 4
    assert len(crn.annotations(0)) == 5
    said = "v1.0-mini/sample_annotation.json, record scene-0916-sample1-box2: size is"
    for need in (lambda: crn.annotations(index), lambda: crn.require_annotations()):
        with pytest.raises(DataError) as caught:
            need()
        assert said in str(caught.value)
        assert "(needed by sample scene-0916-sample1)" in str(caught.value)


def test_runs_that_read_no_others_do_not_depend_on_them(own_root: Path) -> None:
    def grow(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["token"] == "scene-0916-sample1-box2")["size"] = [1, 1, 1]

    before = [index_sha256(keyframes(own_root), others=others) for others in (False, True)]
    edit(own_root, "sample_annotation", grow)
    after = [index_sha256(keyframes(own_root), others=others) for others in (False, True)]
    assert before[0] == after[0]
    assert len({before[0], before[1], after[1]}) == 3


def test_an_index_of_an_earlier_format_is_made_again(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(cache, "FORMAT", 3)
        before = open_index(tiny_root, VERSION, "mini_val").path
    now = open_index(tiny_root, VERSION, "mini_val")
    assert now.path != before
    assert len(now.others(0)) == 1
