"""The synthetic world: a generated nuScenes root with ground truth of what each sensor could see.

``world`` holds scenes and actors, ``cameras`` (with ``shapes``) and ``sensors`` what the sensors
get of them, ``evidence`` the side table, ``tables`` and ``write`` nuScenes' format, ``root`` the
making, checking and caching of whole roots.
"""

from lmd_cli.data.synthetic.evidence import (
    EVIDENCE_FILE,
    Evidence,
    has_evidence,
    read_evidence,
    read_instances,
)
from lmd_cli.data.synthetic.root import (
    cached_root,
    check_root,
    demo_root,
    scene_names,
    synthesize,
)

__all__ = [
    "EVIDENCE_FILE",
    "Evidence",
    "cached_root",
    "check_root",
    "demo_root",
    "has_evidence",
    "read_evidence",
    "read_instances",
    "scene_names",
    "synthesize",
]
