"""Actors of the synthetic world: their kinds, sizes and colours, and the sensors that see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Seen:
    """Which sensors can see a vehicle."""

    camera: bool
    radar: bool
    lidar: bool


#: Share of vehicles per set of sensors. The last, seen by LiDAR only, is beyond camera + radar.
SEEN_SHARES: tuple[tuple[Seen, float], ...] = (
    (Seen(True, True, True), 0.27),
    (Seen(True, True, False), 0.12),
    (Seen(True, False, True), 0.12),
    (Seen(True, False, False), 0.17),
    (Seen(False, True, True), 0.12),
    (Seen(False, True, False), 0.17),
    (Seen(False, False, True), 0.03),
)

#: Category -> (share, mean size (width, length, height) in metres, relative spread of the size).
VEHICLES: dict[str, tuple[float, tuple[float, float, float], float]] = {
    "vehicle.car": (0.74, (1.90, 4.50, 1.62), 0.07),
    "vehicle.truck": (0.14, (2.35, 6.60, 2.70), 0.08),
    "vehicle.bus.rigid": (0.06, (2.70, 9.60, 3.20), 0.05),
    "vehicle.motorcycle": (0.06, (0.85, 2.10, 1.45), 0.06),
}
SMALL_VEHICLES = ("vehicle.car", "vehicle.motorcycle")
PEDESTRIAN = "human.pedestrian.adult"
#: Planted false alarms, which are annotated nowhere, and the one sensor that gets them: pictures of
#: vehicles (painted on a wall, say), and echoes like those of a vehicle.
PLANTED = {"painted": "camera", "echo": "radar"}
#: Sensors that see the other kinds; a ghost is a place of false radar returns.
SEEN_OTHERS = {
    "pedestrian": Seen(True, True, True),
    "pole": Seen(True, True, True),
    "box": Seen(True, False, True),
    "shadow": Seen(True, False, False),
    "ghost": Seen(False, True, False),
    "painted": Seen(True, False, False),
    "echo": Seen(False, True, False),
}
_OTHER_SIZES = {
    "pedestrian": (0.65, 0.65, 1.72),
    "pole": (0.25, 0.25, 5.0),
    "box": (1.5, 3.2, 1.5),
    "shadow": (2.0, 4.4, 0.0),
    "ghost": (2.0, 4.0, 1.5),
}


@dataclass(frozen=True)
class Actor:
    """Something in the world; ``kind`` is vehicle, pedestrian, box, pole, shadow, ghost, or one of
    :data:`PLANTED`.

    Attributes:
        key: unique within the scene.
        size: (width, length, height), metres.
        along, lateral, speed, turn: place along the road at time 0, offset, m/s, yaw to the road.
        clarity: opacity in the images, 0 (hidden) to 1 (no local fog).
        radar_rate, lidar_rate: mean radar returns per sweep at 10 m; reflectivity for LiDAR.
        colour: blue, green, red, 0 to 255.
    """

    key: str
    kind: str
    category: str
    size: tuple[float, float, float]
    along: float
    lateral: float
    speed: float
    turn: float
    seen: Seen
    clarity: float
    radar_rate: float
    lidar_rate: float
    colour: tuple[float, float, float]

    @property
    def annotated(self) -> bool:
        """Whether nuScenes would annotate it."""
        return self.kind in ("vehicle", "pedestrian")


def draw_body(
    rng: np.random.Generator, kind: str, large: bool
) -> tuple[str, tuple[float, float, float]]:
    """Category and size (width, length, height) in metres."""
    if kind == "vehicle" or kind in PLANTED:
        names = [n for n in VEHICLES if large or n in SMALL_VEHICLES]
        shares = np.array([VEHICLES[n][0] for n in names])
        category = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        mean, spread = VEHICLES[category][1:]
    else:
        category = PEDESTRIAN if kind == "pedestrian" else ""
        mean, spread = _OTHER_SIZES[kind], 0.1
    factor = 1 + spread * rng.uniform(-1.5, 1.5, 3)
    w, length, h = (round(float(m * f), 3) for m, f in zip(mean, factor, strict=True))
    return category, (w, length, h)


def draw_seen(rng: np.random.Generator) -> Seen:
    """Which sensors see a vehicle, by :data:`SEEN_SHARES`."""
    shares = np.array([share for _, share in SEEN_SHARES])
    return SEEN_SHARES[int(rng.choice(len(shares), p=shares / shares.sum()))][0]


def draw_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Blue, green and red, 0 to 255."""
    grey = float(rng.choice([40.0, 110.0, 165.0, 225.0]))
    tint = rng.uniform(-1, 1, 3) * float(rng.choice([8.0, 75.0]))
    b, g, r = np.clip(grey + tint, 12, 245).round(1).tolist()
    return (b, g, r)
