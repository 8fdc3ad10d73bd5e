"""The sensors that CRN's weights were trained for."""

from __future__ import annotations

from collections.abc import Iterable

from lmd_cli.data.crn.matrices import PERSPECTIVE_CAMERAS
from lmd_cli.data.crn.radar import PERSPECTIVE_RADARS
from lmd_cli.data.nuscenes.database import LIDAR, Rig
from lmd_cli.data.nuscenes.rig import Channels
from lmd_cli.errors import DataError

#: nuScenes' channels in CRN's order.
USUAL = Channels(PERSPECTIVE_CAMERAS, PERSPECTIVE_RADARS, (LIDAR,))


def require_rig(rig: Rig, channels: Iterable[str]) -> None:
    """Refuses other rigs.

    Args:
        rig: the sensors that are to be read.
        channels: all that the tables have.

    Raises:
        DataError: another number of cameras, or no LiDAR.
    """
    cameras, wanted, there = rig.cameras, len(PERSPECTIVE_CAMERAS), ", ".join(channels)
    if len(cameras) != wanted:
        raise DataError(
            f"CRN's weights need {wanted} cameras, in the order of "
            f"{', '.join(PERSPECTIVE_CAMERAS)}; there are {len(cameras)} ({', '.join(cameras)})"
            f". Name {wanted} with data.cameras; the tables have {there}"
        )
    if not rig.lidars:
        raise DataError(
            "CRN takes the place and time of radar points from a LiDAR's key frame, and the "
            f"tables have no {LIDAR}: name one with data.lidar; they have {there}"
        )
