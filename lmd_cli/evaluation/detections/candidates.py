"""What is matched: a sample's predicted boxes above the threshold, and its annotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmd_cli.data import Box3D
from lmd_cli.data.nuscenes.database import BICYCLE_RACK, DETECTION_CLASSES
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.evaluation.ground.vehicles import outline
from lmd_cli.networks import SimpleBEV
from lmd_cli.networks.detections import Detections, Place
from lmd_cli.networks.simplebev.instances import NAME

#: Classes of which nuScenes' evaluation counts none in a bicycle rack.
RACKED = ("bicycle", "motorcycle")
#: nuScenes' distances from the vehicle up to which a class counts, metres
#: (``detection_cvpr_2019``).
CLASS_RANGE = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), 50.0),
    **dict.fromkeys(("pedestrian", "motorcycle", "bicycle"), 40.0),
    **dict.fromkeys(("traffic_cone", "barrier"), 30.0),
}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A predicted box, or an annotation.

    Attributes:
        name: its class.
        box: see :data:`~lmd_cli.networks.detections.BOX_COLUMNS`; NaN where it is not known.
        place: where the network decides it; none if that is not known.
        score: of a predicted box; NaN of an annotation.
        annotation: which it is, if it is one.
        counted: whether it takes part in the match.
    """

    name: str
    box: tuple[float, ...]
    place: Place | None
    score: float = math.nan
    annotation: Box3D | None = None
    counted: bool = True

    @property
    def distance(self) -> float:
        """On the ground from the origin of the maps, metres."""
        return math.hypot(self.box[0], self.box[1])

    @property
    def speed(self) -> float:
        """Over ground, m/s."""
        if self.annotation is not None:
            return self.annotation.speed
        return math.hypot(self.box[7], self.box[8])


def predicted(made: Detections, threshold: float) -> list[Candidate]:
    """The boxes whose score is above the threshold, by falling score.

    A box beyond its class's range does not count.
    """
    boxes, scores = made.boxes.double().tolist(), made.scores.double().tolist()
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    places: Sequence[Place | None] = made.places or [None] * len(scores)
    return [
        Candidate(
            made.names[i], tuple(boxes[i]), places[i], scores[i], counted=_near(made.names[i], box)
        )
        for i in order
        if scores[i] > threshold
        for box in (boxes[i],)
    ]


def _near(name: str, box: Sequence[float]) -> bool:
    return math.hypot(box[0], box[1]) < CLASS_RANGE.get(name, math.inf)


def annotated(network: Any, boxes: Sequence[Box3D]) -> list[Candidate]:
    """A sample's annotations, bicycle racks left out.

    Of a network that predicts boxes those count that nuScenes' evaluation counts: with a LiDAR or
    radar point, within the class's range (see also :func:`outside_racks`), and of a class that the
    network has. Of a segmentation those count whose visibility is above 1, as in its loss and IoU.

    Args:
        network: what predicts.
        boxes: in the axes of the maps, x right, y down, z forward.
    """
    if isinstance(network, SimpleBEV):
        plane = Plane.of_grid(network.grid)
        return [_on_segmentation(box, plane) for box in boxes]
    return [_as_box(network, box) for box in boxes if box.category != BICYCLE_RACK]


def outside_racks(candidates: Sequence[Candidate], annotations: Sequence[Box3D]) -> list[Candidate]:
    """The candidates, of which bicycles and motorcycles in an annotated rack do not count."""
    racks = [_ego_box(box) for box in annotations if box.category == BICYCLE_RACK]
    return [
        replace(one, counted=False)
        if one.name in RACKED and any(_holds(rack, one.box) for rack in racks)
        else one
        for one in candidates
    ]


def _holds(rack: Sequence[float], box: Sequence[float]) -> bool:
    """Whether a box's middle is in a rack."""
    x, y, z = (own - its for own, its in zip(box[:3], rack[:3], strict=True))
    cos, sin = math.cos(rack[6]), math.sin(rack[6])
    offsets = (cos * x + sin * y, cos * y - sin * x, z)
    return all(abs(way) <= side / 2 for way, side in zip(offsets, rack[3:6], strict=True))


def _on_segmentation(annotation: Box3D, plane: Plane) -> Candidate:
    rows, columns = np.nonzero(plane.mask(outline(annotation)))
    place = Place("segmentation", 0, rows, columns) if len(rows) else None
    counts = place is not None and annotation.visibility != 1
    return Candidate(NAME, _ego_box(annotation), place, annotation=annotation, counted=counts)


def _as_box(network: Any, annotation: Box3D) -> Candidate:
    name, box = DETECTION_CLASSES.get(annotation.category, ""), _ego_box(annotation)
    known = getattr(network, "detection_classes", None)
    find = getattr(network, "place_at", None)
    counts = (
        bool(name)
        and (known is None or name in known)
        and annotation.num_lidar_pts + annotation.num_radar_pts > 0
        and _near(name, box)
    )
    place = None if find is None else find(name, box[0], box[1])
    return Candidate(name, box, place, annotation=annotation, counted=counts)


def _ego_box(box: Box3D) -> tuple[float, ...]:
    """The annotation with x forward, y left, z up."""
    right, down, forward = (float(value) for value in box.center)
    yaw = math.atan2(-math.cos(box.yaw), math.sin(box.yaw))
    return (forward, -right, -down, *box.size, yaw, math.nan, math.nan)
