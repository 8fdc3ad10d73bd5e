"""A real keyframe through the published network's sizes, with random weights.

Set ``LMD_REAL_KEYFRAME`` to a nuScenes root (v1.0-mini) that holds a sample of ``mini_train``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from calling import Lmd


@pytest.fixture(scope="module")
def arguments() -> list[str]:
    root = os.environ.get("LMD_REAL_KEYFRAME")
    if root is None:
        pytest.skip("LMD_REAL_KEYFRAME is not set: no real nuScenes keyframe to test on")
    return ["-c", "radar_cam_mini", "--dataroot", root, "--set", "data.split=mini_train"]


def test_decompose(lmd: Lmd, arguments: list[str]):
    result = lmd("decompose", *arguments, "--output", "out")
    assert result.exit_code == 0, result.output
    arrays = np.load("out/parts.npz")
    assert arrays["total"].shape == (200, 200)
    parts = sum(arrays[name].astype(np.float64) for name in ("camera", "radar", "bias"))
    np.testing.assert_allclose(parts, arrays["total"], atol=1e-4 * abs(arrays["total"]).max())
    assert 0 < arrays["ground_truth"].sum() < 2000
    assert json.loads(Path("out/decomposition.json").read_text())["residual"] < 1e-4


def test_check(lmd: Lmd, arguments: list[str]):
    result = lmd("check", *arguments)
    assert result.exit_code == 0, result.output
    assert "none missing, 11 channels" in result.stdout
    assert "7 scenes of mini_train are not in v1.0-mini" in result.stdout
