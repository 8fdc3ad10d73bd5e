"""Vehicles: their footprints, what the parts say of them, and how far that can be trusted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.simplebev.truth import vehicle_truth
from lmd_cli.evaluation.ground.decisive import sufficient, unannotated, verdict
from lmd_cli.evaluation.ground.detection import Criterion, criterion_of, sought_class
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.evaluation.ground.vehicles import (
    SampleMaps,
    Weather,
    conflict,
    distance,
    object_fields,
    object_rows,
    outline,
)
from lmd_cli.evaluation.paired import clusters_of
from lmd_cli.geometry import Grid
from lmd_cli.report.page.vehicle_charts import (
    GROUPINGS,
    evidence_shares,
    mean_interval,
    measures,
    objects_values,
)
from tests.support import made_up


def box(x: float, z: float, yaw: float, length: float = 4.5, width: float = 2.0) -> Box3D:
    signs = np.array(list(itertools.product((0.5, -0.5), repeat=3)))
    local = signs * [length, width, 1.5]
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    right, forward = turn @ local[:, :2].T
    corners = np.stack([x + right, local[:, 2], z + forward], axis=1).astype(np.float32)
    center = np.array([x, 0.0, z], dtype=np.float32)
    return Box3D("b", "vehicle.car", 3, corners, center, (length, width, 1.5), yaw, 5, 6, 2.5)


def test_footprints_are_those_of_the_ground_truth():
    grid = Grid((60, 4, 40), bounds=(-20.0, 20.0, -5.0, 5.0, -30.0, 30.0))
    plane = Plane.of_grid(grid)
    random = np.random.default_rng(1)
    for _ in range(30):
        one = box(*random.uniform(-25, 25, 2), random.uniform(-3, 3))
        truth = vehicle_truth([one], grid)["segmentation"][0].numpy() > 0
        np.testing.assert_array_equal(plane.mask(outline(one)), truth)


def test_a_plane_knows_its_metres():
    plane = Plane(10, 20, left=-10.0, right=10.0, back=0.0, front=30.0)
    assert plane.cell == (1.0, 3.0)
    np.testing.assert_allclose(plane.to_cells(np.array([-9.5, 1.5])), [0.0, 0.0])
    np.testing.assert_allclose(plane.to_cells(np.array([9.5, 28.5])), [19.0, 9.0])
    assert plane.extent == (-10.0, 10.0, 0.0, 30.0)


def test_rows_hold_means_over_the_footprint():
    plane = made_up.PLANE
    random = np.random.default_rng(2)
    parts = {name: random.normal(size=(20, 20)) for name in made_up.PARTS}
    total = sum(parts.values())
    near, far = box(1.0, 2.0, 0.3), box(100.0, 0.0, 0.0)
    maps = SampleMaps(plane, total, parts)
    rows = object_rows(("t", "s"), Weather(True, False), [near, far], maps)
    first, second, *_ = (dict(zip(object_fields(parts), row, strict=True)) for row in rows)
    mask = plane.mask(outline(near))
    assert first["cells"] == mask.sum() > 4
    assert first["part_camera"] == pytest.approx(parts["camera"][mask].mean(), rel=1e-12)
    assert first["total"] == pytest.approx(sum(first[f"part_{name}"] for name in parts), abs=1e-12)
    assert (first["rain"], first["night"], first["visibility"]) == (1, 0, 3)
    assert (first["num_lidar_pts"], first["num_radar_pts"], first["speed"]) == (5, 6, 2.5)
    assert first["distance"] == pytest.approx(np.hypot(1.0, 2.0))
    assert distance(far) == pytest.approx(100.0)
    assert (second["inside"], second["part_camera"]) == (0, None)


def test_detections_without_an_annotation_have_rows_too():
    plane, zeros = made_up.PLANE, np.zeros((20, 20))
    vehicle = box(-6.0, -6.0, 0.0)
    camera = np.where(plane.mask(outline(vehicle)), 3.0, 0.0)
    camera[12:15, 14:16] = 2.0  # nobody annotated this
    camera[2, 17] = 2.0  # too small
    parts = {"camera": camera, "radar": zeros, "bias": zeros - 1.0}
    total = camera - 1.0
    without = {("camera",): zeros - 1.0, ("radar",): total, ("camera", "radar"): zeros - 1.0}
    maps = SampleMaps(plane, total, parts, without)
    rows = object_rows(("t", "s"), Weather(False, False), [vehicle], maps)
    first, false = (dict(zip(object_fields(parts), row, strict=True)) for row in rows)
    assert (first["annotated"], first["token"], first["detected"]) == (1, "b", 1)
    assert (false["annotated"], false["token"], false["category"]) == (0, "detection 1", "")
    assert (false["right"], false["forward"], false["cells"]) == (5.0, 3.5, 6)
    assert false["distance"] == pytest.approx(np.hypot(5.0, 3.5))
    assert (false["visibility"], false["num_radar_pts"], false["speed"]) == (None, None, None)
    assert (false["part_camera"], false["total"]) == (2.0, 1.0)
    assert (false["enough_by_parts"], false["enough_by_removal"]) == ("camera", "camera")
    assert (false["detected_without_camera"], false["detected_without_radar"]) == (0, 1)
    assert (false["score_without_camera"], false["score"]) == (-1.0, 1.0)


def test_only_the_largest_of_very_many_detections_are_kept():
    total = np.full((200, 200), -1.0)
    for k in range(150):
        row, column = 12 * (k // 15) + 5, 12 * (k % 15) + 5
        total[row : row + 2, column : column + 2 + (k >= 60)] = 1.0
    groups = unannotated(total, [], Criterion())
    assert [int(group.sum()) for group in groups] == [4] * 10 + [6] * 90


@pytest.mark.parametrize(
    ("description", "rain", "night"),
    [
        ("Parking lot, bicycle, rain", True, False),
        ("Night, big street, after rain", True, True),
        ("Raining, NIGHT", True, True),
        ("A train on a terrain, knight", False, False),
        ("", False, False),
    ],
)
def test_weather_is_what_the_description_says(description: str, rain: bool, night: bool):
    assert Weather.of(description) == Weather(rain, night)


def test_conflict_needs_sensors_of_both_minds():
    camera = np.array([[2.0, 2.0, -1.0, 5.0]])
    radar = np.array([[-1.0, 3.0, -4.0, -5.0]])
    lidar = np.array([[-3.0, 0.0, 2.0, 0.0]])
    relevant = np.array([[True, True, True, False]])
    sensors = {"camera": camera, "radar": radar, "lidar": lidar}
    assert conflict(sensors, relevant) == pytest.approx((2.0 + 0.0 + 2.0) / 3)
    assert conflict(sensors, np.zeros_like(relevant)) == 0.0
    assert conflict({"camera": camera}, relevant) == 0.0


def test_evidence_counts_only_what_speaks_for_a_vehicle():
    assert evidence_shares([3.0, 1.0, -7.0]) == [0.75, 0.25, 0.0]
    assert evidence_shares([-1.0, 0.0]) is None


def test_a_sensor_alone_has_the_bias_beside_it():
    means = {"camera": 2.0, "radar": 0.5, "bias": -1.0}
    assert sufficient(means, ["camera", "radar"]) == ["camera"]
    assert sufficient({**means, "bias": 0.0}, ["camera", "radar"]) == ["camera", "radar"]
    assert sufficient({**means, "interaction": -2.0}, ["camera", "radar"]) == []


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ((1.5, 2.0, 0.5, -1.0), "camera"),
        ((1.5, 0.5, 2.0, -1.0), "radar"),
        ((3.0, 2.0, 2.0, -1.0), "any of several"),
        ((0.2, 0.6, 0.6, -1.0), "only together"),
        ((-1.0, 3.0, -3.0, -1.0), None),  # missed: does not count
    ],
)
def test_who_alone_would_do(logits: tuple[float, ...], expected: str | None):
    (measure,) = (m for m in measures(made_up.PARTS) if m.name == "decisive")
    mask = np.ones((2, 2), dtype=bool)
    maps = {
        name: np.full((2, 2), logit) for name, logit in zip(made_up.PARTS, logits[1:], strict=True)
    }
    alone = verdict(maps, ["camera", "radar"], mask, Criterion())
    values = measure.values({"enough_by_parts": alone})
    if expected is None:
        assert values is None
    else:
        assert dict(zip(measure.series, values, strict=True)) == {
            name: float(name == expected) for name in measure.series
        }


def test_a_head_with_peaks_is_judged_at_the_peak():
    """As ``lmd score`` judges it: the highest probability in the footprint above 0.3."""
    criterion = criterion_of("heatmap.car")
    camera, radar = np.full((3, 3), -3.0), np.full((3, 3), -3.0)
    camera[1, 1], mask = 2.4, np.ones((3, 3), dtype=bool)
    parts = {"camera": camera, "radar": radar, "bias": np.zeros((3, 3))}
    assert verdict(parts, ["camera", "radar"], mask, criterion) == "camera"  # -0.6 is 0.35
    assert verdict(parts, ["camera", "radar"], mask, Criterion()) == ""  # by its mean: missed
    camera[1, 1] = 2.1  # -0.9 is 0.29
    assert verdict(parts, ["camera", "radar"], mask, criterion) == ""
    assert criterion_of("probability.car").threshold == 0.3
    assert criterion_of("segmentation") == Criterion()


def test_a_head_of_one_class_looks_for_no_other():
    assert [sought_class(o) for o in ("heatmap.bus", "segmentation", "task0.reg")] == [
        *("bus", None, None)
    ]
    parts = {name: np.zeros((20, 20)) for name in made_up.PARTS}
    given = (("t", "s"), Weather(False, False), [box(1.0, 2.0, 0.3)])
    for output, sought in (("heatmap.bus", 0), ("heatmap.car", 1), ("segmentation", 1)):
        maps = SampleMaps(made_up.PLANE, parts["bias"], parts, output=output)
        (row,) = object_rows(*given, maps)
        assert dict(zip(object_fields(parts), row, strict=True))["sought"] == sought


def test_groups_have_their_lower_edge():
    by_distance, _, _, _, by_radar, by_speed = GROUPINGS
    assert [by_distance.place({"distance": d}) for d in (0.0, 9.9, 10.0, 40.0, 99.0)] == [
        *(0, 0, 1, 4, 4)
    ]
    assert [by_radar.place({"num_radar_pts": n}) for n in (0, 1, 2, 3, 5, 6)] == [0, 1, 1, 2, 2, 3]
    assert by_speed.place({"speed": None}) is None


def test_the_interval_of_independent_values_is_the_usual_one():
    values, samples = np.random.default_rng(3).normal(size=400), [str(i) for i in range(400)]
    actual = mean_interval(values, samples, clusters_of(samples, {}))
    expected = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert actual.estimate == pytest.approx(values.mean())
    np.testing.assert_allclose((actual.low, actual.high), expected, atol=0.012)


def test_vehicles_of_one_sample_do_not_count_as_independent():
    shared = np.repeat(np.random.default_rng(4).normal(size=40), 10)
    one_each, tens = [str(i) for i in range(400)], [str(i // 10) for i in range(400)]
    together, apart = (mean_interval(shared, s, clusters_of(s, {})) for s in (tens, one_each))
    assert together.high - together.low > 2 * (apart.high - apart.low)
    alone = mean_interval(shared[:10], ["0"] * 10, clusters_of(["0"], {}))
    assert np.isnan([alone.low, alone.high]).all()
    of_scenes = mean_interval(shared, tens, clusters_of(tens, {s: s[-1] for s in tens}))
    assert of_scenes != together


def test_charts_count_every_vehicle_once():
    values = objects_values(made_up.survey())
    assert values is not None
    assert (values["outside"], values["detected"]) == (0, 2)
    assert values["count"] == "3 annotations of 2 vehicles in 1 scene"
    (share,) = (measure for measure in values["measures"] if measure["name"] == "share")
    assert share["left_out"].startswith("Distance (m), ")  # all at 12 m: nothing to compare
    (weather,) = share["charts"]
    assert weather["title"].startswith("Weather")
    assert "no rain, camera: " in weather["svg"]
    assert "n = 2" in weather["svg"]
    assert "n = 1" in weather["svg"]


def test_the_numbers_of_the_charts_stand_in_a_table():
    made = made_up.survey()
    speed = object_fields(made.parts).index("speed")
    for number, value in enumerate((0.1, None, 6.0)):
        row = made.objects[number]
        made.objects[number] = (*row[:speed], value, *row[speed + 1 :])
    values = objects_values(made)
    assert values is not None
    (removal, *_) = values["measures"]
    table = removal["table"]
    assert table.header[:5] == ["by", "group", "n", "camera", "camera, 95 % interval"]
    rows = [[cell.text for cell in row] for row in table.rows]
    (rain,) = (row for row in rows if row[1] == "rain")
    assert rain[2:5] == ["1", "0", ""]
    assert {row[0] for row in rows} == {chart["title"] for chart in removal["charts"]}
    evidence = next(m for m in values["measures"] if m["name"] == "share")
    unknown = {chart["title"]: chart["unknown"] for chart in evidence["charts"]}
    assert unknown == {"Weather, as the scene is described": 0, "Speed (m/s)": 1}
