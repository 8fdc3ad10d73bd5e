"""A YAML for a CRN of random weights, made for speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SIZES: dict[str, Any] = {
    "depth": [2.0, 34.0, 4.0],
    "extent": 32.0,
    "cells": 16,
    "radar_slots": 64,
    "backbone_blocks": [1, 1, 1, 1],
    "backbone_width": 4,
    "image_neck": 4,
    "depth_net": 8,
    "context": 8,
    "pillar": [4, 8],
    "max_pillars": 64,
    "radar_widths": [4, 6, 8],
    "radar_layers": [1, 1, 1],
    "radar_neck": 4,
    "embed": 8,
    "layers": 1,
    "heads": 2,
    "points": 2,
    "trunk": 8,
    "trunk_blocks": [1, 1, 1],
    "head_neck": 4,
    "head": 8,
    "tasks": [["car"], ["truck", "bus"]],
}


def crn_config(folder: Path, dataroot: Path, **data: Any) -> Path:
    """Writes ``crn.yaml`` into a folder."""
    config = {
        "data": {
            "dataroot": str(dataroot),
            "version": "v1.0-mini",
            "split": "mini_val",
            "nsweeps": 2,
            **data,
        },
        "model": {
            "name": "crn",
            "backbone": "r18",
            "image_size": [64, 160],
            "key_frames": 2,
            "sizes": SIZES,
            "checkpoint": "random",
            "output": "heatmap.car",
        },
        "variants": ["identity-ratio", "uniform-identity-identity-taylor"],
        "perturbation": {"stride": "auto", "count": 2},
        "device": "cpu",
        "threads": 1,
    }
    path = folder / "crn.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
