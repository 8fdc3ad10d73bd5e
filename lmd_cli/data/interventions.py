"""Takes an annotated object out of one sensor's raw data: its points, or its pixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.data.nuscenes.database import Annotation, SampleRecord, SensorFrame
from lmd_cli.data.nuscenes.frames import Matrix, invert_rigid, move, rigid
from lmd_cli.data.nuscenes.images import ImageEdit
from lmd_cli.data.sample import Sample

Fill = Literal["inpaint", "ring"]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
#: Nearer to a camera than this nothing is projected, metres.
NEAR = 0.1
#: Radius of the neighbourhood that inpainting looks at, pixels.
INPAINT_RADIUS = 3
#: Width of the ring around a region, as a share of the region's larger side, and at least, pixels.
RING_SHARE, RING_LEAST = 0.1, 3

_CORNERS = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))  # (8, 3)
_EDGES = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]


@dataclass(frozen=True)
class RemovalSettings:
    """How an object's evidence is taken away.

    Attributes:
        margin: by which its box is enlarged on every side, metres.
        fill: what fills its region of an image: ``inpaint`` (Telea's method), or the mean colour
            of the ``ring`` around the region.
    """

    margin: float = 0.5
    fill: Fill = "inpaint"


@dataclass(frozen=True)
class Removed:
    """A sample without one object in one sensor's data.

    Attributes:
        sample: as the network takes it.
        amount: points or pixels that were taken away; with none the sample is as it was.
        clipped: images whose edge cuts the object's region.
    """

    sample: Sample
    amount: int
    clipped: int = 0


class BoxRemoval:
    """Takes what is inside one object's box out of point clouds and images, and counts it.

    Between key frames the box moves on with the velocity of the annotation that is nearest in time.

    Args:
        boxes: the object's annotations with their times, microseconds; at least one.
        settings: margin and filling.

    Attributes:
        amount: points or pixels that were taken away so far.
        clipped: images so far whose edge cuts the region.
    """

    def __init__(self, boxes: Sequence[tuple[int, Annotation]], settings: RemovalSettings) -> None:
        self._boxes, self._settings = boxes, settings
        self.amount = self.clipped = 0

    def points(self, cloud: Matrix, sweep: SensorFrame, *, flat: bool = False) -> Matrix:
        """The points (d, n) of a sweep, x, y, z in its sensor's frame first, that are not inside.

        Below the box there is no margin: what is there is the ground's.

        Args:
            flat: whatever their height; a radar measures none.
        """
        box_T_sensor = invert_rigid(self._pose(sweep)) @ _global_T_sensor(sweep)
        local = move(box_T_sensor, cloud[:3])  # (3, n)
        half = self._extent(sweep)[:, None] / 2
        inside = np.abs(local) <= half
        inside[2] &= local[2] >= self._settings.margin - half[2]
        kept = ~inside[: 2 if flat else 3].all(axis=0)
        self.amount += int((~kept).sum())
        return cloud[:, kept]

    def region(self, camera: SensorFrame) -> Mask | None:
        """The pixels (height, width) of a camera's recorded size that the box covers; none if it
        covers none."""
        outline = self._outline(camera)
        size = (camera.height, camera.width)
        mask = None if len(outline) < 3 else convex_mask(outline, size)
        if mask is None or not mask.any():
            return None
        low, high = outline.min(axis=0), outline.max(axis=0)
        if (low < -0.5).any() or (high > np.array(size[::-1]) - 0.5).any():
            self.clipped += 1
        self.amount += int(mask.sum())
        return mask

    def filled(self, pixels: Pixels, region: Mask) -> Pixels:
        """An image (H, W, 3), perhaps a scaled copy of the recorded size, without a region."""
        mask = region
        if pixels.shape[:2] != region.shape:
            scaled = cv2.resize(region.astype(np.uint8), pixels.shape[1::-1])
            mask = scaled > 0
        return fill_region(pixels, mask, self._settings.fill)

    def images(
        self,
        images: Tensor,
        cameras: Sequence[SensorFrame],
        read: Callable[[SensorFrame, ImageEdit], Tensor],
    ) -> Tensor:
        """A sample's images (S, 3, H, W), those that show the object read again without it."""
        images = images.clone()
        for i, camera in enumerate(cameras):
            region = self.region(camera)
            if region is not None:
                images[i] = read(camera, partial(self.filled, region=region))
        return images

    def _nearest(self, frame: SensorFrame) -> tuple[int, Annotation]:
        return min(self._boxes, key=lambda box: abs(box[0] - frame.timestamp))

    def _pose(self, frame: SensorFrame) -> Matrix:
        """The box's pose (4, 4), global, at a frame's time."""
        time, box = self._nearest(frame)
        velocity = np.nan_to_num(np.asarray(box.velocity, dtype=np.float64))
        pose = rigid(box.translation, box.rotation)
        pose[:3, 3] += velocity * 1e-6 * (frame.timestamp - time)
        return pose

    def _extent(self, frame: SensorFrame) -> NDArray[np.float64]:
        """Length, width and height with the margin."""
        width, length, height = self._nearest(frame)[1].size
        return np.array([length, width, height]) + 2 * self._settings.margin

    def _outline(self, camera: SensorFrame) -> NDArray[np.float64]:
        """The box's outline (n, 2) in a camera's pixels; nothing if it is all behind it."""
        camera_T_box = invert_rigid(_global_T_sensor(camera)) @ self._pose(camera)
        corners = move(camera_T_box, (_CORNERS * self._extent(camera)).T).T  # (8, 3)
        seen = before_plane(corners, NEAR)
        if not len(seen):
            return np.zeros((0, 2))
        uvw = seen @ np.asarray(camera.intrinsic, dtype=np.float64).T
        return uvw[:, :2] / uvw[:, 2:]


def removal_of(
    records: Sequence[SampleRecord], token: str, settings: RemovalSettings
) -> BoxRemoval:
    """The removal of an annotation of the first record, followed into the others.

    Args:
        records: a sample, then the key frames before it that a network takes as well.
        token: of an annotation of the sample.
        settings: margin and filling.

    Raises:
        KeyError: the sample has no such annotation.
    """
    own = next((box for box in records[0].vehicles if box.token == token), None)
    if own is None:
        raise KeyError(f"sample {records[0].token} has no vehicle {token}")
    boxes = [
        (record.reference.timestamp, box)
        for record in records
        for box in record.vehicles
        if box.token == token or (box.instance and box.instance == own.instance)
    ]
    return BoxRemoval(boxes, settings)


def before_plane(corners: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    """The corners (n, 3) of the part of a box (8, 3) with z of at least ``near``."""
    ahead = corners[:, 2] >= near
    seen = [corners[i] for i in range(8) if ahead[i]]
    for i, j in _EDGES:
        if ahead[i] != ahead[j]:
            share = (near - corners[i, 2]) / (corners[j, 2] - corners[i, 2])
            seen.append(corners[i] + share * (corners[j] - corners[i]))
    return np.array(seen).reshape(-1, 3)


def convex_mask(points: NDArray[np.float64], size: tuple[int, int]) -> Mask:
    """The pixels of an image of ``size`` (H, W) whose centres are in the convex hull of points
    (n, 2), which may lie anywhere."""
    mask = np.zeros(size, dtype=bool)
    low = np.clip(np.ceil(points.min(axis=0)), 0, size[::-1]).astype(int)
    high = np.clip(np.floor(points.max(axis=0)) + 1, 0, size[::-1]).astype(int)
    if (high <= low).any():
        return mask
    hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)  # (k, 2)
    u, v = np.arange(low[0], high[0])[None, :], np.arange(low[1], high[1])[:, None]
    crossed = [
        (b[0] - a[0]) * (v - a[1]) - (b[1] - a[1]) * (u - a[0])
        for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True)
    ]
    inside = np.all([c >= 0 for c in crossed], axis=0) | np.all([c <= 0 for c in crossed], axis=0)
    mask[low[1] : high[1], low[0] : high[0]] = inside
    return mask


def fill_region(pixels: Pixels, region: Mask, fill: Fill) -> Pixels:
    """An image (H, W, 3) with a region filled from what is around it; where nothing is around it,
    with the image's mean colour."""
    if not region.any():
        return pixels
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    width = max(RING_LEAST, round(RING_SHARE * side))
    window = tuple(slice(max(0, at[0] - width), at[-1] + width + 1) for at in (rows, columns))
    out, patch, hole = pixels.copy(), pixels[window], region[window]
    if hole.all():
        out[window] = pixels.mean(axis=(0, 1)).round()
    elif fill == "inpaint":
        drawn = hole.astype(np.uint8)
        out[window] = cv2.inpaint(
            np.ascontiguousarray(patch), drawn, INPAINT_RADIUS, cv2.INPAINT_TELEA
        )
    else:
        around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1,) * 2)
        ring = (cv2.dilate(hole.astype(np.uint8), around) > 0) & ~hole
        out[window][hole] = patch[ring].mean(axis=0).round()
    return out


def _global_T_sensor(frame: SensorFrame) -> Matrix:
    return frame.global_T_ego() @ frame.ego_T_sensor()
