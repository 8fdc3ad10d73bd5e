"""CRN: cameras and radar, fused by deformable attention in the bird's-eye view.

``camera`` and ``radar`` are the two encoders, ``geometry`` where image columns lie, ``view`` the
radar-assisted view transform, ``fuser`` the attention, ``head`` the detection heads, ``decoding``
their boxes, ``network`` puts them together; ``lmd_cli.config.sizes`` holds all sizes.
"""

from lmd_cli.config.sizes import CRNSizes
from lmd_cli.networks.crn.network import BOUNDARIES, CRN

__all__ = ["BOUNDARIES", "CRN", "CRNSizes"]
