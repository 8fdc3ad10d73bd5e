"""Tables that cannot be right: table, record and field are named, by those who need them."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest

from lmd_cli.data import KeyframeSamples, NuScenesSamples
from lmd_cli.errors import DataError
from tests.support.tiny_nuscenes import VERSION, open_samples


def edit(root: Path, table: str, change: Any) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(change(rows) or rows))


@pytest.mark.parametrize("kind", ["simplebev", "crn"])
@pytest.mark.parametrize("size", [(0, 160), (90, 0), (-1, 160)])
def test_an_image_without_a_size_is_an_error(
    own_root: Path, kind: str, size: tuple[int, int]
) -> None:
    name = "samples/CAM_BACK/scene-0916-CAM_BACK-4.jpg"

    def resize(rows: list[dict]) -> None:
        for row in rows:
            if row["filename"] == name:
                row["height"], row["width"] = size

    edit(own_root, "sample_data", resize)
    dataset: NuScenesSamples | KeyframeSamples = open_samples(own_root)
    if kind == "crn":
        dataset = KeyframeSamples(own_root, VERSION, "mini_val", image_size=(32, 88))
    assert dataset[0].token
    with pytest.raises(DataError) as caught:
        dataset[1]
    side, value = ("width", size[1]) if size[1] < 1 else ("height", size[0])
    record = "v1.0-mini/sample_data.json, record scene-0916-CAM_BACK-4"
    assert f"{record}: {side} is {value}; expected" in str(caught.value)
    assert "needed by sample scene-0916-sample1" in str(caught.value)


@pytest.mark.parametrize(
    ("table", "column", "value", "expected"),
    [
        ("ego_pose", "rotation", [1.0, 0.0, 0.0], "a quaternion (w, x, y, z) of length 1"),
        ("ego_pose", "rotation", [0, 0, 0, 0], "a quaternion (w, x, y, z) of length 1"),
        ("ego_pose", "translation", [math.nan] * 3, "3 finite numbers within 1e+08 m"),
        ("ego_pose", "translation", [0, 1e300, 0], "3 finite numbers within 1e+08 m"),
        ("calibrated_sensor", "translation", [0, 0, 2e3], "3 finite numbers within 1000 m"),
        ("calibrated_sensor", "rotation", [math.inf, 0, 0, 0], "a quaternion (w, x, y, z)"),
        ("calibrated_sensor", "camera_intrinsic", [], "3 rows of 3 finite numbers"),
        ("calibrated_sensor", "camera_intrinsic", [[0.0] * 3] * 3, "a matrix with an inverse"),
        ("calibrated_sensor", "camera_intrinsic", [[1, 2, 3]] * 3, "a matrix with an inverse"),
        ("calibrated_sensor", "camera_intrinsic", [[-9, 0, 8], [0, 9, 5], [0, 0, 1]], "above 0"),
        ("calibrated_sensor", "camera_intrinsic", [[0, 9, 8], [9, 0, 5], [0, 0, 1]], "above 0"),
        ("calibrated_sensor", "camera_intrinsic", [[9, 0, 8], [0, 9, 5], [0, 0, 2]], "[0, 0, 1]"),
        ("ego_pose", "translation", [True, False, True], "3 finite numbers"),
        ("ego_pose", "translation", ["1", "2", "3"], "3 finite numbers"),
        ("sample_data", "is_key_frame", "False", "true or false"),
        ("sample_data", "is_key_frame", 1, "true or false"),
        ("sample_data", "is_key_frame", None, "true or false"),
        ("sample_data", "prev", 5, "a text, which may be empty"),
        ("sample_data", "timestamp", "noon", "a whole number"),
        ("sample_data", "timestamp", "1531000000000000", "a whole number"),
        ("sample_data", "timestamp", True, "a whole number"),
        ("sample_data", "timestamp", 0.5, "a whole number"),
        ("sample_data", "timestamp", 2**63, "a whole number"),
        ("sample_data", "filename", None, "a text"),
        ("sample_data", "filename", "samples/a\0b", "a text"),
        ("sample_data", "filename", "samples/\ud800", "a text"),
        ("sample_annotation", "visibility_token", "all", "a whole number"),
        ("sample_annotation", "visibility_token", "٣", "a whole number"),
        ("sample_annotation", "visibility_token", ["4"], "a whole number"),
        ("sample_annotation", "num_lidar_pts", "5", "a whole number"),
        ("sample_annotation", "num_radar_pts", math.nan, "a whole number"),
        ("sample_annotation", "next", ["a"], "a text, which may be empty"),
        ("sample_annotation", "size", [1.9, -4.6, 1.6], "3 positive numbers"),
        ("sample_annotation", "translation", [1, 2, None], "3 finite numbers"),
        ("sample_annotation", "rotation", [0.0] * 4, "a quaternion"),
    ],
)
def test_values_of_another_kind_are_an_error(
    own_root: Path, table: str, column: str, value: Any, expected: str
) -> None:
    def spoil(rows: list[dict]) -> None:
        for row in rows:
            row[column] = value

    edit(own_root, table, spoil)
    samples = open_samples(own_root)
    with pytest.raises(DataError, match=r"\d+ more, which lmd check lists") as caught:
        samples.require_records()
    with pytest.raises(DataError) as one:
        samples[0]
    for error in (caught, one):
        assert f"v1.0-mini/{table}.json, record" in str(error.value)
        assert f": {column} is " in str(error.value)
        assert expected in str(error.value)
        assert f"(needed by sample {samples.tokens[0]})" in str(error.value)


def test_a_category_whose_name_is_no_text_is_told(own_root: Path) -> None:
    edit(own_root, "category", lambda rows: [{**row, "name": 5} for row in rows])
    with pytest.raises(DataError, match=r"category\.json, record \S+: name is 5; expected a text"):
        open_samples(own_root).require_records()


@pytest.mark.parametrize(
    ("table", "column", "value", "expected"),
    [
        ("sample", "timestamp", "noon", "a whole number from 0"),
        ("sample", "scene_token", ["a"], "a text"),
        ("sample", "token", "a\0b", "a text"),
        ("sample_data", "sample_token", None, "a text"),
        ("sample_annotation", "sample_token", {}, "a text"),
        ("scene", "description", ["night"], "a text, which may be empty"),
        ("sensor", "modality", None, "a text"),
    ],
)
def test_tables_that_cannot_be_attributed_are_refused(
    own_root: Path, table: str, column: str, value: Any, expected: str
) -> None:
    edit(own_root, table, lambda rows: [{**row, column: value} for row in rows])
    said = rf"{table}\.json, record .*: {column} is .*; expected {expected}"
    with pytest.raises(DataError, match=said):
        open_samples(own_root)


@pytest.mark.parametrize(
    "table", ["scene", "sample", "sensor", "calibrated_sensor", "sample_data", "ego_pose"]
)
def test_a_token_of_two_records_is_refused(own_root: Path, table: str) -> None:
    edit(own_root, table, lambda rows: [*rows, *rows])
    with pytest.raises(DataError, match=rf"{table}\.json has two records with the token \S+; exp"):
        open_samples(own_root)


def test_two_key_frames_of_a_channel_are_told(own_root: Path) -> None:
    def double(rows: list[dict]) -> list[dict]:
        key = next(row for row in rows if row["filename"].startswith("samples/RADAR_FRONT/"))
        return [*rows, {**key, "token": "another"}]

    edit(own_root, "sample_data", double)
    (problem, *more) = open_samples(own_root).problems()
    assert re.search(
        r"more than one key frame of RADAR_FRONT for (\S+) .needed by sample \1", problem
    )
    assert not more


def test_an_empty_table_and_a_single_record_are_told(own_root: Path) -> None:
    path = own_root / VERSION / "sensor.json"
    first = json.loads(path.read_text())[0]
    path.write_text(json.dumps(first))
    with pytest.raises(DataError, match=r"sensor\.json cannot be read as a table: it is no list"):
        open_samples(own_root)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"sensor\.json is a table without a record"):
        open_samples(own_root)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b\x08\0", r"it is packed \(gzip\): unpack it"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"", "truncated: the file is empty"),
        (b"[" * 200_000, "it is nested too deeply"),
        (
            b'[{"token": "a", "timestamp": ' + b"9" * 5000 + b"}]",
            "a number has thousands of digits",
        ),
    ],
)
def test_a_table_that_is_something_else_is_told(own_root: Path, content: bytes, said: str) -> None:
    (own_root / VERSION / "ego_pose.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"ego_pose\.json cannot be read as a table: {said}"):
        open_samples(own_root)


@pytest.mark.parametrize("name", ["ego_pose", "splits"])
@pytest.mark.parametrize(("kind", "there"), [("pipe", "a pipe"), ("zero", "a device")])
def test_a_table_that_is_no_file_is_told(own_root: Path, name: str, kind: str, there: str) -> None:
    path = own_root / VERSION / f"{name}.json"
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=f"{path} cannot be read as .*: it is {there}; expected a"):
        open_samples(own_root)


def test_tables_may_be_links_and_begin_with_a_mark_of_their_encoding(
    own_root: Path, tmp_path: Path
) -> None:
    path = own_root / VERSION / "scene.json"
    (tmp_path / "elsewhere.json").write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.json")
    assert open_samples(own_root)[0].token


def test_a_file_name_of_any_length_is_a_missing_file(own_root: Path) -> None:
    name = "samples/" + "a" * 5000
    edit(own_root, "sample_data", lambda rows: [{**row, "filename": name} for row in rows])
    samples = open_samples(own_root)
    assert set(samples.missing_files().values()) == {1}
    assert samples.missing_hint() == ""
    with pytest.raises(DataError, match=r"cannot be read: File name too long .needed by sample"):
        samples[0]


def test_tables_without_a_key_frame_are_told(own_root: Path) -> None:
    edit(own_root, "sample_data", lambda rows: [{**row, "is_key_frame": False} for row in rows])
    with pytest.raises(DataError, match="no key frame of any sensor: no record of sample_data"):
        open_samples(own_root)


def test_a_token_of_two_lines_is_shown_in_one(own_root: Path) -> None:
    def rename(rows: list[dict]) -> None:
        next(row for row in rows if row["token"] == "scene-0916-sample1")["token"] = "a\nb"

    edit(own_root, "sample", rename)
    (problem, *_) = open_samples(own_root).problems()
    assert problem.endswith(r"for a\nb (needed by sample a\nb)")


@pytest.mark.parametrize("table", ["sample_data", "ego_pose"])
def test_a_lacking_sweep_matters_to_those_who_use_it(own_root: Path, table: str) -> None:
    oldest = "scene-0916-RADAR_FRONT-0"
    lacking = oldest if table == "sample_data" else f"pose-{oldest}"
    edit(own_root, table, lambda rows: [row for row in rows if row["token"] != lacking])
    assert len(open_samples(own_root, nsweeps=1)) == 4
    assert len(open_samples(own_root, nsweeps=9, modalities=("camera", "lidar"))) == 4
    said = f"{table}.json has no record '{lacking}' .needed by sample scene-0916-sample0.$"
    with pytest.raises(DataError, match=said):
        open_samples(own_root, nsweeps=9).require_records()


def test_a_scene_table_that_is_not_one_is_an_error(own_root: Path) -> None:
    (own_root / VERSION / "scene.json").write_text("{")
    with pytest.raises(DataError, match=r"scene\.json cannot be read as a table"):
        open_samples(own_root)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("sample_data", "calibrated_sensor_token"),
        ("sample_data", "ego_pose_token"),
        ("sample_data", "filename"),
        ("sample_data", "timestamp"),
        ("ego_pose", "rotation"),
        ("calibrated_sensor", "translation"),
        ("calibrated_sensor", "sensor_token"),
        ("sensor", "channel"),
        ("sensor", "modality"),
        ("scene", "name"),
        ("sample", "timestamp"),
        ("sample_annotation", "instance_token"),
        ("sample_annotation", "translation"),
        ("instance", "category_token"),
        ("category", "name"),
    ],
)
def test_a_missing_field_is_named_with_its_table_and_record(
    own_root: Path, table: str, column: str
) -> None:
    def remove(rows: list[dict]) -> None:
        for row in rows:
            del row[column]

    edit(own_root, table, remove)
    with pytest.raises(DataError) as caught:
        open_samples(own_root).require_records()
    assert re.match(
        rf"\S*/?{VERSION}/{table}\.json, record \S+: {column} is missing; expected ",
        str(caught.value),
    ), caught.value
