"""Radar and LiDAR of the synthetic world, in nuScenes' binary formats.

Radar returns lie on the faces of a vehicle that look towards the sensor. Their number is random
with a mean that falls with distance and differs per vehicle; every sweep draws its own. Added to
them: false returns anywhere, ghosts (a place where false returns persist) and poles. None falls
into the footprint of an annotated actor, so a vehicle that the sensor cannot see has no return.
LiDAR: the same, with more points, and rings on the ground, which go on below a vehicle that it
cannot see: a gap there would give the vehicle away. Actors do not hide each other here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.synthetic.world import RANGE, Array, Placed, Pose, Scene, seeded

#: Channel -> (position in the ego frame in metres, yaw in degrees).
RADARS: dict[str, tuple[tuple[float, float, float], float]] = {
    "RADAR_FRONT": ((3.41, 0.0, 0.5), 0.0),
    "RADAR_FRONT_LEFT": ((2.42, 0.8, 0.78), 90.0),
    "RADAR_FRONT_RIGHT": ((2.42, -0.8, 0.77), -90.0),
    "RADAR_BACK_LEFT": ((-0.56, 0.62, 0.53), 170.0),
    "RADAR_BACK_RIGHT": ((-0.56, -0.61, 0.52), -170.0),
}
#: Kinds of actors that return as vehicles do.
LIKE_VEHICLES = ("vehicle", "echo")
LIDAR = "LIDAR_TOP"
LIDAR_MOUNT = ((0.943713, 0.0, 1.84023), -90.0)
#: Sweeps of radar and LiDAR per keyframe, the keyframe's own included, and seconds between them.
SWEEPS = 5
SWEEP_INTERVAL = 0.1

#: nuScenes' radar record, 43 bytes: names and types in the order of the file.
RADAR_RECORD = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4")]
    + [(name, "<f4") for name in ("vx", "vy", "vx_comp", "vy_comp")]
    + [(name, "i1") for name in ("is_quality_valid", "ambig_state", "x_rms", "y_rms")]
    + [(name, "i1") for name in ("invalid_state", "pdh0", "vx_rms", "vy_rms")]
)
#: Returns stay this far inside a box, so that rounding cannot carry one out of it, metres.
_INSET = 0.06


@dataclass(frozen=True)
class Returns:
    """Points in the global frame before they are split by sensor.

    Attributes:
        xyz: (n, 3) metres.
        velocity: (n, 2) of what they lie on, m/s.
        owner: (n,) index into the list of placed actors, -1 for none.
        rcs: (n,) radar cross-section, dBsm (LiDAR: intensity).
    """

    xyz: Array
    velocity: Array
    owner: NDArray[np.int64]
    rcs: Array

    def keep(self, mask: NDArray) -> Returns:
        """The points that ``mask`` (n,) selects."""
        return Returns(self.xyz[mask], self.velocity[mask], self.owner[mask], self.rcs[mask])


def _joined(parts: list[Returns]) -> Returns:
    return Returns(
        np.concatenate([p.xyz for p in parts]),
        np.concatenate([p.velocity for p in parts]),
        np.concatenate([p.owner for p in parts]),
        np.concatenate([p.rcs for p in parts]),
    )


def surface_points(
    rng: np.random.Generator, placed: Placed, viewer: Array, count: int, noise: float
) -> Array:
    """``count`` points (n, 3), global, on the vertical faces of a box that look at ``viewer``."""
    w, length, h = placed.actor.size
    local = placed.pose.to_local(viewer[None])[0]
    half = np.array([length / 2, w / 2]) - _INSET
    # Projected width of the two faces that look at the viewer.
    widths = np.array([w * abs(local[0]), length * abs(local[1])]) + 1e-9
    on_front = rng.random(count) < widths[0] / widths.sum()
    xy = rng.uniform(-1, 1, (count, 2)) * half
    xy[on_front, 0] = math.copysign(half[0], local[0])
    xy[~on_front, 1] = math.copysign(half[1], local[1])
    xy = np.clip(xy + rng.normal(0, noise, xy.shape), -half, half)
    z = rng.uniform(min(0.25, h / 3), h - _INSET, count)
    return placed.pose.to_global(np.column_stack([xy, z]))


def _outside(xyz: Array, placed: list[Placed], margin: float) -> NDArray[np.bool_]:
    keep = np.ones(len(xyz), dtype=bool)
    for item in placed:
        if item.actor.annotated:
            keep &= ~item.footprint_contains(xyz[:, :2], margin)
    return keep


def _radar_count(rng: np.random.Generator, placed: Placed, ego: Pose) -> int:
    actor = placed.actor
    distance = math.hypot(placed.pose.x - ego.x, placed.pose.y - ego.y)
    if actor.kind not in LIKE_VEHICLES:
        return int(rng.random() < 0.5)
    area = math.sqrt(actor.size[0] * actor.size[1] / 8.5)
    return int(rng.poisson(actor.radar_rate * area * math.exp(-max(0.0, distance - 10.0) / 30.0)))


def _actor_radar(rng: np.random.Generator, i: int, item: Placed, ego: Pose, key: bool) -> Returns:
    count = _radar_count(rng, item, ego)
    if key and item.actor.kind in LIKE_VEHICLES:
        count = max(count, 1)  # a radar that can see it does: at least one return in the keyframe
    xyz = surface_points(rng, item, np.array([ego.x, ego.y, 0.6]), count, noise=0.25)
    rcs = rng.normal(9.0 if item.actor.kind in LIKE_VEHICLES else 0.0, 5.0, count)
    velocity = np.array(item.velocity) + rng.normal(0, 0.15, (count, 2))
    return Returns(xyz, velocity, np.full(count, i), rcs)


def _false_returns(rng: np.random.Generator, ego: Pose) -> Returns:
    count = int(rng.integers(10, 26))
    radius, angle = RANGE * np.sqrt(rng.random(count)), rng.uniform(-math.pi, math.pi, count)
    xyz = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), np.full(count, 0.5)])
    spread = np.where(rng.random((count, 1)) < 0.15, 4.0, 0.2)  # some seem to move
    velocity = rng.normal(0, 1, (count, 2)) * spread
    return Returns(ego.to_global(xyz), velocity, np.full(count, -1), rng.normal(1.0, 5.0, count))


def _gather(
    parts: list[Returns], clutter: Returns, placed: list[Placed], solid: list[Placed]
) -> Returns:
    """Join the returns; those of no annotated actor keep off the footprints of ``solid`` ones."""
    joined = _joined([*parts, clutter])
    annotated = np.array([item.actor.annotated for item in placed] + [False])  # [-1]: no owner
    return joined.keep(annotated[joined.owner] | _outside(joined.xyz, solid, 1.0))


def radar_returns(scene: Scene, time: float, placed: list[Placed], key: bool) -> Returns:
    """All radar returns of one sweep at ``time``; ``key``: it belongs to a keyframe."""
    rng = seeded(scene.seed, scene.name, "radar", round(time * 1000))
    ego = scene.ego_pose(time)
    parts = [
        _actor_radar(rng, i, item, ego, key)
        for i, item in enumerate(placed)
        if item.actor.seen.radar
    ]
    return _gather(parts, _false_returns(rng, ego), placed, placed)


def split_by_radar(returns: Returns, ego: Pose) -> dict[str, NDArray[np.int64]]:
    """Indices of the returns that each radar reports: the one that looks most straight at it."""
    local = ego.to_local(returns.xyz)
    angles = []
    for mount, yaw in RADARS.values():
        azimuth = np.arctan2(local[:, 1] - mount[1], local[:, 0] - mount[0]) - math.radians(yaw)
        angles.append(np.abs((azimuth + math.pi) % (2 * math.pi) - math.pi))
    best = np.argmin(np.stack(angles), axis=0)
    return {channel: np.flatnonzero(best == i) for i, channel in enumerate(RADARS)}


def to_sensor(xyz: Array, ego: Pose, mount: tuple[float, float, float], yaw: float) -> Array:
    """Global points (n, 3) to a sensor's own axes."""
    local = ego.to_local(xyz) - np.array([0.0, 0.0, mount[2]])
    return Pose(mount[0], mount[1], math.radians(yaw)).to_local(local)


def _rotated(vectors: Array, yaw: float) -> Array:
    """Global vectors (n, 2) in axes turned by ``yaw``."""
    c, s = math.cos(yaw), math.sin(yaw)
    return vectors @ np.array([[c, -s], [s, c]])


def radar_records(
    rng: np.random.Generator, returns: Returns, channel: str, ego: Pose, ego_speed: float
) -> NDArray:
    """The returns of one radar as :data:`RADAR_RECORD` (n,), in the sensor's axes, z = 0."""
    mount, yaw = RADARS[channel]
    n = len(returns.xyz)
    xyz = to_sensor(returns.xyz, ego, mount, yaw)
    ray = xyz[:, :2] / np.maximum(np.linalg.norm(xyz[:, :2], axis=1, keepdims=True), 1e-6)
    turned = _rotated(returns.velocity, ego.yaw + math.radians(yaw))
    own = _rotated(np.array([[ego_speed, 0.0]]), math.radians(yaw))
    radial = (turned * ray).sum(axis=1, keepdims=True) * ray
    relative = ((turned - own) * ray).sum(axis=1, keepdims=True) * ray
    out = np.zeros(n, dtype=RADAR_RECORD)
    out["x"], out["y"] = xyz[:, 0], xyz[:, 1]
    out["vx_comp"], out["vy_comp"] = radial[:, 0], radial[:, 1]
    out["vx"], out["vy"] = relative[:, 0], relative[:, 1]
    out["id"], out["rcs"] = np.arange(n), np.round(returns.rcs * 2) / 2
    out["dyn_prop"] = np.where(np.linalg.norm(radial, axis=1) > 0.8, 0, 1)
    return _radar_states(rng, out, clutter=returns.owner < 0)


def _radar_states(rng: np.random.Generator, out: NDArray, clutter: NDArray) -> NDArray:
    n = len(out)
    out["is_quality_valid"] = 1
    out["ambig_state"] = np.where(rng.random(n) < np.where(clutter, 0.25, 0.04), 4, 3)
    out["invalid_state"] = np.where(rng.random(n) < np.where(clutter, 0.35, 0.05), 4, 0)
    out["pdh0"] = np.where(rng.random(n) < np.where(clutter, 0.5, 0.15), rng.integers(2, 6, n), 1)
    for name in ("x_rms", "y_rms", "vx_rms", "vy_rms"):
        out[name] = rng.integers(3, 21, n)
    return out


def pcd_bytes(records: NDArray) -> bytes:
    """A binary ``.pcd`` file exactly as nuScenes lays it out.

    nuScenes' reader wants at least one point (an empty radar is one point whose x is NaN) and a
    byte after the last.
    """
    if len(records) == 0:
        records = np.zeros(1, dtype=RADAR_RECORD)
        records["x"] = np.nan
    names = records.dtype.names or ()
    kinds = [records.dtype[name] for name in names]
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        "FIELDS " + " ".join(names),
        "SIZE " + " ".join(str(kind.itemsize) for kind in kinds),
        "TYPE " + " ".join(kind.kind.upper() for kind in kinds),
        "COUNT " + " ".join("1" for _ in names),
        f"WIDTH {len(records)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(records)}",
        "DATA binary",
    ]
    return ("\n".join(header) + "\n").encode() + records.tobytes() + b"\0"


def _actor_lidar(rng: np.random.Generator, i: int, item: Placed, ego: Pose) -> Returns:
    actor = item.actor
    distance = max(3.0, math.hypot(item.pose.x - ego.x, item.pose.y - ego.y))
    area = math.sqrt(actor.size[0] * actor.size[1]) * actor.size[2]
    mean = 6000.0 * actor.lidar_rate * area / 4.7 / distance**2
    count = min(300, max(1, int(rng.poisson(mean))))
    xyz = surface_points(rng, item, np.array([ego.x, ego.y, 1.84]), count, noise=0.02)
    return Returns(xyz, np.zeros((count, 2)), np.full(count, i), rng.uniform(5, 90, count))


def _ground_rings(rng: np.random.Generator, ego: Pose) -> Returns:
    radius = np.repeat(np.geomspace(4.0, RANGE, 14), 90)
    n = len(radius)
    angle = np.tile(np.linspace(-math.pi, math.pi, 90, endpoint=False), 14)
    angle, radius = angle + rng.uniform(-0.03, 0.03, n), radius * (1 + rng.normal(0, 0.005, n))
    height = -0.005 - np.abs(rng.normal(0.0, 0.015, n))  # below every box
    xyz = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), height])
    none = np.full(n, -1)
    return Returns(ego.to_global(xyz), np.zeros((n, 2)), none, rng.uniform(1, 30, n))


def lidar_returns(scene: Scene, time: float, placed: list[Placed]) -> Returns:
    """All LiDAR returns of one sweep at ``time``."""
    rng = seeded(scene.seed, scene.name, "lidar", round(time * 1000))
    ego = scene.ego_pose(time)
    seen = {i: item for i, item in enumerate(placed) if item.actor.seen.lidar}
    parts = [_actor_lidar(rng, i, item, ego) for i, item in seen.items()]
    return _gather(parts, _ground_rings(rng, ego), placed, list(seen.values()))


def lidar_bytes(returns: Returns, ego: Pose) -> bytes:
    """A ``.pcd.bin`` file: x, y, z, intensity, ring index, float32 each, in the LiDAR's axes."""
    xyz = to_sensor(returns.xyz, ego, *LIDAR_MOUNT)
    elevation = np.arctan2(xyz[:, 2], np.linalg.norm(xyz[:, :2], axis=1))
    ring = np.clip(np.round((np.degrees(elevation) + 30.67) / 1.33), 0, 31)
    return np.column_stack([xyz, returns.rcs, ring]).astype("<f4").tobytes()
