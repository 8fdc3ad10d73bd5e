"""A tiny nuScenes root, and the devkit's view of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lmd_cli.data import KeyframeSamples, NuScenesSamples
from lmd_cli.data.synthetic import synthesize
from tests.support.tiny_nuscenes import VERSION, open_samples, write_tiny_root

if TYPE_CHECKING:  # not everywhere where tests without it run
    from nuscenes.nuscenes import NuScenes


def opened(root: Path) -> NuScenes:
    """A root as the devkit reads it."""
    from nuscenes.nuscenes import NuScenes

    return NuScenes(VERSION, str(root), verbose=False)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_root(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def devkit(tiny_root: Path) -> NuScenes:
    return opened(tiny_root)


@pytest.fixture(scope="session")
def samples(tiny_root: Path) -> NuScenesSamples:
    return open_samples(tiny_root)


@pytest.fixture(scope="session")
def drive_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic root with scenes long enough for CRN's key frames: two of eight samples."""
    root = tmp_path_factory.mktemp("drive") / "root"
    return synthesize(root, split="mini_val", scenes=2, samples=8, image_size=(64, 114))


@pytest.fixture(scope="session")
def drive(drive_root: Path) -> KeyframeSamples:
    return KeyframeSamples(drive_root, VERSION, "mini_val", image_size=(32, 88), radar_slots=128)


@pytest.fixture(scope="session")
def drive_devkit(drive_root: Path) -> NuScenes:
    return opened(drive_root)
