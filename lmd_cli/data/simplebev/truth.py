"""Ground truth: vehicle boxes in the reference camera's axes, and their bird's-eye-view maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.nuscenes.database import Annotation, SampleRecord
from lmd_cli.data.nuscenes.frames import Matrix, invert_rigid, move, rigid
from lmd_cli.geometry import Grid

#: Standard deviation of the bump drawn at each vehicle's centre, cells.
CENTER_RADIUS = 3.0
#: Below this the bump is cut to zero.
CENTER_FLOOR = 0.001


def camera_boxes(record: SampleRecord, cam0_T_ego: Matrix) -> list[Box3D]:
    """The sample's vehicles, in the order of the annotation table.

    The ego frame is the one at the time of the LiDAR keyframe, as in SimpleBEV (without a LiDAR,
    that of the reference camera).

    Args:
        record: the sample.
        cam0_T_ego: (4, 4) float32.
    """
    ego_T_global = invert_rigid(record.reference.global_T_ego())
    return [_box(annotation, ego_T_global, cam0_T_ego) for annotation in record.vehicles]


def _box(annotation: Annotation, ego_T_global: Matrix, cam0_T_ego: Matrix) -> Box3D:
    ego_T_box = ego_T_global @ rigid(annotation.translation, annotation.rotation)
    cam0_T_box = cam0_T_ego @ ego_T_box.astype(np.float32)  # (4, 4)
    width, length, height = annotation.size
    extent = np.array([[length], [width], [height]], dtype=np.float32)  # (3, 1)
    right, _, forward = cam0_T_box[:3, 0]
    return Box3D(
        token=annotation.token,
        category=annotation.category,
        visibility=annotation.visibility,
        corners=np.ascontiguousarray(move(cam0_T_box, extent * _SIGNS).T),
        center=cam0_T_box[:3, 3].copy(),
        size=(length, width, height),
        yaw=float(np.arctan2(forward, right)),
        num_lidar_pts=annotation.num_lidar_pts,
        num_radar_pts=annotation.num_radar_pts,
        speed=annotation.speed,
    )


def vehicle_truth(boxes: Sequence[Box3D], grid: Grid) -> dict[str, Tensor]:
    """SimpleBEV's targets for the vehicles, float32 on the grid's (Z, X) cells.

    - ``segmentation`` (1, Z, X): 1 on a vehicle
    - ``valid`` (1, Z, X): 0 on a vehicle of visibility 1, which loss and IoU leave out
    - ``center`` (1, Z, X): a bump of height 1 at every vehicle's centre
    - ``offset`` (2, Z, X): on a vehicle, twice the way in cells (x, z) from its centre to the
      cell (SimpleBEV adds the minimum and maximum over a height axis of one), else 0
    """
    labels, valid = _rasterise(boxes, grid)
    vehicle = torch.from_numpy(labels)[None]  # (1, Z, X), the box's number from 1, or 0
    center, offset = _center_and_offset(boxes, vehicle, grid)
    return {
        "segmentation": (vehicle > 0).float(),
        "valid": torch.from_numpy(valid)[None],
        "center": center,
        "offset": offset,
    }


def _rasterise(boxes: Sequence[Box3D], grid: Grid) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Maps (Z, X) of box numbers, from 1, later boxes above earlier ones; and of validity."""
    depth, _, width = grid.size
    labels = np.zeros((depth, width), dtype=np.int32)
    valid = np.ones((depth, width), dtype=np.float32)
    for number, box in enumerate(boxes, start=1):
        outline = footprint(box, grid)
        cv2.fillPoly(labels, [outline], (number,))
        if box.visibility == 1:
            cv2.fillPoly(valid, [outline], (0.0,))
    return labels, valid


def footprint(box: Box3D, grid: Grid) -> NDArray[np.int32]:
    """Outline of a box on the grid, (4, 2) cells (x, z), truncated towards zero as in SimpleBEV.

    The outline is that of the four highest corners. They are taken around their middle: the same
    polygon as SimpleBEV draws from the order of their heights, and, unlike that, also right where
    two corners are level.
    """
    highest = np.argsort(box.corners[:, 1], kind="stable")[:4]
    mem = grid.to_mem(torch.from_numpy(box.corners[highest])).numpy()[:, [0, 2]]  # (4, 2)
    around = mem - mem.mean(axis=0)
    order = np.argsort(np.arctan2(around[:, 1], around[:, 0]))
    return mem[order].astype(np.int32)


def footprint_mask(box: Box3D, grid: Grid) -> NDArray[np.bool_]:
    """The cells (Z, X) that a box's footprint covers, whatever lies above it."""
    depth, _, width = grid.size
    mask = np.zeros((depth, width), dtype=np.uint8)
    cv2.fillPoly(mask, [footprint(box, grid)], (1,))
    return mask > 0


def _center_and_offset(
    boxes: Sequence[Box3D], vehicle: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """``center`` (1, Z, X) and ``offset`` (2, Z, X) for a map (1, Z, X) of box numbers."""
    depth, _, width = grid.size
    if not boxes:
        return torch.zeros(1, depth, width), torch.zeros(2, depth, width)
    centers = torch.from_numpy(np.stack([box.center for box in boxes]))  # (N, 3)
    cells = grid.to_mem(centers)[:, [0, 2]].round()  # (N, 2)
    squared = _squared_distances(cells.long().tolist(), (depth, width))  # (Z, X)
    bumps = torch.exp(-squared[None] / (2 * CENTER_RADIUS**2))  # (1, Z, X)
    center = torch.where(bumps < CENTER_FLOOR, 0.0, bumps)
    owner = (vehicle[0].long() - 1).clamp(min=0)  # (Z, X)
    own = cells[owner]  # (Z, X, 2)
    way_x, way_z = torch.arange(width) - own[..., 0], torch.arange(depth)[:, None] - own[..., 1]
    offset = 2.0 * torch.stack([way_x, way_z]) * (vehicle > 0)  # (2, Z, X)
    return center, offset


def _squared_distances(cells: Sequence[Sequence[int]], shape: tuple[int, int]) -> Tensor:
    """Of each cell (Z, X) to the nearest of ``cells`` (x, z), squared; infinite where the bump
    would be cut."""
    reach = math.ceil(CENTER_RADIUS * math.sqrt(-2 * math.log(CENTER_FLOOR)))
    around = torch.arange(-reach, reach + 1, dtype=torch.float32).square()
    window = around[:, None] + around  # (2 reach + 1, 2 reach + 1)
    margin = 2 * reach  # of the map, so that no window of a centre near its edge needs cutting
    squared = torch.full((shape[0] + 2 * margin, shape[1] + 2 * margin), math.inf)
    for x, z in cells:
        if -reach <= x < shape[1] + reach and -reach <= z < shape[0] + reach:
            rows, columns = (slice(at + reach, at + 3 * reach + 1) for at in (z, x))
            place = squared[rows, columns]
            torch.minimum(place, window, out=place)
    return squared[margin:-margin, margin:-margin].contiguous()


_SIGNS = np.array(list(itertools.product((0.5, -0.5), repeat=3)), dtype=np.float32).T  # (3, 8)
