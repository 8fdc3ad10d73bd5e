"""Ground truth in CRN's ego frame: boxes (x forward, y left, z up) and bird's-eye-view masks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.crn.matrices import global_T_mean_ego
from lmd_cli.data.nuscenes.database import DETECTION_CLASSES, Annotation, SampleRecord
from lmd_cli.data.nuscenes.frames import Matrix, invert_rigid, rigid

#: Corners by front and back, within that left and right, within that top and bottom, as a
#: :class:`~lmd_cli.data.boxes.Box3D` has them.
_SIGNS = np.array(list(itertools.product((1, -1), repeat=3)))


@dataclass(frozen=True)
class EgoBox:
    """An annotated box in the ego frame (x forward, y left, z up).

    Attributes:
        token: the annotation's token.
        category: e.g. ``vehicle.car``.
        name: its class in nuScenes' detection task, e.g. ``car``; none for classes not in it.
        visibility: nuScenes level, 1 (0 to 40 % seen) to 4 (80 to 100 %); 0 where unknown.
        center: metres.
        size: length, width, height, metres.
        yaw: heading, radians, from x (forward) towards y (left).
        velocity: (vx, vy) over ground along the ego frame's axes, m/s; NaN where unknown.
        num_lidar_pts: LiDAR points inside the box, as annotated.
        num_radar_pts: radar points inside the box, as annotated.
    """

    token: str
    category: str
    name: str | None
    visibility: int
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    velocity: tuple[float, float]
    num_lidar_pts: int
    num_radar_pts: int


def ego_boxes(record: SampleRecord) -> list[EgoBox]:
    """The sample's vehicles, in the order of the annotation table.

    The ego frame is the mean of the vehicle's poses at the six cameras, as in CRN's evaluation.
    """
    ego_T_global = invert_rigid(global_T_mean_ego(record.cameras))
    return [_box(annotation, ego_T_global) for annotation in record.vehicles]


def _box(annotation: Annotation, ego_T_global: Matrix) -> EgoBox:
    ego_T_box = ego_T_global @ rigid(annotation.translation, annotation.rotation)
    x, y, z = ego_T_box[:3, 3].tolist()
    vx, vy, _ = (ego_T_global[:3, :3] @ np.asarray(annotation.velocity)).tolist()
    width, length, height = annotation.size
    return EgoBox(
        token=annotation.token,
        category=annotation.category,
        name=DETECTION_CLASSES.get(annotation.category),
        visibility=annotation.visibility,
        center=(x, y, z),
        size=(length, width, height),
        yaw=math.atan2(ego_T_box[1, 0], ego_T_box[0, 0]),
        velocity=(vx, vy),
        num_lidar_pts=annotation.num_lidar_pts,
        num_radar_pts=annotation.num_radar_pts,
    )


def turned(box: EgoBox) -> Box3D:
    """The box in axes x right, y down, z forward with the same origin."""
    forward, left, up = box.center
    half = np.array(box.size) / 2 * _SIGNS  # (8, 3): along, across, upwards
    cos, sin = math.cos(box.yaw), math.sin(box.yaw)
    x, y = cos * half[:, 0] - sin * half[:, 1], sin * half[:, 0] + cos * half[:, 1]
    corners = np.stack([-(left + y), -(up + half[:, 2]), forward + x], axis=1)
    return Box3D(
        token=box.token,
        category=box.category,
        visibility=box.visibility,
        corners=corners.astype(np.float32),
        center=np.array([-left, -up, forward], dtype=np.float32),
        size=box.size,
        yaw=math.atan2(cos, -sin),
        num_lidar_pts=box.num_lidar_pts,
        num_radar_pts=box.num_radar_pts,
        speed=float(np.hypot(*box.velocity)),
    )


def covered(box: EgoBox, extent: float, cells: int) -> NDArray[np.bool_]:
    """The cells of CRN's map that a box covers, (ny, nx): rows y (left), columns x (forward).

    Those whose centre is in the box's outline from above, and the one its own centre is in, so
    that a narrow vehicle has at least one.

    Args:
        box: the box.
        extent: the map goes from ``-extent`` (index 0) to ``extent`` in x and y, metres.
        cells: number of cells along either axis.
    """
    step = 2 * extent / cells
    centres = (np.arange(cells) + 0.5) * step - extent
    x, y = centres[None, :] - box.center[0], centres[:, None] - box.center[1]
    cos, sin = math.cos(box.yaw), math.sin(box.yaw)
    along, across = np.abs(cos * x + sin * y), np.abs(cos * y - sin * x)  # (ny, nx)
    mask = (along <= box.size[0] / 2) & (across <= box.size[1] / 2)
    column, row = (math.floor((value + extent) / step) for value in box.center[:2])
    if 0 <= column < cells and 0 <= row < cells:
        mask[row, column] = True
    return mask


def map_truth(boxes: Sequence[EgoBox], extent: float, cells: int) -> dict[str, Tensor]:
    """``cars`` and ``vehicles`` (1, ny, nx) float32: 1 where a car, or any vehicle, is."""
    cars, vehicles = np.zeros((2, 1, cells, cells), dtype=np.float32)
    for box in boxes:
        mask = covered(box, extent, cells)
        vehicles[0, mask] = 1.0
        if box.name == "car":
            cars[0, mask] = 1.0
    return {"cars": torch.from_numpy(cars), "vehicles": torch.from_numpy(vehicles)}
