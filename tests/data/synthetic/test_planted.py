"""Planted false alarms: only their sensor gets them, and a world without them stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmd_cli.data.synthetic import synthesize
from lmd_cli.data.synthetic.actors import PLANTED
from lmd_cli.data.synthetic.planted import PLANTED_FILE, read_planted
from lmd_cli.data.synthetic.root import check_root
from lmd_cli.data.synthetic.sensors import lidar_returns, radar_returns
from lmd_cli.data.synthetic.world import Scene
from lmd_cli.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(
        tmp_path_factory.mktemp("planted") / "root",
        split="mini_val",
        scenes=1,
        samples=2,
        image_size=(112, 200),
        planted=True,
    )


def test_what_was_planted_is_listed_and_not_annotated(root: Path):
    tables = root / "v1.0-mini"
    assert check_root(root) is None
    planted = read_planted(tables)
    samples = [row["token"] for row in json.loads((tables / "sample.json").read_text())]
    assert set(planted) == set(samples)
    rows = [row for listed in planted.values() for row in listed]
    assert {row["sensor"] for row in rows} == {"camera", "radar"}
    assert len({row["token"] for row in rows}) >= 10
    assert all(row["amount"] > 0 for row in rows if row["sensor"] == "radar")
    placed = {tuple(row["translation"][:2]) for row in rows}
    annotated = json.loads((tables / "sample_annotation.json").read_text())
    for note in annotated:
        away = [np.hypot(x - note["translation"][0], y - note["translation"][1]) for x, y in placed]
        assert min(away) > 1.5


def test_one_sensor_alone_gets_them():
    scene = Scene("scene-0103", 0, planted=True)
    placed = scene.placed(1.0)
    kinds = [item.actor.kind for item in placed]
    assert all(kinds.count(kind) > 2 for kind in PLANTED)
    radar, lidar = radar_returns(scene, 1.0, placed, True), lidar_returns(scene, 1.0, placed)
    for number, item in enumerate(placed):
        if item.actor.kind in PLANTED:
            echo = item.actor.kind == "echo"
            assert (item.actor.clarity > 0) == (not echo)
            assert bool((radar.owner == number).any()) == echo
            assert not (lidar.owner == number).any()


def test_everything_else_is_as_without_them():
    plain, planted = Scene("scene-0103", 0), Scene("scene-0103", 0, planted=True)
    others = [p for p in planted.placed(2.0) if p.actor.kind not in PLANTED]
    assert others == plain.placed(2.0)


def test_a_damaged_table_is_named(root: Path, tmp_path: Path):
    assert read_planted(tmp_path) == {}
    (tmp_path / PLANTED_FILE).write_text('{"a": [{"token": "b"}]}')
    with pytest.raises(DataError, match=r"synthetic_planted.json is damaged: KeyError"):
        read_planted(tmp_path)
