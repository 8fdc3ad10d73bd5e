"""A tiny nuScenes root, and the devkit's view of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from nuscenes.nuscenes import NuScenes
from tiny_nuscenes import VERSION, open_samples, write_tiny_root

from lmd_cli.data import NuScenesSamples


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_root(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def devkit(tiny_root: Path) -> NuScenes:
    return NuScenes(VERSION, str(tiny_root), verbose=False)


@pytest.fixture(scope="session")
def samples(tiny_root: Path) -> NuScenesSamples:
    return open_samples(tiny_root)
