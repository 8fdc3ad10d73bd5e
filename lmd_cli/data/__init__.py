"""nuScenes, real or synthetic, as named tensors."""

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.crn import EgoBox, KeyframeSamples
from lmd_cli.data.interventions import RemovalSettings, Removed
from lmd_cli.data.loading import Loaded, Reader, Unreadable, default_workers, read_ahead
from lmd_cli.data.nuscenes.radar_files import RadarFilters
from lmd_cli.data.nuscenes.rig import Channels
from lmd_cli.data.regions import Region
from lmd_cli.data.sample import Sample, collate, to_device
from lmd_cli.data.simplebev.samples import NuScenesSamples

__all__ = [
    "Box3D",
    "Channels",
    "EgoBox",
    "KeyframeSamples",
    "Loaded",
    "NuScenesSamples",
    "RadarFilters",
    "Reader",
    "Region",
    "RemovalSettings",
    "Removed",
    "Sample",
    "Unreadable",
    "collate",
    "default_workers",
    "read_ahead",
    "to_device",
]
