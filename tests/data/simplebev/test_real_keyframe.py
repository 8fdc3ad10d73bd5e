"""One real keyframe, against what SimpleBEV's own loader yields for it.

Set ``LMD_REAL_KEYFRAME`` to the keyframe's nuScenes root; the loader's output is looked for in
``reference/loader`` beside it. nuScenes data is not ours to ship, so both stay outside.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from lmd_cli.data import NuScenesSamples, Sample
from lmd_cli.data.simplebev.radar import radar_points
from lmd_cli.geometry import Grid

GRID = Grid((200, 8, 200))


@pytest.fixture(scope="module")
def root() -> Path:
    if "LMD_REAL_KEYFRAME" not in os.environ:
        pytest.skip("LMD_REAL_KEYFRAME is not set: no real nuScenes keyframe to test on")
    return Path(os.environ["LMD_REAL_KEYFRAME"])


@pytest.fixture(scope="module")
def golden(root: Path) -> NpzFile:
    path = root.resolve().parent / "reference" / "loader" / "loader_real_keyframe.npz"
    if not path.is_file():
        pytest.skip(f"no output of SimpleBEV's loader at {path}")
    return np.load(path)


@pytest.fixture(scope="module")
def samples(root: Path) -> NuScenesSamples:
    return NuScenesSamples(
        root,
        "v1.0-mini",
        "mini_train",
        modalities=("camera", "radar", "lidar"),
        nsweeps=5,
        image_size=(224, 400),
        grid=GRID,
    )


@pytest.fixture(scope="module")
def sample(samples: NuScenesSamples) -> Sample:
    assert len(samples) == 1
    return samples[0]


def occupied(xyz: Tensor) -> np.ndarray:
    """Indices (z, y, x) of occupied voxels, in order: SimpleBEV's rule, written independently."""
    mem = GRID.to_mem(xyz)
    origin = GRID.to_mem(torch.zeros(1, 3))
    inside = ((mem > -0.5) & (mem < torch.tensor(GRID.size[::-1]) - 0.5)).all(dim=1)
    far = (mem - origin).norm(dim=1) >= 0.1
    cells = mem[inside & far & (mem[:, 2] != 0)].round().long()[:, [2, 1, 0]]
    cells = torch.unique(cells, dim=0)
    return cells[(cells != 0).any(dim=1)].numpy()


def test_images_exactly(sample: Sample, golden: NpzFile) -> None:
    expected = torch.from_numpy(golden["images"]).float() / 255 - 0.5
    assert torch.equal(sample.tensors["images"], expected)


def test_calibration(sample: Sample, golden: NpzFile) -> None:
    np.testing.assert_array_equal(sample.tensors["pix_T_cams"], golden["pix_T_cams"])
    ours = sample.tensors["cam0_T_camXs"].numpy()
    np.testing.assert_allclose(ours, golden["cam0_T_camXs"], rtol=0, atol=3e-7)


def test_radar_points(samples: NuScenesSamples, golden: NpzFile) -> None:
    ours = radar_points(samples.dataroot, samples._records[0]).astype(np.float32)
    np.testing.assert_allclose(ours, golden["radar_points"], rtol=2e-7, atol=0)


@pytest.mark.parametrize("kind", ["radar", "lidar"])
def test_occupied_voxels_exactly(sample: Sample, golden: NpzFile, kind: str) -> None:
    ours = occupied(sample.tensors[f"{kind}_xyz"])
    np.testing.assert_array_equal(ours, golden[f"{kind}_occ_index"])


def test_truth(sample: Sample, golden: NpzFile) -> None:
    """The maps of the annotated vehicles are those of SimpleBEV's own loader."""
    np.testing.assert_array_equal(sample.tensors["segmentation"], golden["seg"])
    np.testing.assert_array_equal(sample.tensors["valid"], golden["valid"])
    np.testing.assert_array_equal(sample.tensors["offset"], golden["offset"])
    np.testing.assert_allclose(sample.tensors["center"], golden["center"], rtol=0, atol=1e-7)


def test_nothing_is_missing(samples: NuScenesSamples) -> None:
    assert set(samples.missing_files().values()) == {0}
