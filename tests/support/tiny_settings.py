"""Sizes and YAMLs of networks of random weights, made for speed."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from lmd_cli.config.sizes import CRNSizes, SimpleBEVSizes

TINY_SIMPLEBEV = SimpleBEVSizes(
    latent=4, stem=4, encoder_blocks=(1, 1, 1), upsampling=4, decoder=4, decoder_blocks=(1, 1, 1)
)
TINY_CRN = CRNSizes(
    image_size=(64, 160),
    key_frames=2,
    backbone=18,
    depth=(2.0, 34.0, 4.0),
    extent=32.0,
    cells=16,
    radar_slots=64,
    backbone_blocks=(1, 1, 1, 1),
    backbone_width=4,
    image_neck=4,
    depth_net=8,
    context=8,
    pillar=(4, 8),
    max_pillars=64,
    radar_widths=(4, 6, 8),
    radar_layers=(1, 1, 1),
    radar_neck=4,
    embed=8,
    layers=1,
    heads=2,
    points=2,
    trunk=8,
    trunk_blocks=(1, 1, 1),
    head_neck=4,
    head=8,
    tasks=(("car",), ("truck", "bus")),
)


def simplebev_sizes(**changes: Any) -> SimpleBEVSizes:
    """A SimpleBEV of four channels and one block per stage, with other sizes where they matter."""
    return replace(TINY_SIMPLEBEV, **changes)


def crn_sizes(**changes: Any) -> CRNSizes:
    """A CRN with every layer of the published one, with other sizes where they matter."""
    return replace(TINY_CRN, **changes)


def simplebev_config(folder: Path, dataroot: Path) -> Path:
    """Writes ``tiny.yaml`` into a folder."""
    model = {
        "name": "simplebev",
        "modalities": ["camera", "radar"],
        "encoder": "res50",
        "radar": "metaradar",
        "image_size": [64, 112],
        "grid": [24, 4, 24],
        "widths": asdict(simplebev_sizes(latent=8, upsampling=8, decoder=8)),
        "output": "segmentation",
    }
    return _written(folder / "tiny.yaml", dataroot, model, "uniform-identity")


def crn_config(folder: Path, dataroot: Path, **data: Any) -> Path:
    """Writes ``crn.yaml`` into a folder."""
    sizes = asdict(TINY_CRN)
    model = {
        "name": "crn",
        "backbone": f"r{sizes.pop('backbone')}",
        "image_size": sizes.pop("image_size"),
        "key_frames": sizes.pop("key_frames"),
        "sizes": sizes,
        "output": "heatmap.car",
    }
    return _written(
        folder / "crn.yaml", dataroot, model, "uniform-identity-identity-taylor", **data
    )


def _written(path: Path, dataroot: Path, model: dict[str, Any], variant: str, **data: Any) -> Path:
    split = {"version": "v1.0-mini", "split": "mini_val", "nsweeps": 2}
    config = {
        "data": {"dataroot": str(dataroot), **split, **data},
        "model": {**model, "checkpoint": "random"},
        "variants": ["identity-ratio", variant],
        "perturbation": {"stride": "auto", "count": 2},
        "device": "cpu",
        "threads": 1,
    }
    path.write_text(yaml.safe_dump(config))
    return path
