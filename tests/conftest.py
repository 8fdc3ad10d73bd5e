"""Fixtures that several folders of tests share, and the order of a parallel run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from lmd_cli.data.synthetic import synthesize
from tests.support.tiny_settings import simplebev_config

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


TESTS = Path(__file__).parent
#: Files that take longest; a parallel run starts with them, so that its workers end together.
LONGEST = (
    "test_readme.py",
    "workflows/test_rank_processes.py",
    "networks/crn/test_published.py",
    "cli/test_custom.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files in the order of :data:`LONGEST`, then the rest as it was."""
    rank = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


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


@pytest.fixture
def own_root(tiny_root: Path, tmp_path: Path) -> Path:
    """A copy of the tiny root, to be damaged."""
    return Path(shutil.copytree(tiny_root, tmp_path / "root"))


@pytest.fixture(scope="session")
def tiny_config(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML for a network of random weights on :func:`tiny_root`, made for speed."""
    return simplebev_config(tmp_path_factory.mktemp("config"), tiny_root)
