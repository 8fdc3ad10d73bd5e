"""The synthetic root: devkit-readable, consistent, the same for the same seed, and checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import RadarPointCloud
from nuscenes.utils.splits import create_splits_scenes
from PIL import Image

from lmd_cli.data.nuscenes.index.scenes import nuscenes_splits
from lmd_cli.data.synthetic import cached_root, check_root, demo_root, scene_names, synthesize
from lmd_cli.data.synthetic.sensors import SWEEPS
from lmd_cli.data.synthetic.tables import TABLE_NAMES
from lmd_cli.errors import DataError

VERSION = "v1.0-mini"
SIZE = (112, 200)


def make(output: Path, *, samples: int = 2, seed: int = 0) -> Path:
    return synthesize(
        output, split="mini_val", scenes=1, samples=samples, seed=seed, image_size=SIZE
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("synthetic") / "root")


@pytest.fixture(scope="module")
def devkit(root: Path) -> NuScenes:
    return NuScenes(VERSION, str(root), verbose=False)


@pytest.fixture(scope="module")
def tables(root: Path) -> dict[str, list[dict]]:
    return {name: json.loads((root / VERSION / f"{name}.json").read_text()) for name in TABLE_NAMES}


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_devkit_opens_it_and_counts(devkit: NuScenes) -> None:
    assert [scene["name"] for scene in devkit.scene] == ["scene-0103"]
    assert len(devkit.sample) == 2
    assert len(devkit.sample_data) == 2 * (6 + (5 + 1) * SWEEPS)
    assert sum(record["is_key_frame"] for record in devkit.sample_data) == 2 * 12
    assert len(devkit.sample[0]["data"]) == 12
    assert len(devkit.sample[0]["anns"]) >= 10
    assert {sensor["modality"] for sensor in devkit.sensor} == {"camera", "radar", "lidar"}


def test_every_token_is_unique_and_resolves(tables: dict[str, list[dict]]) -> None:
    known = {name: {row["token"] for row in rows} for name, rows in tables.items()}
    for name, rows in tables.items():
        assert len(known[name]) == len(rows), name
        for row in rows:
            for key, value in row.items():
                for table, token in _references(name, key, value):
                    assert token in known[table], (name, key)


def _references(name: str, key: str, value: object) -> list[tuple[str, str]]:
    if key in ("prev", "next"):
        return [(name, str(value))] if value else []
    if key.endswith("_tokens"):
        assert isinstance(value, list)
        return [(key.removesuffix("_tokens"), token) for token in value]
    if not key.endswith("_token"):
        return []
    table = key.removesuffix("_token").removeprefix("first_").removeprefix("last_")
    if table == "annotation":
        table = "sample_annotation"
    return [(table, str(value))]


@pytest.mark.parametrize("name", ["sample", "sample_data", "sample_annotation"])
def test_chains_are_mutual_and_go_forward(tables: dict[str, list[dict]], name: str) -> None:
    rows = {row["token"]: row for row in tables[name]}
    linked = [row for row in rows.values() if row["next"]]
    assert linked
    for row in linked:
        after = rows[row["next"]]
        assert after["prev"] == row["token"]
        if "timestamp" in row:
            assert after["timestamp"] > row["timestamp"]
    assert len(linked) == sum(bool(row["prev"]) for row in rows.values())


def test_instances_span_their_annotations(tables: dict[str, list[dict]]) -> None:
    notes = {row["token"]: row for row in tables["sample_annotation"]}
    for instance in tables["instance"]:
        token, count = instance["first_annotation_token"], 0
        while token:
            last, count = token, count + 1
            assert notes[token]["instance_token"] == instance["token"]
            token = notes[token]["next"]
        assert last == instance["last_annotation_token"]
        assert count == instance["nbr_annotations"]
    assert sum(row["nbr_annotations"] for row in tables["instance"]) == len(notes)


def test_sweeps_lie_between_keyframes(devkit: NuScenes) -> None:
    for channel in ("RADAR_FRONT", "RADAR_BACK_LEFT", "LIDAR_TOP"):
        record = devkit.get("sample_data", devkit.sample[1]["data"][channel])
        lags = []
        while record["prev"]:
            before = devkit.get("sample_data", record["prev"])
            lags.append(record["timestamp"] - before["timestamp"])
            record = before
        assert lags == [100_000] * (2 * SWEEPS - 1)


def test_files_are_there_with_the_declared_size(root: Path, devkit: NuScenes) -> None:
    for record in devkit.sample_data:
        path = root / record["filename"]
        assert path.stat().st_size > 0
        if record["fileformat"] == "jpg":
            with Image.open(path) as image:
                assert image.size == (record["width"], record["height"]) == SIZE[::-1]


def test_devkit_merges_radar_sweeps(devkit: NuScenes) -> None:
    cloud, times = RadarPointCloud.from_file_multisweep(
        devkit, devkit.sample[1], "RADAR_FRONT", "RADAR_FRONT", nsweeps=5
    )
    assert cloud.nbr_points() > 5
    assert sorted(set(times[0].round(3))) == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_same_seed_same_bytes(root: Path, tmp_path: Path) -> None:
    assert digests(make(tmp_path / "again")) == digests(root)


def test_another_seed_differs(root: Path, tmp_path: Path) -> None:
    other = digests(make(tmp_path / "other", samples=1, seed=1))
    here = digests(root)
    keyframes = sorted(here[name] for name in here if "samples/CAM" in name)
    assert not {other[name] for name in other if "samples/CAM" in name} & set(keyframes)


def test_a_sample_does_not_depend_on_how_many_there_are(root: Path, tmp_path: Path) -> None:
    one, two = digests(make(tmp_path / "one", samples=1)), digests(root)
    data = {name: digest for name, digest in one.items() if name.startswith(("samples", "sweeps"))}
    assert data.items() <= two.items()
    assert len(data) == 36


def test_splits_are_the_devkits() -> None:
    assert list(nuscenes_splits().items()) == list(create_splits_scenes().items())


def test_scene_names_are_in_the_devkits_splits() -> None:
    splits = create_splits_scenes()
    assert set(scene_names("mini_val")) == set(splits["mini_val"])
    assert set(scene_names("mini_train", 3)) < set(splits["mini_train"])
    names = scene_names("all", 30)
    assert set(names[:2]) == set(splits["mini_val"])
    assert set(names[2:10]) == set(splits["mini_train"])
    assert set(names[10:]) < set(splits["train"])
    assert len(set(names)) == 30


@pytest.mark.parametrize(
    ("split", "scenes", "message"),
    [("mini_val", 3, "1 to 2"), ("mini_train", 0, "1 to 8"), ("val", None, "mini_train")],
)
def test_impossible_scenes_are_refused(split: str, scenes: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scene_names(split, scenes)  # type: ignore[arg-type]


def test_an_output_in_use_and_bad_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DataError, match="exists already"):
        make(tmp_path)
    with pytest.raises(DataError, match="at least 1"):
        make(tmp_path / "new", samples=0)
    with pytest.raises(DataError, match="image size"):
        synthesize(tmp_path / "new", samples=1, image_size=(5000, 10))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_root_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert (done, total) == (1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(
            tmp_path / "root", split="mini_val", samples=1, image_size=(56, 100), progress=stop
        )
    assert list(tmp_path.iterdir()) == []


def test_a_whole_root_passes_the_check(root: Path) -> None:
    assert check_root(root) is None
    assert "other parameters" in str(check_root(root, {"seed": 9}))


def _damage_table(root: Path) -> str:
    path = root / VERSION / "sample.json"
    text = path.read_text()
    path.write_text(text.replace("1", "2", 1))  # the same length
    return "sample.json"


def _cut_image(root: Path) -> str:
    path = next((root / "samples" / "CAM_BACK").iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    return "files with"


def _remove_radar(root: Path) -> str:
    next((root / "sweeps" / "RADAR_FRONT").iterdir()).unlink()
    return "files with"


def _break_manifest(root: Path) -> str:
    (root / "synthetic.json").write_text("{")
    return "manifest"


@pytest.mark.parametrize("damage", [_damage_table, _cut_image, _remove_radar, _break_manifest])
def test_a_damaged_root_is_found_and_made_again(tmp_path: Path, damage) -> None:
    def cached() -> Path:
        return cached_root("mini_val", 1, image_size=(32, 56), cache_dir=tmp_path)

    root = cached()
    before = digests(root)
    expected = damage(root)
    assert expected in str(check_root(root))
    assert cached() == root
    assert digests(root) == before
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


def test_a_whole_cached_root_is_not_made_again(tmp_path: Path) -> None:
    def cached(seen: list[int]) -> Path:
        return cached_root(
            "mini_val",
            1,
            image_size=(32, 56),
            cache_dir=tmp_path,
            progress=lambda done, _: seen.append(done),
        )

    first: list[int] = []
    second: list[int] = []
    assert cached(first) == cached(second)
    assert (first, second) == ([1, 2], [])


def test_the_demo_root_lies_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def fake(split: str, samples: int, **options: object) -> Path:
        made.append((split, samples, options["cache_dir"]))
        return tmp_path

    monkeypatch.setattr("lmd_cli.data.synthetic.root.cached_root", fake)
    assert demo_root(tmp_path) == tmp_path
    assert made == [("mini_val", 20, tmp_path)]


def test_the_cache_folder_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMD_CACHE", str(tmp_path))
    root = cached_root("mini_val", 1, image_size=(32, 56))
    assert root.parent == tmp_path
