"""CRN's boxes from the maps of its task heads.

Source: Yin et al., "Center-based 3D Object Detection and Tracking", 2021, with the settings that
CRN is published with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lmd_cli.config.sizes import CRNSizes
from lmd_cli.errors import ConfigError
from lmd_cli.networks.crn.head import BRANCHES, HEATMAP
from lmd_cli.networks.detections import Cells, Detections

#: Best (class, cell) pairs of a task that become boxes.
CANDIDATES = 500
#: A box needs a higher score.
LEAST_SCORE = 0.01
#: Boxes may be centred this far outside the map, and so far from the ground, metres.
OUTSIDE, HEIGHT = 10.0, 10.0
#: Boxes of a task that circle suppression leaves.
KEPT = 200
#: Squared distance in the plane below which two boxes are one, by a task's first class, m^2.
SQUARED_RADIUS = {
    "car": 4.0,
    "truck": 12.0,
    "construction_vehicle": 12.0,
    "bus": 10.0,
    "trailer": 10.0,
    "barrier": 1.0,
    "motorcycle": 0.85,
    "bicycle": 0.85,
    "pedestrian": 0.175,
    "traffic_cone": 0.175,
}


def decode(outputs: Mapping[str, Tensor], sizes: CRNSizes) -> list[Detections]:
    """Boxes of each sample of a batch: task by task, within a task by falling score.

    A box's z is that of its middle. (The published code lowers it by half a height and writes that
    as the centre; nuScenes' metrics compare places in the plane only.)

    Args:
        outputs: ``taskK.BRANCH`` (B, n, ny, nx) of every task and branch; heat maps are logits.
        sizes: of the network.

    Raises:
        ConfigError: a task of a class that nuScenes does not have.
    """
    for task in sizes.tasks:
        if task[0] not in SQUARED_RADIUS:
            known = ", ".join(SQUARED_RADIUS)
            raise ConfigError(
                f"model.sizes.tasks has the class {task[0]!r}, for which no distance between two "
                f"boxes is known; the classes are {known}"
            )
    maps = {name: value.detach().float().cpu() for name, value in outputs.items()}
    count = len(maps[f"task0.{HEATMAP}"])
    return [_decode_sample({n: x[i] for n, x in maps.items()}, sizes) for i in range(count)]


def _decode_sample(maps: Mapping[str, Tensor], sizes: CRNSizes) -> Detections:
    """Boxes from maps (n, ny, nx) of one sample."""
    each = [_decode_task(maps, task, sizes) for task in range(len(sizes.tasks))]
    return Detections(
        torch.cat([one.boxes for one in each]),
        torch.cat([one.scores for one in each]),
        tuple(name for one in each for name in one.names),
        Cells.joined([one.places for one in each if isinstance(one.places, Cells)]),
    )


def _decode_task(maps: Mapping[str, Tensor], task: int, sizes: CRNSizes) -> Detections:
    """Boxes of one task of one sample, from all its maps (n, ny, nx)."""
    own = {name: maps[f"task{task}.{name}"] for name in (*BRANCHES, HEATMAP)}
    names = sizes.tasks[task]
    ny, nx = own[HEATMAP].shape[1:]
    scores = own[HEATMAP].sigmoid().flatten()  # (classes * ny * nx,)
    pairs = best(scores, CANDIDATES)
    scores, cells = scores[pairs], pairs % (ny * nx)
    values = {name: own[name].flatten(1).index_select(1, cells) for name in BRANCHES}
    boxes = _boxes(values, cells, nx, sizes)
    reach = torch.tensor([sizes.extent + OUTSIDE, sizes.extent + OUTSIDE, HEIGHT])
    near = (boxes[:, :3].abs() <= reach).all(dim=1) & (scores > LEAST_SCORE)
    boxes, scores, pairs = boxes[near], scores[near], pairs[near]
    kept = circle_nms(boxes[:, :2], SQUARED_RADIUS[names[0]], KEPT)
    where = np.unravel_index(pairs[kept].numpy(), own[HEATMAP].shape)
    output = f"task{task}.{HEATMAP}"
    places = Cells([output] * len(kept), np.stack(where, axis=1))
    classes = tuple(names[channel] for channel in where[0].tolist())
    return Detections(boxes[kept], scores[kept], classes, places)


def best(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` highest of (n,), falling; equal ones in their order."""
    least = scores.topk(min(count, len(scores))).values[-1]
    candidates = (scores >= least).nonzero()[:, 0]
    order = scores[candidates].argsort(descending=True, stable=True)
    return candidates[order[:count]]


def _boxes(values: Mapping[str, Tensor], cells: Tensor, nx: int, sizes: CRNSizes) -> Tensor:
    """Boxes (n, 9) from branches (channels, n) at cells (n,)."""
    places = torch.stack([cells % nx, cells // nx])  # (2, n): column, row
    xy = (places + values["reg"]) * sizes.voxel - sizes.extent
    yaw = torch.atan2(values["rot"][:1], values["rot"][1:])
    rows = [xy, values["height"], values["dim"].exp(), yaw, values["vel"]]
    return torch.cat(rows).T.contiguous()


def circle_nms(xy: Tensor, squared_radius: float, most: int) -> Tensor:
    """Indices of boxes that are kept: each removes those behind it that are too near.

    Args:
        xy: centres (n, 2), best first.
        squared_radius: boxes at this squared distance or nearer are too near.
        most: at most so many are kept.
    """
    x, y = xy.T.contiguous().numpy()
    near = np.square(x - x[:, None]) + np.square(y - y[:, None]) <= squared_radius
    removed = np.zeros(len(x), dtype=bool)
    kept: list[int] = []
    for i in range(len(x)):
        if not removed[i] and len(kept) < most:
            kept.append(i)
            removed |= near[i]
    return torch.tensor(kept, dtype=torch.long)
