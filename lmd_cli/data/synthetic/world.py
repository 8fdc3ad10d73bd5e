"""Scenes of the synthetic world: a road, the ego vehicle, and the actors beside it.

The world is a strip along a road of constant curvature. Every lane (driving lanes, parking strips,
rows of a car park) is cut into cells that travel with the lane's speed; what a cell holds is drawn
from a generator seeded by (seed, scene, lane, cell). So the world has no end, actors never collide,
and what is at one moment does not depend on how many moments are asked for.

Each vehicle has a set of sensors that can see it (:mod:`~lmd_cli.data.synthetic.actors`), drawn
once per vehicle. A sensor that cannot see it gets nothing at all: no pixel (fog or darkness has
swallowed it), no return. For those that can, how well is graded: the fog before it and the mean
number of returns vary.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.synthetic.actors import (
    PLANTED,
    SEEN_OTHERS,
    Actor,
    draw_body,
    draw_colour,
    draw_seen,
)

Array = NDArray[np.float64]

#: Nothing further from the ego vehicle than this exists, metres.
RANGE = 40.0
#: Seconds between two keyframes (2 Hz, as nuScenes).
KEYFRAME_INTERVAL = 0.5


#: Planted lanes lie between the others; a cell holds each kind with this probability.
_PLANTED_LATERALS, _PLANTED_CELL, _PLANTED_SHARE = (12.6, 18.0), 10.0, 0.3
#: A planted actor keeps so far off annotated ones, metres from its middle to their footprint.
_CLEARANCE = 2.6


@dataclass(frozen=True)
class Lane:
    """A row of cells parallel to the road.

    Attributes:
        name: part of its cells' seeds.
        lateral: offset to the left of the ego lane, metres.
        cell: length of a cell, metres.
        speed: speed of the cells along the road, m/s (negative: oncoming).
        contents: kind of actor -> probability that a cell holds it.
        yaw: ``along`` the road, or ``any``.
        large: whether trucks and buses fit.
    """

    name: str
    lateral: float
    cell: float
    speed: float
    contents: tuple[tuple[str, float], ...]
    yaw: str = "along"
    large: bool = False


@dataclass(frozen=True)
class Pose:
    """Position on the ground and heading in the global frame, metres and radians."""

    x: float
    y: float
    yaw: float

    def to_local(self, xyz: Array) -> Array:
        """Global points (n, 3) to this pose's axes (x forward, y left, z up)."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return (xyz - (self.x, self.y, 0.0)) @ np.array([[c, -s, 0.0], [s, c, 0.0], [0, 0, 1.0]])

    def to_global(self, xyz: Array) -> Array:
        """Points (n, 3) in this pose's axes to the global frame."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return xyz @ np.array([[c, s, 0.0], [-s, c, 0.0], [0, 0, 1.0]]) + (self.x, self.y, 0.0)


@dataclass(frozen=True)
class Placed:
    """An actor at one moment: its pose and velocity in the global frame."""

    actor: Actor
    pose: Pose
    velocity: tuple[float, float]

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre of the box in the global frame, metres."""
        return (self.pose.x, self.pose.y, self.actor.size[2] / 2)

    def footprint_contains(self, xy: NDArray, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which global points (n, 2) lie within the footprint grown by ``margin`` metres."""
        local = self.pose.to_local(np.column_stack([xy, np.zeros(len(xy))]))
        w, length, _ = self.actor.size
        return (np.abs(local[:, 0]) <= length / 2 + margin) & (
            np.abs(local[:, 1]) <= w / 2 + margin
        )


def seeded(*keys: object) -> np.random.Generator:
    """A generator that depends on ``keys`` alone, the same on every platform."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _lanes(ego_speed: float, other_speed: float) -> tuple[Lane, ...]:
    driving = (("vehicle", 0.38),)
    strip = (("vehicle", 0.28), ("box", 0.07), ("shadow", 0.06))
    park = (("vehicle", 0.14), ("box", 0.05), ("shadow", 0.04), ("ghost", 0.05))
    kerb = (("pole", 0.16), ("pedestrian", 0.16), ("ghost", 0.03))
    lanes = [
        Lane("ego", 0.0, 17.0, ego_speed, driving, large=True),
        Lane("right", -3.7, 17.0, other_speed, driving, large=True),
        Lane("oncoming", 3.7, 17.0, -other_speed, driving, large=True),
        Lane("road", 1.9, 30.0, 0.0, (("shadow", 0.2), ("ghost", 0.1))),
    ]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        lanes.append(Lane(f"strip-{side}", 8.0 * sign, 7.5, 0.0, strip))
        lanes.append(Lane(f"kerb-{side}", 10.7 * sign, 6.0, 0.0, kerb))
        for row in range(4):
            lateral = sign * (14.6 + 6.6 * row)
            lanes.append(Lane(f"park-{side}-{row}", lateral, 7.5, 0.0, park, yaw="any"))
    return tuple(lanes)


def _planted_lanes() -> tuple[Lane, ...]:
    contents = tuple((kind, _PLANTED_SHARE) for kind in PLANTED)
    return tuple(
        Lane(f"planted-{lateral:g}", lateral, _PLANTED_CELL, 0.0, contents)
        for across in _PLANTED_LATERALS
        for lateral in (across, -across)
    )


class Scene:
    """One scene: road, ego motion, weather and actors, from (seed, name) alone.

    Args:
        name: a nuScenes scene name, such as ``scene-0103``.
        seed: seed of the world.
        planted: with planted false alarms beside everything else.
    """

    def __init__(self, name: str, seed: int, planted: bool = False):
        self.name, self.seed = name, seed
        rng = seeded(seed, name, "scene")
        self.curvature = float(rng.uniform(-1, 1)) / 160.0
        self.ego_speed = float(rng.uniform(6.0, 9.5))
        self.lanes = _lanes(self.ego_speed, float(rng.uniform(5.0, 10.0)))
        self.lanes += _planted_lanes() if planted else ()
        x, y, yaw = rng.uniform((400, 400, -3.1), (1600, 1600, 3.1)).tolist()
        self.origin = Pose(x, y, yaw)
        self._phases = rng.uniform(0, 2 * math.pi, 2)

    def light(self, time: float) -> float:
        """Brightness of the images at ``time``: 0.35 (night) to 1 (day)."""
        return 0.675 + 0.325 * math.sin(self._phases[0] + time / 6.0)

    def fog(self, time: float) -> float:
        """Extinction of the fog between everything at ``time``, per metre."""
        return 0.010 + 0.007 * math.sin(self._phases[1] + time / 4.3)

    def road_point(self, along: float, lateral: float, turn: float = 0.0) -> Pose:
        """The global pose at ``along`` metres of the road and ``lateral`` metres to its left."""
        k = self.curvature
        heading = k * along
        x = math.sin(heading) / k - lateral * math.sin(heading)
        y = (1 - math.cos(heading)) / k + lateral * math.cos(heading)
        here = self.origin.to_global(np.array([[x, y, 0.0]]))[0]
        return Pose(float(here[0]), float(here[1]), self.origin.yaw + heading + turn)

    def road_coordinates(self, xy: NDArray, about: float) -> tuple[NDArray, NDArray]:
        """Along and lateral road coordinates of global points (n, 2) near ``about`` metres."""
        pose = self.road_point(about, 0.0)
        c, s = math.cos(pose.yaw), math.sin(pose.yaw)
        dx, dy = xy[:, 0] - pose.x, xy[:, 1] - pose.y
        forward, left = c * dx + s * dy, c * dy - s * dx
        radius = 1.0 / self.curvature
        rest = (radius - left) * math.copysign(1.0, radius)
        along = about + np.arctan2(forward, rest) * abs(radius)
        lateral = radius - math.copysign(1.0, radius) * np.hypot(forward, rest)
        return along, lateral

    def ego_pose(self, time: float) -> Pose:
        """The ego vehicle's pose at ``time`` seconds."""
        return self.road_point(self.ego_speed * time, 0.0)

    def placed(self, time: float) -> list[Placed]:
        """Everything within :data:`RANGE` of the ego vehicle at ``time``, in a fixed order."""
        here = self.ego_speed * time
        placed = []
        for lane in self.lanes:
            first = math.floor((here - lane.speed * time - 1.6 * RANGE) / lane.cell)
            last = math.ceil((here - lane.speed * time + 1.6 * RANGE) / lane.cell)
            cells = (self._cell(lane, i) for i in range(first, last + 1))
            placed += [self._place(actor, time) for actor in cells if actor is not None]
        ego = self.ego_pose(time)
        near = [p for p in placed if math.hypot(p.pose.x - ego.x, p.pose.y - ego.y) <= RANGE]
        return [p for p in near if p.actor.kind not in PLANTED or _is_clear(p, placed)]

    def _place(self, actor: Actor, time: float) -> Placed:
        pose = self.road_point(actor.along + actor.speed * time, actor.lateral, actor.turn)
        # A car on the outside of the bend covers more ground than the road's centre line.
        speed = actor.speed * (1.0 - self.curvature * actor.lateral)
        yaw = pose.yaw - actor.turn
        return Placed(actor, pose, (speed * math.cos(yaw), speed * math.sin(yaw)))

    def _cell(self, lane: Lane, index: int) -> Actor | None:
        if lane.name == "ego" and index == 0:  # the ego vehicle itself
            return None
        return _fill_cell(self.seed, self.name, lane, index)


def _is_clear(item: Placed, placed: list[Placed]) -> bool:
    """Whether no annotated actor is where a planted one is."""
    middle = np.array([[item.pose.x, item.pose.y]])
    solid = (other for other in placed if other.actor.annotated)
    return not any(other.footprint_contains(middle, _CLEARANCE)[0] for other in solid)


@lru_cache(maxsize=20000)
def _fill_cell(seed: int, scene: str, lane: Lane, index: int) -> Actor | None:
    rng = seeded(seed, scene, lane.name, index)
    draw, kind = rng.random(), None
    for candidate, probability in lane.contents:
        if kind is None and draw < probability:
            kind = candidate
        draw -= probability
    return None if kind is None else _make_actor(rng, kind, lane, index)


def _make_actor(rng: np.random.Generator, kind: str, lane: Lane, index: int) -> Actor:
    category, size = draw_body(rng, kind, lane.large)
    slack = max(0.0, lane.cell - size[1] - 2.0) / 2 if lane.yaw == "along" else 0.4
    seen = draw_seen(rng) if kind == "vehicle" else SEEN_OTHERS[kind]
    along = index * lane.cell + float(rng.uniform(-slack, slack))
    turn = float(rng.uniform(-math.pi, math.pi))
    if lane.yaw == "along":
        turn = (math.pi if lane.speed < 0 else 0.0) + float(rng.normal(0, 0.03))
    return Actor(
        key=f"{lane.name}:{index}",
        kind=kind,
        category=category,
        size=size,
        along=along,
        lateral=lane.lateral + float(rng.uniform(-0.25, 0.25)),
        speed=lane.speed,
        turn=turn,
        seen=seen,
        clarity=float(rng.uniform(0.35, 1.0)) * seen.camera,
        radar_rate=float(rng.uniform(0.5, 4.5)) * seen.radar,
        lidar_rate=float(rng.uniform(0.15, 1.0)) * seen.lidar,
        colour=draw_colour(rng),
    )
