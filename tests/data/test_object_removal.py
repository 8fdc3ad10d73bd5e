"""An object taken out of raw data: against a ray for each pixel, and a box test for each point."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyquaternion import Quaternion

from lmd_cli.data import KeyframeSamples, RemovalSettings
from lmd_cli.data.interventions import BoxRemoval, convex_mask, fill_region
from lmd_cli.data.nuscenes.database import Annotation, SensorFrame
from lmd_cli.data.nuscenes.frames import invert_rigid, move, rigid
from tests.support.tiny_nuscenes import open_samples

FORWARD = Quaternion(0.5, -0.5, 0.5, -0.5)  # a camera that looks along x
SIZE = (45, 80)


def frame(
    time: int = 0, yaw: float = 0.0, place: tuple[float, ...] = (0.0, 0.0, 1.5)
) -> SensorFrame:
    turn = Quaternion(axis=[0, 0, 1], degrees=yaw) * FORWARD
    intrinsic = [[40.0, 0.0, 39.5], [0.0, 40.0, 22.0], [0.0, 0.0, 1.0]]
    ego = ((1.0, 2.0, 0.0), list(Quaternion(axis=[0, 0, 1], degrees=30)))
    return SensorFrame("f", time, *ego, (0.0, 0.0, 1.5), list(turn), intrinsic, SIZE[1], SIZE[0])


def box(ahead: float, left: float, yaw: float, velocity: Any = (math.nan,) * 3) -> Annotation:
    """A car seen from the ego frame of :func:`frame`."""
    heading = Quaternion(axis=[0, 0, 1], degrees=30)
    place = np.array([1.0, 2.0, 0.0]) + heading.rotate([ahead, left, 0.8])
    turn = heading * Quaternion(axis=[0, 0, 1], degrees=yaw)
    return Annotation(
        "t", "vehicle.car", 4, list(place), list(turn), (2.0, 4.5, 1.6), 5, 5, velocity, "i"
    )


def hit(camera: SensorFrame, car: Annotation, margin: float) -> np.ndarray:
    """Whether each pixel's ray meets the box in front of the camera (slabs)."""
    global_T_camera = camera.global_T_ego() @ camera.ego_T_sensor()
    box_T_camera = invert_rigid(rigid(car.translation, car.rotation)) @ global_T_camera
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.intrinsic).T
    ways = rays @ box_T_camera[:3, :3].T  # (H, W, 3)
    half = np.array([car.size[1], car.size[0], car.size[2]]) / 2 + margin
    with np.errstate(divide="ignore"):
        ends = (np.stack([-half, half]) - box_T_camera[:3, 3])[:, None, None] / ways
    enter, leave = ends.min(0).max(-1), ends.max(0).min(-1)
    return (leave >= np.maximum(enter, 0.1)) & (leave > 0.1)


@pytest.mark.parametrize(
    "place", [(12, 1, 30), (6, -4, 80), (3, 2.5, 0), (1.5, 1.9, 10), (5, 5, 45)]
)
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_region_is_where_rays_meet_the_box(place: tuple[float, ...], margin: float) -> None:
    camera, car = frame(yaw=5.0), box(*place)
    removal = BoxRemoval([(0, car)], RemovalSettings(margin))
    mask = removal.region(camera)
    wanted = hit(camera, car, margin)
    assert wanted.any()
    assert mask is not None
    assert (mask != wanted).mean() < 0.003  # pixels on the very outline
    assert removal.amount == mask.sum()
    border = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    assert removal.clipped == int(border)


def test_a_box_behind_or_beside_the_image_has_no_region() -> None:
    for place in ((-12, 0, 0), (4, 30, 0)):
        removal = BoxRemoval([(0, box(*place))], RemovalSettings())
        assert removal.region(frame()) is None
        assert (removal.amount, removal.clipped) == (0, 0)


def test_points_inside_the_box_and_its_margin_go() -> None:
    car, sensor = box(8, 2, 40), frame()
    rng = np.random.default_rng(0)
    half = np.array([2.25, 1.0, 0.8])
    local = rng.uniform(-1.6, 1.6, (400, 3)) * half
    sensor_T_box = invert_rigid(sensor.global_T_ego() @ sensor.ego_T_sensor()) @ rigid(
        car.translation, car.rotation
    )
    cloud = np.concatenate([move(sensor_T_box, local.T), rng.normal(size=(2, 400))])
    for margin, flat in ((0.0, False), (0.4, False), (0.4, True)):
        removal = BoxRemoval([(0, car)], RemovalSettings(margin))
        inside = (np.abs(local) <= half + margin) & (local >= [-9, -9, -half[2]])
        gone = inside[:, : 2 if flat else 3].all(axis=1)
        assert 0 < gone.sum() < 400
        np.testing.assert_array_equal(removal.points(cloud, sensor, flat=flat), cloud[:, ~gone])
        assert removal.amount == gone.sum()


def test_the_box_moves_with_its_object_between_key_frames() -> None:
    heading = Quaternion(axis=[0, 0, 1], degrees=30).rotate([10.0, 0.0, 0.0])
    car = box(8, 0, 0, tuple(heading))
    sensor = frame(time=-400_000)  # 0.4 s before: 4 m nearer
    removal = BoxRemoval([(0, car)], RemovalSettings(0.0))
    ego = np.array([[4.0, 8.0], [0.0, 0.0], [0.8, 0.8]])
    cloud = move(invert_rigid(sensor.ego_T_sensor()), ego)
    kept = removal.points(cloud, sensor)
    np.testing.assert_array_equal(kept, cloud[:, 1:])


@pytest.mark.parametrize("fill", ["inpaint", "ring"])
def test_only_the_region_is_filled(fill: Any) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 100, (30, 40, 3), dtype=np.uint8)
    region = convex_mask(np.array([[10.0, 8], [20, 6], [22, 18], [9, 20]]), (30, 40))
    pixels[region] = 255
    out = fill_region(pixels, region, fill)
    np.testing.assert_array_equal(out[~region], pixels[~region])
    assert out[region].max() < 110
    assert pixels[region].min() == 255  # the input is left alone
    if fill == "ring":
        assert (out[region] == out[region][0]).all()
        flat = np.full_like(pixels, 7)
        flat[region] = 200
        assert (fill_region(flat, region, fill) == 7).all()


def test_a_region_that_is_the_whole_image_takes_its_mean() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = 100
    assert (fill_region(pixels, np.ones((4, 4), bool), "inpaint") == 50).all()


# -- data sets ----------------------------------------------------------------------------


def test_simplebevs_samples_without_a_vehicle(tiny_root: Path) -> None:
    dataset = open_samples(tiny_root, nsweeps=1)
    clean, car = dataset[0], dataset.boxes(0)[0]
    margin = RemovalSettings(3.0)
    seen = dataset.without(clean, 0, car.token, "camera", margin)
    assert changed(clean.tensors, seen.sample.tensors) == {"images"}
    assert torch.equal(seen.sample.tensors["images"][4], clean.tensors["images"][4])  # behind
    assert seen.amount > 0
    points = dataset.without(clean, 0, car.token, "lidar", RemovalSettings(9.0))
    inside = within(car, clean.tensors["lidar_xyz"].numpy(), 9.0)
    assert points.amount >= inside.sum() > 0
    assert torch.equal(points.sample.tensors["lidar_xyz"], clean.tensors["lidar_xyz"][~inside])
    returns = dataset.without(clean, 0, car.token, "radar", RemovalSettings(9.0))
    assert changed(clean.tensors, returns.sample.tensors) == {"radar_xyz", "radar_features"}
    lost = len(clean.tensors["radar_xyz"]) - len(returns.sample.tensors["radar_xyz"])
    assert 0 < lost <= returns.amount


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {
        n
        for n in before
        if before[n].shape != after[n].shape or not torch.equal(before[n], after[n])
    }


def within(car: Any, points: np.ndarray, margin: float) -> np.ndarray:
    """Points in the reference camera's axes that are in a box; its axes come from its corners."""
    corners = car.corners.reshape(2, 2, 2, 3)
    axes = [corners[0, 0, 0] - corners[tuple(int(i == k) for i in range(3))] for k in range(3)]
    local = [(points - car.center) @ (axis / np.linalg.norm(axis)) for axis in axes]
    limits = [np.linalg.norm(axis) / 2 + margin for axis in axes]
    above = local[2] >= margin - limits[2]
    near = [np.abs(x) <= limit for x, limit in zip(local, limits, strict=True)]
    return np.all([*near, above], axis=0)


@pytest.mark.parametrize("index", [0, 5])
def test_crns_samples_without_a_vehicle(drive: KeyframeSamples, index: int) -> None:
    """In every key frame that the network takes, wherever the object was then."""
    clean = drive[index]
    returns = {box.token: box.num_radar_pts for box in drive.boxes(index)}
    token = max(returns, key=lambda name: returns[name])
    returned = drive.without(clean, index, token, "radar", RemovalSettings(1.0))
    assert changed(clean.tensors, returned.sample.tensors) == {"pts_pv"}
    before, after = ((x["pts_pv"] != -999).sum() for x in (clean.tensors, returned.sample.tensors))
    assert returned.amount > 0
    assert after < before
    seen = drive.without(clean, index, token, "camera", RemovalSettings(0.2, "ring"))
    assert changed(clean.tensors, seen.sample.tensors) <= {"imgs"}
    if index == 0:  # all key frames are the scene's first
        first, *others = seen.sample.tensors["imgs"]
        assert all(torch.equal(first, other) for other in others)
