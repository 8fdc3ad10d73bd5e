"""Attribution methods that LMD is compared with, behind one interface (see :mod:`.interface`)."""

from lmd_cli.attribution.interface import (
    BackwardMethod,
    ForwardMethod,
    Method,
    parts,
    require_maps,
    scores,
)
from lmd_cli.attribution.methods import METHODS, method_named

__all__ = [
    "METHODS",
    "BackwardMethod",
    "ForwardMethod",
    "Method",
    "method_named",
    "parts",
    "require_maps",
    "scores",
]
