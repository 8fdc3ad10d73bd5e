"""What the sensors of the synthetic world get: geometry, visibility, evidence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import Box, LidarPointCloud, RadarPointCloud
from nuscenes.utils.geometry_utils import points_in_box, transform_matrix, view_points
from pyquaternion import Quaternion

from lmd_cli.data.synthetic import EVIDENCE_FILE, sensors, synthesize
from lmd_cli.data.synthetic.actors import SEEN_SHARES
from lmd_cli.data.synthetic.cameras import CAMERAS, intrinsics, render, to_camera
from lmd_cli.data.synthetic.world import RANGE, Placed, Scene

SIZE = (225, 400)
SAMPLES = 2
ALL_STATES = list(range(18))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "root"
    return synthesize(folder, split="mini_val", scenes=1, samples=SAMPLES, image_size=SIZE)


@pytest.fixture(scope="module")
def devkit(root: Path) -> NuScenes:
    return NuScenes("v1.0-mini", str(root), verbose=False)


@pytest.fixture(scope="module")
def evidence(root: Path) -> dict[str, dict]:
    return json.loads((root / "v1.0-mini" / EVIDENCE_FILE).read_text())


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene("scene-0103", 0)


def vehicles(devkit: NuScenes) -> list[dict]:
    return [n for n in devkit.sample_annotation if n["category_name"].startswith("vehicle")]


def global_points(devkit: NuScenes, token: str, points: NDArray) -> NDArray:
    """Points (3, n) in a sensor's axes to the global frame, as the tables say."""
    data = devkit.get("sample_data", token)
    pose = devkit.get("ego_pose", data["ego_pose_token"])
    mount = devkit.get("calibrated_sensor", data["calibrated_sensor_token"])
    for frame in (mount, pose):
        matrix = transform_matrix(frame["translation"], Quaternion(frame["rotation"]))
        points = matrix[:3, :3] @ points + matrix[:3, 3:]
    return points


def radar_of(devkit: NuScenes, sample: dict) -> NDArray:
    """All radar points (3, n) of a keyframe in the global frame."""
    actual = []
    for channel in sensors.RADARS:
        path, _, _ = devkit.get_sample_data(sample["data"][channel])
        cloud = RadarPointCloud.from_file(path, ALL_STATES, ALL_STATES, ALL_STATES)
        actual.append(global_points(devkit, sample["data"][channel], cloud.points[:3]))
    return np.concatenate(actual, axis=1)


def test_evidence_is_complete(devkit: NuScenes, evidence: dict[str, dict]) -> None:
    assert set(evidence) == {note["token"] for note in devkit.sample_annotation}
    sets = {(seen.camera, seen.radar, seen.lidar) for seen, _ in SEEN_SHARES}
    rows = [evidence[note["token"]] for note in vehicles(devkit)]
    assert {(row["camera"], row["radar"], row["lidar"]) for row in rows} <= sets
    for name in ("camera", "radar"):  # every class is there to be scored
        other = "radar" if name == "camera" else "camera"
        assert any(row[name] and not row[other] for row in rows)


def test_a_sensor_that_cannot_see_has_nothing(devkit: NuScenes, evidence: dict[str, dict]) -> None:
    counts = {
        "camera": ("visible_pixels", "free_share"),
        "radar": ("radar_returns", "radar_returns_keyframe"),
        "lidar": ("lidar_returns",),
    }
    for note in vehicles(devkit):
        row = evidence[note["token"]]
        for sensor, names in counts.items():
            if not row[sensor]:
                assert all(row[name] == 0 for name in names), (sensor, row)
        assert row["lidar_returns"] == note["num_lidar_pts"]
        assert row["radar_returns_keyframe"] == note["num_radar_pts"]
        assert 0 <= row["fog"] <= 1
        if not row["camera"]:
            assert row["fog"] == 1
            assert int(note["visibility_token"]) >= 2


def test_a_sensor_that_can_see_has_something(devkit: NuScenes, evidence: dict[str, dict]) -> None:
    for note in vehicles(devkit):
        row = evidence[note["token"]]
        if row["radar"]:
            assert row["radar_returns_keyframe"] >= 1
        if row["lidar"]:
            assert row["lidar_returns"] >= 1
        if note["visibility_token"] == "4" and row["camera"]:
            assert row["visible_pixels"] > 0


def test_lidar_points_in_boxes_are_those_annotated(devkit: NuScenes) -> None:
    for sample in devkit.sample:
        path, _, _ = devkit.get_sample_data(sample["data"]["LIDAR_TOP"])
        assert len(np.fromfile(path, np.float32)) % 5 == 0
        local = LidarPointCloud.from_file(path).points[:3]
        points = global_points(devkit, sample["data"]["LIDAR_TOP"], local)
        for token in sample["anns"]:
            note = devkit.get("sample_annotation", token)
            inside = points_in_box(devkit.get_box(token), points).sum()
            assert inside == note["num_lidar_pts"], note["category_name"]


def test_lidar_has_no_trace_of_what_it_cannot_see(scene: Scene) -> None:
    """Not even a gap in the rings on the ground: the points are the same without the vehicle."""
    for time in (0.0, 1.5):
        placed = scene.placed(time)
        unseen = [item for item in placed if item.actor.annotated and not item.actor.seen.lidar]
        assert len(unseen) > 5
        without = [item for item in placed if item.actor.seen.lidar]
        actual = sensors.lidar_returns(scene, time, placed)
        assert np.array_equal(actual.xyz, sensors.lidar_returns(scene, time, without).xyz)
        ground = actual.xyz[actual.owner < 0]
        assert any(item.footprint_contains(ground[:, :2]).any() for item in unseen)
        assert (ground[:, 2] < 0).all()  # in no box


def test_radar_points_in_boxes_are_those_annotated(devkit: NuScenes) -> None:
    total = 0
    for sample in devkit.sample:
        points = radar_of(devkit, sample)
        for token in sample["anns"]:
            note = devkit.get("sample_annotation", token)
            inside = points_in_box(devkit.get_box(token), points).sum()
            assert inside == note["num_radar_pts"], note["category_name"]
            total += inside
        assert points.shape[1] > total / 2  # the rest is clutter
    assert total > 20


def test_radar_file_reads_back_through_the_devkit(tmp_path: Path, scene: Scene) -> None:
    ego, placed = scene.ego_pose(1.0), scene.placed(1.0)
    actual = sensors.radar_returns(scene, 1.0, placed, key=True)
    chosen = actual.keep(sensors.split_by_radar(actual, ego)["RADAR_BACK_LEFT"])
    rng = np.random.Generator(np.random.PCG64(0))
    records = sensors.radar_records(rng, chosen, "RADAR_BACK_LEFT", ego, scene.ego_speed)
    path = tmp_path / "radar.pcd"
    path.write_bytes(sensors.pcd_bytes(records))
    cloud = RadarPointCloud.from_file(str(path), ALL_STATES, ALL_STATES, ALL_STATES)
    assert records.dtype.itemsize == 43
    assert cloud.nbr_points() == len(records) > 1
    for row, name in zip(cloud.points, records.dtype.names or (), strict=True):
        np.testing.assert_array_equal(row, records[name].astype(np.float64))


def test_an_empty_radar_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "empty.pcd"
    path.write_bytes(sensors.pcd_bytes(np.zeros(0, dtype=sensors.RADAR_RECORD)))
    assert RadarPointCloud.from_file(str(path)).nbr_points() == 0


def test_radar_velocity_is_radial_and_compensated(scene: Scene) -> None:
    ego = scene.ego_pose(0.0)
    placed = [item for item in scene.placed(0.0) if item.actor.kind == "vehicle"]
    actual = sensors.radar_returns(scene, 0.0, placed, key=True)
    actual = actual.keep(actual.owner >= 0)
    rng = np.random.Generator(np.random.PCG64(0))
    records = sensors.radar_records(rng, actual, "RADAR_FRONT_LEFT", ego, scene.ego_speed)
    ray = np.arctan2(records["y"], records["x"])
    for x, y in (("vx", "vy"), ("vx_comp", "vy_comp")):
        across = records[x] * np.sin(ray) - records[y] * np.cos(ray)
        np.testing.assert_allclose(across, 0, atol=1e-5)
    # The sensor looks left: its own motion is towards its right, (0, -speed).
    own = -scene.ego_speed * np.sin(ray)
    difference = (records["vx_comp"] - records["vx"]) * np.cos(ray) + (
        records["vy_comp"] - records["vy"]
    ) * np.sin(ray)
    np.testing.assert_allclose(difference, own, atol=1e-4)
    parked = np.array([placed[i].actor.speed == 0 for i in actual.owner])
    assert np.hypot(records["vx_comp"], records["vy_comp"])[parked].max() < 1.0


def test_every_return_goes_to_one_radar(scene: Scene) -> None:
    actual = sensors.radar_returns(scene, 0.0, scene.placed(0.0), key=True)
    parts = sensors.split_by_radar(actual, scene.ego_pose(0.0)).values()
    assert sorted(np.concatenate(list(parts))) == list(range(len(actual.xyz)))


def difference(scene: Scene, placed: list[Placed], item: Placed, channel: str) -> NDArray:
    """Where the picture changes (H, W) when ``item`` is taken away."""
    others = [other for other in placed if other is not item]
    whole, _ = render(scene, 0.0, placed, channel, SIZE)
    without, _ = render(scene, 0.0, others, channel, SIZE)
    return (whole != without).any(axis=2)


def outline(box: Box, channel: str) -> NDArray:
    """The convex hull (H, W) of a box (in the camera's axes) in the picture, grown by a pixel."""
    corners = view_points(box.corners(), intrinsics(channel, SIZE), normalize=True)[:2].T
    mask = np.zeros(SIZE, dtype=np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(corners).astype(np.int32)), [1.0])
    return mask


@pytest.mark.parametrize("channel", list(CAMERAS))
def test_vehicles_are_drawn_where_their_boxes_project(
    devkit: NuScenes, scene: Scene, channel: str
) -> None:
    placed = scene.placed(0.0)
    by_place = {tuple(np.round(item.centre, 3)): item for item in placed}
    sample, checked = devkit.sample[0], 0
    for note in (devkit.get("sample_annotation", token) for token in sample["anns"]):
        _, boxes, _ = devkit.get_sample_data(
            sample["data"][channel], selected_anntokens=[note["token"]]
        )
        item = by_place[tuple(np.round(note["translation"], 3))]
        if not boxes or not item.actor.seen.camera or boxes[0].corners()[2].min() < 0.5:
            continue
        drawn = difference(scene, [item], item, channel)
        box = outline(boxes[0], channel)
        grown = cv2.dilate(box, np.ones((3, 3), np.uint8))
        assert not (drawn & (grown == 0)).any()
        if note["category_name"] in ("vehicle.truck", "vehicle.bus.rigid", "vehicle.car"):
            assert drawn[box > 0].mean() > 0.6
            checked += 1
    assert checked >= 1


def test_a_vehicle_hidden_from_the_cameras_changes_no_pixel(scene: Scene) -> None:
    placed = scene.placed(0.0)
    hidden = [p for p in placed if p.actor.kind == "vehicle" and not p.actor.seen.camera]
    assert hidden
    for item in hidden:
        assert not difference(scene, placed, item, "CAM_FRONT").any()
        assert not difference(scene, placed, item, "CAM_BACK").any()


def test_evidence_falls_with_fog_and_occlusion(scene: Scene) -> None:
    for channel in CAMERAS:
        placed = scene.placed(0.0)
        _, camera_views = render(scene, 0.0, placed, channel, SIZE)
        shown = {item.actor.key: item for item in placed}
        for camera_view in camera_views:
            item = shown[camera_view.key]
            _, alone = render(scene, 0.0, [item], channel, SIZE)
            assert alone[0].pixels == camera_view.pixels
            assert alone[0].visible == alone[0].pixels
            assert camera_view.visible <= camera_view.pixels
            assert camera_view.evidence <= item.actor.clarity * camera_view.visible


def test_cameras_look_where_the_tables_say(devkit: NuScenes, scene: Scene) -> None:
    ego = scene.ego_pose(0.0)
    item = scene.placed(0.0)[0]
    for channel in CAMERAS:
        data = devkit.get("sample_data", devkit.sample[0]["data"][channel])
        mount = devkit.get("calibrated_sensor", data["calibrated_sensor_token"])
        pose = devkit.get("ego_pose", data["ego_pose_token"])
        point = np.array(item.centre)
        for frame in (pose, mount):
            rotation = Quaternion(frame["rotation"]).inverse.rotation_matrix
            point = rotation @ (point - frame["translation"])
        ours = to_camera(np.array([item.centre]), ego, channel)[0]
        np.testing.assert_allclose(ours, point, atol=1e-9)
        np.testing.assert_allclose(mount["camera_intrinsic"], intrinsics(channel, SIZE))


def test_actors_do_not_collide_and_stay_in_range(scene: Scene) -> None:
    for time in np.arange(0, 30, 4.1):
        ego = scene.ego_pose(time)
        solid = [p for p in scene.placed(time) if p.actor.kind not in ("shadow", "ghost")]
        for i, item in enumerate(solid):
            assert math.hypot(item.pose.x - ego.x, item.pose.y - ego.y) <= RANGE
            w, length, _ = item.actor.size
            edge = np.linspace(-0.5, 0.5, 9)
            x, y = (a.ravel() for a in np.meshgrid(edge * length, edge * w))
            area = item.pose.to_global(np.column_stack([x, y, np.zeros(81)]))[:, :2]
            assert not any(o.footprint_contains(area).any() for o in solid[:i] + solid[i + 1 :])


def test_road_coordinates_invert_road_points(scene: Scene) -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    along, lateral = rng.uniform(60, 140, 50), rng.uniform(-40, 40, 50)
    points = [scene.road_point(a, b) for a, b in zip(along, lateral, strict=True)]
    actual = scene.road_coordinates(np.array([[p.x, p.y] for p in points]), about=100.0)
    np.testing.assert_allclose(actual, [along, lateral], atol=1e-8)
