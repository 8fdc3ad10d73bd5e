"""The evidence that each sensor has of each annotation of the synthetic world, as a JSON table.

``v1.0-mini/synthetic_evidence.json`` maps every annotation's token to an :class:`Evidence`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmd_cli.data.synthetic.cameras import CameraView
from lmd_cli.data.synthetic.world import Placed
from lmd_cli.errors import DataError

EVIDENCE_FILE = "synthetic_evidence.json"


@dataclass(frozen=True)
class Evidence:
    """Evidence for one annotated box.

    Attributes:
        camera, radar, lidar: whether the sensor can see it at all.
        visible_pixels: sum over the six cameras and the box's pixels of the share of the light
            that comes from it: local fog, air and what stands before it taken off.
        free_share: share of its pixels that nothing stands before (0 if the cameras cannot see it).
        radar_returns: radar returns in the keyframe and the sweeps since the one before.
        radar_returns_keyframe: those of the keyframe alone.
        lidar_returns: LiDAR returns in the keyframe.
        fog: share of its light that fog swallows, 0 to 1 (hidden), over all its visible pixels.
    """

    camera: bool
    radar: bool
    lidar: bool
    visible_pixels: float
    free_share: float
    radar_returns: int
    radar_returns_keyframe: int
    lidar_returns: int
    fog: float

    def to_json(self) -> dict[str, Any]:
        """The row of the side table, rounded to what is meaningful."""
        row = asdict(self)
        for name in ("visible_pixels", "free_share", "fog"):
            row[name] = round(row[name], 4)
        return row


def read_evidence(tables: Path) -> dict[str, Evidence]:
    """The side table of a synthetic root, by the annotations' tokens.

    Args:
        tables: the folder of the version, e.g. ``ROOT/v1.0-mini``.

    Raises:
        DataError: there is none (the root is not synthetic), or it cannot be read.
    """
    path = tables / EVIDENCE_FILE
    if not path.is_file():
        raise DataError(
            f"{path} not found: what each sensor had to go by is known in the synthetic world only "
            "(data.dataroot: synthetic, or a root made by lmd synthesize)",
            path=path,
        )
    try:
        return {token: Evidence(**row) for token, row in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error}; make the root again", path=path) from None


def has_evidence(tables: Path) -> bool:
    """Whether a version's folder has the side table."""
    return (tables / EVIDENCE_FILE).is_file()


def read_instances(tables: Path) -> dict[str, str]:
    """For each annotation's token the token of its object, from a version's tables.

    Raises:
        DataError: the table is missing or damaged.
    """
    path = tables / "sample_annotation.json"
    try:
        rows = json.loads(path.read_text())
        return {row["token"]: row["instance_token"] for row in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error!r}", path=path) from None


def gather_evidence(
    item: Placed,
    camera_views: dict[str, list[CameraView]],
    radar: Counter[str],
    radar_keyframe: Counter[str],
    lidar: Counter[str],
) -> Evidence:
    """What the sensors hold of ``item``; counters and ``camera_views`` by actor's key."""
    actor = item.actor
    views = camera_views.get(actor.key, [])
    pixels = sum(view.pixels for view in views)
    visible = sum(view.visible for view in views)
    evidence = sum(view.evidence for view in views)
    return Evidence(
        camera=actor.seen.camera,
        radar=actor.seen.radar,
        lidar=actor.seen.lidar,
        visible_pixels=evidence,
        free_share=visible / pixels if pixels else 0.0,
        radar_returns=radar[actor.key],
        radar_returns_keyframe=radar_keyframe[actor.key],
        lidar_returns=lidar[actor.key],
        fog=1.0 - evidence / visible if visible else 1.0 - actor.clarity,
    )


def visibility_level(evidence: Evidence) -> str:
    """nuScenes' visibility token, ``1`` to ``4``, from the share that the cameras see.

    At least 2 if fog or darkness hides it, or if the radar has a return of it: SimpleBEV takes
    level 1 out of loss and score, which is for what stands behind something else.
    """
    level = 1 + sum(evidence.free_share >= bound for bound in (0.4, 0.6, 0.8))
    counts = not evidence.camera or evidence.radar_returns > 0
    return str(max(level, 2) if counts else level)
