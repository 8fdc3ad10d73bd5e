"""Which of a version's channels samples are read from."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lmd_cli.data.database import CAMERAS, LIDAR, RADARS, Rig
from lmd_cli.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Channels:
    """The channels asked for, in order; none for those of nuScenes' that the tables have.

    Attributes:
        cameras: the first is the reference camera, whose axes those of maps are.
        radars: the order in which points are put together.
        lidars: boxes are seen from the vehicle as it was at the first one's key frame.
    """

    cameras: Sequence[str] | None = None
    radars: Sequence[str] | None = None
    lidars: Sequence[str] | None = None

    def of(self, modality: str) -> Sequence[str] | None:
        """Those of one modality."""
        found = {"camera": self.cameras, "radar": self.radars, "lidar": self.lidars}
        return found[modality]


#: nuScenes' channels in SimpleBEV's order.
NUSCENES = Channels(CAMERAS, RADARS, (LIDAR,))


def resolve_rig(
    there: Mapping[str, str],
    asked: Channels,
    usual: Channels,
    modalities: Collection[str],
) -> Rig:
    """The channels to read.

    Args:
        there: modality of each channel that the split has, by name.
        asked: by the config.
        usual: nuScenes', in the network's order.
        modalities: of the network; cameras are read in any case.

    Raises:
        DataError: one that was asked for is not there, the reference camera is not there, or there
            is none of a modality; names those that lack and those that there are.
    """
    cameras = _chosen("camera", there, asked, usual)
    radars = _chosen("radar", there, asked, usual)
    lidars = _chosen("lidar", there, asked, usual)
    for modality, found in (("camera", cameras), ("radar", radars), ("lidar", lidars)):
        if not found and modality in {"camera", *modalities}:
            raise DataError(_lacking(modality, usual.of(modality) or (), there))
    if asked.cameras is None and CAMERAS[0] not in cameras:
        lacking = [name for name in CAMERAS if name not in cameras]
        raise DataError(_lacking("camera", lacking, there))
    return Rig(cameras, radars, lidars if "lidar" in modalities else lidars[:1])


def _chosen(
    modality: str, there: Mapping[str, str], asked: Channels, usual: Channels
) -> tuple[str, ...]:
    names = asked.of(modality)
    if names is None:
        return tuple(n for n in usual.of(modality) or () if there.get(n) == modality)
    lacking = [name for name in names if there.get(name) != modality]
    if lacking:
        raise DataError(_lacking(modality, lacking, there))
    return tuple(names)


def _lacking(modality: str, lacking: Sequence[str], there: Mapping[str, str]) -> str:
    found = [name for name, kind in there.items() if kind == modality]
    key = {"camera": "data.cameras", "radar": "data.radars", "lidar": "data.lidar"}[modality]
    listed = ", ".join(f"{name} ({kind})" for name, kind in there.items()) or "none"
    do = (
        f"name those to read, such as --set {key}=[{', '.join(found)}]"
        if found
        else (f"a network without {modality} can be evaluated on them")
    )
    first = (
        " (the first is the reference, whose axes the maps have)"
        if found and key.endswith("cameras")
        else ""
    )
    return (
        f"the tables have no {modality} {', '.join(lacking)}; the channels that they have: "
        f"{listed}. {do[0].upper()}{do[1:]}{first}"
    )


def left_out(rig: Rig, asked: Channels, modalities: Collection[str]) -> list[str]:
    """nuScenes' channels that the tables lack, where the config leaves the choice open."""
    pairs = [
        ("camera", asked.cameras, CAMERAS, rig.cameras),
        ("radar", asked.radars, RADARS, rig.radars),
    ]
    return [
        name
        for modality, chosen, usual, found in pairs
        for name in usual
        if chosen is None and name not in found and modality in modalities
    ]
