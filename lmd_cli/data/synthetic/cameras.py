"""The six cameras of the synthetic world: calibration and rendering.

A picture is painted from far to near (painter's algorithm): sky, skyline, ground with the road's
markings, then every actor as convex faces through the exact intrinsics. Two fogs lie over it: the
air's, which takes an actor's colour to grey with distance, and a local one per actor, which lets
what is behind shine through (``clarity``: 1 none, 0 hidden: not painted at all).

The camera's evidence for an actor is the sum over its pixels of what reaches the lens of it:
clarity x transmission of the air x what nearer actors let through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.synthetic.shapes import LAMPS, PAINTS, faces_in_world, shape_of
from lmd_cli.data.synthetic.world import Array, Placed, Pose, Scene, seeded

#: Channel -> (position in the ego frame in metres, yaw in degrees, focal length at 1600 x 900).
CAMERAS: dict[str, tuple[tuple[float, float, float], float, float]] = {
    "CAM_FRONT": ((1.70, 0.016, 1.51), 0.0, 1266.4),
    "CAM_FRONT_LEFT": ((1.525, 0.495, 1.51), 55.0, 1266.4),
    "CAM_FRONT_RIGHT": ((1.55, -0.493, 1.496), -55.0, 1266.4),
    "CAM_BACK_LEFT": ((1.035, 0.485, 1.591), 110.0, 1266.4),
    "CAM_BACK": ((0.028, 0.003, 1.57), 180.0, 809.2),
    "CAM_BACK_RIGHT": ((1.015, -0.481, 1.562), -110.0, 1266.4),
}
NATIVE_SIZE = (900, 1600)
_CENTRE = (816.3, 491.5)
_NEAR = 0.3  # metres: what is closer to the lens is cut off
_SHIFT = 4  # fractional bits of polygon corners
_SUN = np.array([0.45, 0.3, 0.84])
_FOG_COLOUR = np.array([176.0, 170.0, 166.0])
#: Camera axes (right, down, forward) to ego-like axes (forward, left, up).
BODY_T_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def intrinsics(channel: str, image_size: tuple[int, int]) -> Array:
    """Camera matrix (3, 3) for an image of ``(H, W)`` pixels."""
    sy, sx = image_size[0] / NATIVE_SIZE[0], image_size[1] / NATIVE_SIZE[1]
    focal = CAMERAS[channel][2]
    return np.array(
        [[focal * sx, 0.0, _CENTRE[0] * sx], [0.0, focal * sy, _CENTRE[1] * sy], [0.0, 0.0, 1.0]]
    )


def to_camera(xyz: Array, ego: Pose, channel: str) -> Array:
    """Global points (n, 3) to the camera's axes (right, down, forward)."""
    mount, yaw, _ = CAMERAS[channel]
    local = ego.to_local(xyz) - np.array([0.0, 0.0, mount[2]])
    return Pose(mount[0], mount[1], math.radians(yaw)).to_local(local) @ BODY_T_OPTICAL


@dataclass(frozen=True)
class CameraView:
    """What one camera gets of one actor.

    Attributes:
        key: the actor's.
        pixels: pixels that the actor covers, whatever is before it.
        visible: sum over them of what nearer actors let through (1: free view).
        evidence: ``visible`` times clarity times the transmission of the air.
    """

    key: str
    pixels: int
    visible: float
    evidence: float


@dataclass
class _Painted:
    key: str
    window: tuple[slice, slice]
    mask: NDArray[np.bool_]
    opacity: float
    transmission: float


def render(
    scene: Scene, time: float, placed: list[Placed], channel: str, image_size: tuple[int, int]
) -> tuple[NDArray[np.uint8], list[CameraView]]:
    """One picture, (H, W, 3) blue-green-red, and what it shows of each painted actor."""
    rng = seeded(scene.seed, scene.name, "camera", channel, round(time * 1000))
    ego = scene.ego_pose(time)
    air, light = scene.fog(time), scene.light(time)
    image = _background(scene, time, ego, channel, image_size)
    painted = []
    for item, centre in _far_to_near(placed, ego, channel):
        strokes = _strokes(item, ego, channel, image_size, light)
        done = _paint(image, item, strokes, math.exp(-air * centre))
        painted += [done] if done else []
    return _expose(rng, image, light), _camera_views(painted, image_size)


def _far_to_near(placed: list[Placed], ego: Pose, channel: str) -> list[tuple[Placed, float]]:
    eye = np.array([CAMERAS[channel][0]])
    spot = ego.to_global(eye)[0]
    shown = [item for item in placed if item.actor.clarity > 0]
    away = [math.hypot(item.pose.x - spot[0], item.pose.y - spot[1]) for item in shown]
    # Shadows lie under everything that stands.
    order = sorted(range(len(shown)), key=lambda i: (shown[i].actor.size[2] > 0, -away[i]))
    return [(shown[i], away[i]) for i in order]


_Stroke = tuple[NDArray[np.int32], Array]


def _strokes(
    item: Placed, ego: Pose, channel: str, image_size: tuple[int, int], light: float
) -> list[_Stroke]:
    """Polygons (in 1/16 pixel) with colours, for the faces that look at the camera."""
    actor, shape = item.actor, shape_of(item.actor)
    corners = faces_in_world(actor, shape)
    at = item.pose.to_global(corners.reshape(-1, 3))
    seen = to_camera(at, ego, channel).reshape(-1, 4, 3)
    if seen[..., 2].max() < _NEAR:
        return []
    mount = ego.to_global(np.array([CAMERAS[channel][0]]))
    eye = item.pose.to_local(mount)[0]
    facing = ((eye - corners.mean(axis=1)) * shape.normals).sum(axis=1) > 0
    matrix = intrinsics(channel, image_size)
    shades = _shades(item, shape.normals)
    strokes = []
    for i in np.flatnonzero(facing):
        polygon = _project(seen[i], matrix)
        if polygon is not None:
            strokes.append((polygon, _colour(actor.colour, shape.paints[i], shades[i], light)))
    return strokes


def _shades(item: Placed, normals: Array) -> Array:
    turned = Pose(0.0, 0.0, item.pose.yaw).to_global(normals)
    return 0.78 + 0.27 * (turned @ _SUN)


def _colour(own: tuple[float, float, float], paint: str, shade: float, light: float) -> Array:
    fixed = PAINTS[paint]
    if paint in LAMPS:  # undo most of the exposure's dimming
        return np.array(fixed) / max(light, 0.35) ** 0.8
    return np.array(own if fixed is None else fixed) * shade


def _project(corners: Array, matrix: Array) -> NDArray[np.int32] | None:
    """A face (n, 3) in camera axes to a polygon in 1/16 pixels, cut at the near plane."""
    if corners[:, 2].min() < _NEAR:
        corners = _clip_near(corners)
        if len(corners) < 3:
            return None
    pixels = corners @ matrix.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    return np.round(np.clip(pixels, -2e4, 2e4) * (1 << _SHIFT)).astype(np.int32)


def _clip_near(corners: Array) -> Array:
    kept = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            kept.append(a + (b - a) * (_NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


def _paint(
    image: NDArray[np.uint8], item: Placed, strokes: list[_Stroke], transmission: float
) -> _Painted | None:
    """Paint an actor into ``image``; None if none of it falls into the picture."""
    window = _window(strokes, image.shape)
    if window is None:
        return None
    patch = image[window].copy()
    mask = np.zeros(patch.shape[:2], dtype=np.uint8)
    corner = np.array([window[1].start, window[0].start]) << _SHIFT
    for polygon, colour in strokes:
        shown = colour * transmission + _FOG_COLOUR * (1 - transmission)
        paint = [float(c) for c in np.clip(shown, 0, 255)]
        cv2.fillConvexPoly(patch, polygon - corner, paint, cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(mask, polygon - corner, [1.0], cv2.LINE_8, _SHIFT)
    opacity = item.actor.clarity * (0.45 if item.actor.kind == "shadow" else 1.0)
    image[window] = cv2.addWeighted(patch, opacity, image[window], 1 - opacity, 0)
    return _Painted(item.actor.key, window, mask.astype(bool), opacity, transmission)


def _window(strokes: list[_Stroke], shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    if not strokes:
        return None
    corners = np.concatenate([polygon for polygon, _ in strokes]) / (1 << _SHIFT)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, [shape[1], shape[0]])
    if (high <= low).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _camera_views(painted: list[_Painted], image_size: tuple[int, int]) -> list[CameraView]:
    """Walk from near to far, and count what the nearer ones let through."""
    free = np.ones(image_size, dtype=np.float32)
    camera_views = []
    for item in reversed(painted):
        view = free[item.window]
        visible = float(view[item.mask].sum(dtype=np.float64))
        pixels = int(item.mask.sum())
        if pixels:
            evidence = visible * item.opacity * item.transmission
            camera_views.append(CameraView(item.key, pixels, visible, evidence))
        view[item.mask] *= 1 - item.opacity
    return camera_views


def _background(
    scene: Scene, time: float, ego: Pose, channel: str, image_size: tuple[int, int]
) -> NDArray[np.uint8]:
    height, width = image_size
    horizon, ground, depth = _ground_rays(channel, image_size)
    image = np.empty((height, width, 3), dtype=np.float32)
    image[:horizon] = _sky(scene, ego, channel, image_size, horizon)
    at = ego.to_global(np.column_stack([ground, np.zeros(len(ground))]))[:, :2]
    colours = _ground_colours(scene, time, at)
    clear = np.exp(-scene.fog(time) * depth)[:, None]
    image[horizon:] = (colours * clear + _FOG_COLOUR * (1 - clear)).reshape(-1, width, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


@lru_cache(maxsize=24)
def _ground_rays(channel: str, image_size: tuple[int, int]) -> tuple[int, NDArray, NDArray]:
    """First row below the horizon; ego-frame ground points (n, 2) of its pixels; their depth."""
    mount, yaw, _ = CAMERAS[channel]
    matrix = intrinsics(channel, image_size)
    horizon = math.ceil(matrix[1, 2] + 0.01 * matrix[1, 1])
    v, u = np.mgrid[horizon : image_size[0], 0 : image_size[1]].reshape(2, -1)
    depth = mount[2] * matrix[1, 1] / (v - matrix[1, 2])
    right = (u - matrix[0, 2]) / matrix[0, 0] * depth
    c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    x, y = mount[0] + c * depth + s * right, mount[1] + s * depth - c * right
    return horizon, np.column_stack([x, y]), depth


def _ground_colours(scene: Scene, time: float, at: NDArray) -> NDArray:
    """Colours (n, 3) of global ground points (n, 2): road, markings, pavement, grain."""
    along, lateral = scene.road_coordinates(at, scene.ego_speed * time)
    across = np.abs(lateral)
    grey = np.where(across < 9.2, 88.0, 118.0)
    grey = np.where((across > 9.2) & (across < 12.0), 138.0, grey)
    dashed = (np.abs(across - 1.85) < 0.09) & (along % 6.0 < 2.6)
    grey = np.where(dashed | (np.abs(across - 5.7) < 0.09), 205.0, grey)
    cells = np.floor(at * 9.0).astype(np.int64) & 511
    coarse = np.floor(at * 0.7).astype(np.int64) & 511
    grain = _grain()
    grey = grey + 14.0 * grain[cells[:, 0], cells[:, 1]] + 16.0 * grain[coarse[:, 0], coarse[:, 1]]
    return grey[:, None] * np.array([0.98, 1.0, 1.01])


@lru_cache(maxsize=1)
def _grain() -> NDArray:
    return seeded("ground grain").uniform(-1, 1, (512, 512))


def _sky(
    scene: Scene, ego: Pose, channel: str, image_size: tuple[int, int], horizon: int
) -> NDArray:
    """Sky (horizon, W, 3), paler towards the horizon, with the skyline of far buildings."""
    matrix = intrinsics(channel, image_size)
    up = (horizon - np.arange(horizon))[:, None] / matrix[1, 1]
    sky = _FOG_COLOUR + np.clip(up, 0, 0.5)[..., None] * np.array([110.0, 40.0, -20.0])
    sky = np.repeat(sky, image_size[1], axis=1)
    bearing = np.arctan2(matrix[0, 2] - np.arange(image_size[1]), matrix[0, 0])
    world = np.degrees(bearing + ego.yaw) + CAMERAS[channel][1]
    block = np.floor((world % 360.0) / 3.0).astype(int)
    rng = seeded(scene.seed, scene.name, "skyline")
    tall, tone = rng.uniform(0.01, 0.16, 120)[block], rng.uniform(95, 150, 120)[block]
    building = up < tall[None]
    return np.where(building[..., None], tone[None, :, None], sky)


@lru_cache(maxsize=1)
def _noise() -> NDArray:
    return seeded("sensor noise").normal(0, 3.0, (1200, 1800, 3)).round().astype(np.int16)


def _expose(rng: np.random.Generator, image: NDArray[np.uint8], light: float) -> NDArray[np.uint8]:
    """Dim by the light, add the sensor's noise."""
    top, left = int(rng.integers(0, 200)), int(rng.integers(0, 200))
    noise = _noise()[top : top + image.shape[0], left : left + image.shape[1]]
    dimmed = cv2.convertScaleAbs(image, alpha=light).astype(np.int16)
    return np.clip(dimmed + noise, 0, 255).astype(np.uint8)
