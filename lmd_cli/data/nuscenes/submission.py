"""Boxes of the ego frame in the format in which nuScenes takes detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyquaternion import Quaternion

#: The most boxes of a sample, as nuScenes allows.
MOST_BOXES = 500
#: nuScenes' classes in the detection task, in its order.
DETECTION_NAMES = (
    *("car", "truck", "bus", "trailer", "construction_vehicle"),
    *("pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier"),
)
#: Above this speed an object moves, m/s.
MOVING = 0.2
#: Attribute of a class, moving and at rest, as CRN's evaluation chooses it.
_VEHICLE = ("vehicle.moving", "vehicle.parked")
_CYCLE = ("cycle.with_rider", "cycle.without_rider")
ATTRIBUTES = {
    **dict.fromkeys(("car", "truck", "trailer", "construction_vehicle"), _VEHICLE),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    **dict.fromkeys(("bicycle", "motorcycle"), _CYCLE),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
}
#: Digits behind the point of metres, and of quaternions.
METRES, TURNS = 5, 7


def submission_boxes(
    token: str,
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    names: Sequence[str],
    global_T_ego: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """One sample's entry of ``results``: its best boxes in the global frame, by falling score.

    Args:
        token: the sample's.
        boxes: (n, 9) in the ego frame: x, y, z of the centre, length, width, height, yaw, vx, vy.
        scores: (n,).
        names: classes of the boxes.
        global_T_ego: the pose of the ego frame, (4, 4).
    """
    order = np.argsort(-scores, kind="stable")[:MOST_BOXES]
    boxes, turn = boxes[order], global_T_ego[:3, :3]
    centres = boxes[:, :3] @ turn.T + global_T_ego[:3, 3]
    flat = np.concatenate([boxes[:, 7:9], np.zeros((len(boxes), 1))], axis=1)
    velocities = (flat @ turn.T)[:, :2]
    rows = zip(
        np.round(centres, METRES).tolist(),
        np.round(boxes[:, [4, 3, 5]], METRES).tolist(),
        np.round(_turned(turn, boxes[:, 6]), TURNS).tolist(),
        np.round(velocities, METRES).tolist(),
        np.hypot(*velocities.T).tolist(),
        scores[order].tolist(),
        [names[i] for i in order],
        strict=True,
    )
    return [
        {
            "sample_token": token,
            "translation": centre,
            "size": size,
            "rotation": rotation,
            "velocity": velocity,
            "detection_name": name,
            "detection_score": score,
            "attribute_name": attribute(name, speed),
        }
        for centre, size, rotation, velocity, speed, score, name in rows
    ]


def attribute(name: str, speed: float) -> str:
    """The attribute of a class at a speed (m/s); empty for classes that have none."""
    moving, resting = ATTRIBUTES.get(name, ("", ""))
    return moving if speed > MOVING else resting


def _turned(turn: NDArray[np.float64], yaws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternions (n, 4) of turns about the vertical and then ``turn``."""
    w, x, y, z = Quaternion(matrix=turn).elements
    cos, sin = np.cos(yaws / 2), np.sin(yaws / 2)
    turned = [w * cos - z * sin, x * cos + y * sin, y * cos - x * sin, w * sin + z * cos]
    return np.stack(turned, axis=1)
