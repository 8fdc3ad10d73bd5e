"""Selects the channels of a version's sensors that samples are read from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lmd_cli.data.nuscenes.database import CAMERAS, LIDAR, RADARS, Rig
from lmd_cli.errors import DataError

#: The config's key for each modality's channels.
KEYS = {"camera": "data.cameras", "radar": "data.radars", "lidar": "data.lidar"}


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
        channels = {"camera": self.cameras, "radar": self.radars, "lidar": self.lidars}
        return channels[modality]


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
            is none of a modality; names all that lack and all that there are.
    """
    present = {m: _present(m, there, asked.of(m) or usual.of(m)) for m in KEYS}
    lacking = {
        m: _lacking(m, present[m], asked, usual) for m in KEYS if _matters(m, asked, modalities)
    }
    if any(lacking.values()):
        raise DataError(
            _missing_channels({m: names for m, names in lacking.items() if names}, there)
        )
    lidars = present["lidar"]
    return Rig(present["camera"], present["radar"], lidars if "lidar" in modalities else lidars[:1])


def _present(
    modality: str, there: Mapping[str, str], names: Sequence[str] | None
) -> tuple[str, ...]:
    return tuple(name for name in names or () if there.get(name) == modality)


def _matters(modality: str, asked: Channels, modalities: Collection[str]) -> bool:
    return asked.of(modality) is not None or modality in {"camera", *modalities}


def _lacking(
    modality: str, present: Collection[str], asked: Channels, usual: Channels
) -> list[str]:
    """Channels without which samples cannot be read: all that were asked for; else only the
    reference camera, or one of each kind."""
    enough = CAMERAS[0] in present if modality == "camera" else bool(present)
    if asked.of(modality) is None and enough:
        return []
    names = asked.of(modality) or usual.of(modality) or ()
    return [name for name in names if name not in present]


def _missing_channels(lacking: Mapping[str, Sequence[str]], there: Mapping[str, str]) -> str:
    """What lacks, what there is, and what to do."""
    if not there:
        return (
            "the tables have no key frame of any sensor: no record of sample_data.json is one "
            "(is_key_frame) of the split's samples"
        )
    absent = " and ".join(f"no {m} {', '.join(names)}" for m, names in lacking.items())
    listed = ", ".join(f"{name} ({modality})" for name, modality in there.items()) or "none"
    settings, without = [], []
    for modality in lacking:
        names = ",".join(name for name, kind in there.items() if kind == modality)
        if names:
            settings.append(f"--set '{KEYS[modality]}=[{names}]'")
        else:
            without.append(modality)
    message = f"the tables have {absent}; the channels that they have: {listed}"
    if settings:
        reference = " (the first camera is the reference, whose axes the maps have)"
        message += f". Name those to read, such as {' '.join(settings)}"
        message += reference if "camera" in lacking else ""
    if without:
        message += f". A network without {' and '.join(without)} is needed for them"
    return message


def left_out(rig: Rig, asked: Channels, modalities: Collection[str]) -> list[str]:
    """nuScenes' channels that the tables lack, where the config leaves the choice open."""
    pairs = [
        ("camera", asked.cameras, CAMERAS, rig.cameras),
        ("radar", asked.radars, RADARS, rig.radars),
    ]
    return [
        name
        for modality, chosen, usual, present in pairs
        for name in usual
        if chosen is None and name not in present and modality in modalities
    ]
