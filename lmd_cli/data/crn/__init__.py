"""nuScenes as CRN takes it: key frames, images with their matrices, radar points in the image."""

from lmd_cli.data.crn.samples import KeyframeSamples
from lmd_cli.data.crn.truth import EgoBox, covered

__all__ = ["EgoBox", "KeyframeSamples", "covered"]
