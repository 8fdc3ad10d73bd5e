"""Fixtures that several folders of tests share.

Being here also puts this folder on the import path, for the helpers beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml

from lmd_cli.data.synthetic import synthesize

torch.set_num_threads(1)
torch.manual_seed(0)  # for networks that test modules make when they are imported


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


def pytest_configure() -> None:
    """One core for each worker of a parallel run: threads that share cores wait on each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


#: Files that take longest; a parallel run starts with them, so that its workers end together.
LONGEST = ("test_readme.py", "test_rank_processes.py", "test_crn_parity.py", "test_cli_own.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files in the order of :data:`LONGEST`, then the rest as it was."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic nuScenes root: mini_val with two scenes of three samples, small images."""
    return synthesize(
        tmp_path_factory.mktemp("synthetic") / "root",
        split="mini_val",
        scenes=2,
        samples=3,
        image_size=(112, 200),
    )


@pytest.fixture(scope="session")
def tiny_config(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML for a network of random weights on :func:`tiny_root`, made for speed."""
    config = {
        "data": {
            "dataroot": str(tiny_root),
            "version": "v1.0-mini",
            "split": "mini_val",
            "nsweeps": 2,
        },
        "model": {
            "name": "simplebev",
            "modalities": ["camera", "radar"],
            "encoder": "res50",
            "radar": "metaradar",
            "image_size": [64, 112],
            "grid": [24, 4, 24],
            "widths": {
                "latent": 8,
                "stem": 4,
                "encoder_blocks": [1, 1, 1],
                "upsampling": 8,
                "decoder": 8,
                "decoder_blocks": [1, 1, 1],
            },
            "checkpoint": "random",
            "output": "segmentation",
        },
        "variants": ["identity-ratio", "uniform-identity"],
        "perturbation": {"stride": "auto", "count": 2},
        "device": "cpu",
        "threads": 1,
    }
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
