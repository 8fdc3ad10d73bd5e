"""CRN: cameras and radar, fused by deformable attention in the bird's-eye view.

``shape`` holds all sizes, ``camera`` and ``radar`` the two encoders, ``geometry`` where image
columns lie, ``view`` the radar-assisted view transform, ``fuser`` the attention, ``head`` the
detection heads, ``network`` puts them together.
"""

from lmd_cli.networks.crn.network import BOUNDARIES, CRN
from lmd_cli.networks.crn.sizes import CRNShape

__all__ = ["BOUNDARIES", "CRN", "CRNShape"]
