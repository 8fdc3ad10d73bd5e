"""Planted false alarms: what one sensor alone gets, where nothing is.

``v1.0-mini/synthetic_planted.json`` maps each sample's token to its planted ones.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmd_cli.data.nuscenes.database import Annotation
from lmd_cli.data.synthetic.actors import PLANTED
from lmd_cli.data.synthetic.cameras import CameraView
from lmd_cli.data.synthetic.world import Placed
from lmd_cli.errors import DataError

PLANTED_FILE = "synthetic_planted.json"


def planted_record(
    scene: str, item: Placed, camera_views: Mapping[str, Sequence[CameraView]], radar: Counter[str]
) -> dict[str, Any]:
    """One row: a box as annotations have it, the sensor that gets it, and how much it gets.

    ``amount`` is the visible pixels through the fog, or the number of radar returns.
    """
    actor, (x, y, z) = item.actor, item.centre
    half = item.pose.yaw / 2
    pixels = round(sum(view.evidence for view in camera_views.get(actor.key, ())), 4)
    sensor = PLANTED[actor.kind]
    return {
        "token": f"{scene}:{actor.key}",
        "sensor": sensor,
        "category": actor.category,
        "translation": [round(value, 4) for value in (x, y, z)],
        "rotation": [round(math.cos(half), 7), 0.0, 0.0, round(math.sin(half), 7)],
        "size": list(actor.size),
        "amount": pixels if sensor == "camera" else radar[actor.key],
    }


def read_planted(tables: Path) -> dict[str, list[dict[str, Any]]]:
    """The planted false alarms of each sample; empty where none were planted.

    Args:
        tables: the folder of the version.

    Raises:
        DataError: the table is damaged.
    """
    path = tables / PLANTED_FILE
    if not path.is_file():
        return {}
    try:
        rows: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())
        for listed in rows.values():
            for row in listed:
                as_annotation(row)
                float(row["amount"]), row["sensor"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error!r}; make the root again", path=path) from None
    return rows


def as_annotation(row: Mapping[str, Any]) -> Annotation:
    """A row as if it were annotated, to be turned into any network's axes."""
    x, y, z = map(float, row["translation"])
    width, length, height = map(float, row["size"])
    return Annotation(
        str(row["token"]),
        str(row["category"]),
        4,
        (x, y, z),
        tuple(map(float, row["rotation"])),
        (width, length, height),
        0,
        0,
        instance=str(row["token"]),
    )
