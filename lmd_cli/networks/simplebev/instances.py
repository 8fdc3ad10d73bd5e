"""SimpleBEV's instances: which cells of the segmentation are one vehicle.

Source: Hu et al., "FIERY: Future Instance Prediction in Bird's-Eye View from Surround Monocular
Cameras", 2021, from which SimpleBEV takes its centre and offset heads: peaks of the centre map,
and each cell to the peak that its offset points nearest to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.geometry import Grid
from lmd_cli.networks.detections import Detections, Place

How = Literal["offsets", "components"]
#: What :func:`instances` reads.
HEADS = ("segmentation", "instance_center", "instance_offset")
#: A centre is the highest of so many cells squared, and higher than this probability.
WINDOW, LEAST_CENTRE = 3, 0.1
#: The highest centres that become instances.
MOST = 100
#: SimpleBEV's offsets are twice the way in cells from the centre to the cell.
OFFSET_SCALE = 2.0
#: Class of every instance: the segmentation is of vehicles of any kind.
NAME = "vehicle"
#: The segmentation has no height: its boxes get that of nuScenes' mean car, metres.
HEIGHT = 1.73


def instances(outputs: Mapping[str, Tensor], grid: Grid, how: How) -> list[Detections]:
    """Instances of each sample of a batch, by falling score: the probability of the mean logit.

    A box is the smallest rectangle along its cells' principal axes, with x forward and y left of
    the reference camera and z from the ground; heading (up to half a turn) along the longer
    side, velocity zero.

    Args:
        outputs: :data:`HEADS`, (B, channels, Z, X) each.
        grid: the network's.
        how: ``offsets`` by centre and offset heads, or ``components``: cells that touch.
    """
    maps = {name: outputs[name].detach().float().cpu() for name in HEADS}
    count = len(maps[HEADS[0]])
    return [_of_sample({n: x[i] for n, x in maps.items()}, grid, how) for i in range(count)]


def _of_sample(maps: Mapping[str, Tensor], grid: Grid, how: How) -> Detections:
    logits = maps["segmentation"][0]  # (Z, X)
    labels = (_components if how == "components" else _grouped)(maps)
    places = _places(labels)
    means = [logits[place.rows, place.columns].double().mean() for place in places]
    scores = torch.stack(means).sigmoid().float() if means else torch.zeros(0)
    order = scores.argsort(descending=True, stable=True).tolist()
    boxes = [_box(places[i], grid) for i in order]
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 9),
        scores[order],
        (NAME,) * len(order),
        tuple(places[i] for i in order),
    )


def _places(labels: NDArray[np.int32]) -> list[Place]:
    """The cells of each number from 1 in a map (Z, X), in the order of the numbers."""
    rows, columns = np.nonzero(labels)
    order = labels[rows, columns].argsort(kind="stable")
    rows, columns = rows[order], columns[order]
    starts = np.flatnonzero(np.diff(labels[rows, columns])) + 1
    pairs = zip(np.split(rows, starts), np.split(columns, starts), strict=True)
    return [Place("segmentation", 0, *pair) for pair in pairs if len(pair[0])]


def _components(maps: Mapping[str, Tensor]) -> NDArray[np.int32]:
    """Groups of touching cells above zero, from 1; (Z, X)."""
    above = (maps["segmentation"][0] > 0).numpy().astype(np.uint8)
    return np.asarray(cv2.connectedComponents(above, connectivity=8)[1], dtype=np.int32)


def _grouped(maps: Mapping[str, Tensor]) -> NDArray[np.int32]:
    """Each cell above zero with the number of its centre, from 1; (Z, X)."""
    above = maps["segmentation"][0] > 0
    centres = _centres(maps["instance_center"][0])  # (n, 2) columns and rows
    labels = np.zeros(above.shape, dtype=np.int32)
    rows, columns = above.nonzero(as_tuple=True)
    if len(centres) and len(rows):
        cells = torch.stack([columns, rows], dim=1).float()
        ways = maps["instance_offset"][:, rows, columns].T / OFFSET_SCALE  # (m, 2) x, z
        nearest = torch.cdist(cells - ways, centres).argmin(dim=1)
        labels[rows.numpy(), columns.numpy()] = nearest.numpy() + 1
    return labels


def _centres(heat: Tensor) -> Tensor:
    """Columns and rows (n, 2) of the peaks of a map (Z, X), the highest first."""
    highest = torch.nn.functional.max_pool2d(heat[None], WINDOW, 1, WINDOW // 2)[0]
    rows, columns = ((heat == highest) & (heat > LEAST_CENTRE)).nonzero(as_tuple=True)
    order = heat[rows, columns].argsort(descending=True, stable=True)[:MOST]
    return torch.stack([columns[order], rows[order]], dim=1).float()


def _box(place: Place, grid: Grid) -> list[float]:
    """The nine numbers of :data:`~lmd_cli.networks.detections.BOX_COLUMNS`."""
    across, _, along = grid.voxel
    right, _, ahead = grid.lower
    forward = ahead + (place.rows + 0.5) * along
    left = -(right + (place.columns + 0.5) * across)
    points = np.stack([forward, left])  # (2, n)
    middle = points.mean(axis=1, keepdims=True)
    axes = np.linalg.eigh((points - middle) @ (points - middle).T)[1][:, ::-1]  # longer first
    turned = axes.T @ points
    low, high = turned.min(axis=1), turned.max(axis=1)
    x, y = axes @ ((low + high) / 2)
    cell = np.abs(axes.T) @ np.array([along, across])  # a cell's own extent along the axes
    length, width = high - low + cell
    yaw = float(np.arctan2(axes[1, 0], axes[0, 0]))
    return [x, y, HEIGHT / 2, length, width, HEIGHT, yaw, 0.0, 0.0]
