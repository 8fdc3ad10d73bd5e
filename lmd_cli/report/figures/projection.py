"""Boxes and points of a sample as its cameras see them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.crn.matrices import PERSPECTIVE_CAMERAS
from lmd_cli.data.nuscenes.database import CAMERAS

Array = NDArray[np.floating]

#: What is nearer to a camera's plane is not drawn, metres.
NEAR = 0.5
#: What stands where a network detects something, metres: across, up, along.
ANYTHING = (3.0, 1.6, 3.0)
#: A frame in no image.
NOWHERE = (-1.0, 0.0, 0.0, 0.0, 0.0)
#: Pairs of corners that an edge joins: those that differ in one of three bits.
EDGES = tuple((i, j) for i, j in itertools.combinations(range(8), 2) if (i ^ j).bit_count() == 1)


@dataclass(frozen=True, eq=False)
class Overlay:
    """What is drawn over one image, in pixels (right, down).

    Attributes:
        segments: boxes' edges, (n, 2, 2).
        points: (m, 2); ``depth``: their distance along the camera's axis (m,), metres.
        sensor: whose points they are.
    """

    segments: Array
    points: Array
    depth: Array
    sensor: str = "radar"


def overlay(
    boxes: Sequence[Box3D],
    points: Array,
    pix_T_cam: Array,
    cam0_T_cam: Array,
    size: tuple[int, int],
    sensor: str = "radar",
) -> Overlay:
    """Boxes and points, in the reference camera's axes, projected into one image.

    Args:
        boxes: vehicles.
        points: (n, 3), metres.
        pix_T_cam: (4, 4), intrinsics.
        cam0_T_cam: (4, 4), this camera to the reference camera.
        size: (H, W), pixels; points outside are left out.
        sensor: whose points they are.
    """
    cam_T_cam0 = np.linalg.inv(np.asarray(cam0_T_cam, dtype=np.float64))
    corners = [_moved(cam_T_cam0, box.corners) for box in boxes]
    pieces = [_clipped(c[i], c[j]) for c in corners for i, j in EDGES]
    ends = [piece for piece in pieces if piece is not None]
    segments = _pixels(pix_T_cam, np.array(ends).reshape(-1, 3)).reshape(-1, 2, 2)
    seen = _moved(cam_T_cam0, points)
    seen = seen[seen[:, 2] > NEAR]
    pixels = _pixels(pix_T_cam, seen)
    inside = ((pixels >= 0) & (pixels < np.array(size[::-1]))).all(axis=1)
    return Overlay(segments, pixels[inside], seen[inside, 2], sensor)


def _moved(matrix: Array, xyz: Array) -> Array:
    """Points (n, 3) through a transform (4, 4)."""
    return np.asarray(xyz, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def _clipped(start: Array, end: Array) -> tuple[Array, Array] | None:
    """The piece of an edge in front of the camera; ``None`` if there is none."""
    if start[2] > end[2]:
        start, end = end, start
    if end[2] <= NEAR:
        return None
    if start[2] < NEAR:
        start = start + (NEAR - start[2]) / (end[2] - start[2]) * (end - start)
    return start, end


def _pixels(pix_T_cam: Array, xyz: Array) -> Array:
    """(n, 3) in front of the camera to (n, 2)."""
    projected = xyz @ np.asarray(pix_T_cam, dtype=np.float64)[:3, :3].T
    return projected[:, :2] / projected[:, 2:]


def sample_overlays(
    boxes: Sequence[Box3D],
    tensors: Mapping[str, Array],
    pixels: Mapping[str, Array] | None = None,
    cameras: Sequence[str] | None = None,
) -> dict[str, Overlay]:
    """Overlays of a sample's cameras, with its radar or else its LiDAR points.

    Args:
        boxes: the sample's vehicles, in the axes of the maps.
        tensors: those of a :class:`~lmd_cli.data.Sample`.
        pixels: radar points by camera, (k, 3): u, v, depth, where the tensors do not hold them in
            space.
        cameras: in the tensors' order; nuScenes' in the network's by default.
    """
    views, (height, width) = _views(tensors, cameras)
    if "radar_xyz" in tensors:
        points = tensors["radar_xyz"][:-1]  # the last point is padding
    else:
        points = tensors.get("lidar_xyz", np.zeros((0, 3)))
    sensor = "lidar" if "lidar_xyz" in tensors and "radar_xyz" not in tensors else "radar"
    overlays = {
        name: overlay(boxes, points, pix_T_cam, map_T_cam, (height, width), sensor)
        for name, (pix_T_cam, map_T_cam) in views.items()
    }
    seen = pixels or {}
    return overlays | {
        name: replace(overlays[name], points=seen[name][:, :2], depth=seen[name][:, 2])
        for name in overlays
        if name in seen
    }


def object_frames(
    boxes: Sequence[Box3D],
    tensors: Mapping[str, Array],
    cameras: Sequence[str],
    places: Sequence[tuple[float, float]],
) -> list[tuple[float, ...]]:
    """Where vehicles, and then whatever stands at some places, are seen in the images.

    Something of :data:`ANYTHING` metres stands at a place, as high as the vehicles do.

    Args:
        boxes: the sample's vehicles, in the axes of the maps.
        tensors, cameras: as :func:`sample_overlays` takes them.
        places: on the ground, metres (right, forward).

    Returns:
        the camera's place in ``cameras`` where most of each is seen, or -1, then the frame: left,
        top, right, bottom, pixels.
    """
    if not cameras:
        return [NOWHERE] * (len(boxes) + len(places))
    views, size = _views(tensors, cameras)
    level = float(np.mean([box.center[1] for box in boxes])) if boxes else None
    corners: list[Array | None] = [box.corners for box in boxes]
    corners += [None if level is None else _standing(place, level) for place in places]
    return [NOWHERE if c is None else _best_frame(c, views, size) for c in corners]


def _standing(place: tuple[float, float], level: float) -> Array:
    """Corners (8, 3) of a box of :data:`ANYTHING`, in the order of the boxes'."""
    signs = np.array(list(itertools.product((0.5, -0.5), repeat=3)))
    return signs * np.array(ANYTHING) + [place[0], level, place[1]]


def _best_frame(
    corners: Array, views: Mapping[str, tuple[Array, Array]], size: tuple[int, int]
) -> tuple[float, ...]:
    best: tuple[float, ...] = NOWHERE
    most = 0.0
    for number, (pix_T_cam, cam0_T_cam) in enumerate(views.values()):
        box = _moved(np.linalg.inv(np.asarray(cam0_T_cam, dtype=np.float64)), corners)
        ends = [piece for i, j in EDGES if (piece := _clipped(box[i], box[j])) is not None]
        if not ends:
            continue
        pixels = _pixels(pix_T_cam, np.array(ends).reshape(-1, 3))
        low, high = (np.clip(edge(pixels, axis=0), 0, size[::-1]) for edge in (np.min, np.max))
        area = float(np.prod(high - low))
        if area > most:
            best, most = (float(number), *map(float, (*low, *high))), area
    return best


def _views(
    tensors: Mapping[str, Array], cameras: Sequence[str] | None
) -> tuple[dict[str, tuple[Array, Array]], tuple[int, int]]:
    """Each camera's intrinsics and pose, of either network, and the images' height and width."""
    if "imgs" in tensors:
        views = perspective_views(tensors, cameras or PERSPECTIVE_CAMERAS)
    else:
        views = reference_views(tensors, cameras or CAMERAS)
    height, width = tensors["imgs" if "imgs" in tensors else "images"].shape[-2:]
    return views, (height, width)


def reference_views(
    tensors: Mapping[str, Array], cameras: Sequence[str]
) -> dict[str, tuple[Array, Array]]:
    """SimpleBEV's cameras: intrinsics, and camera to the map's axes, (4, 4) each."""
    pairs = zip(tensors["pix_T_cams"], tensors["cam0_T_camXs"], strict=True)
    return dict(zip(cameras, pairs, strict=True))


#: The ego frame (x forward, y left, z up) to the axes of maps that are turned forward up.
MAP_T_EGO = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


def perspective_views(
    tensors: Mapping[str, Array], cameras: Sequence[str]
) -> dict[str, tuple[Array, Array]]:
    """The same for CRN's cameras in the current frame."""
    views = {}
    for i, name in enumerate(cameras):
        image = np.eye(3)  # the scale and shift of the image transform, on homogeneous pixels
        image[:2, :2] = tensors["ida_mats"][0, i, :2, :2]
        image[:2, 2] = tensors["ida_mats"][0, i, :2, 3]
        pix_T_cam = np.eye(4)
        pix_T_cam[:3, :3] = image @ tensors["intrin_mats"][0, i, :3, :3]
        views[name] = (pix_T_cam, MAP_T_EGO @ tensors["sensor2ego_mats"][0, i])
    return views
