"""CRN against the public code: the same state, and the same numbers at every stage."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from lmd_cli.networks import CRN
from lmd_cli.networks.crn.view import pool
from tests.support.crn_reference import (
    SHAPES,
    Golden,
    reference_keys,
    reference_value,
)
from tests.support.crn_stages import TOLERANCE, Stages, check_geometry

TIGHT = 1e-5  # the radar branch varies little with these weights


@pytest.mark.parametrize("name", SHAPES)
def test_state_has_the_published_names_shapes_and_order(name: str):
    with torch.device("meta"):
        state = CRN(SHAPES[name]).state_dict()
    ours = [(k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()]
    assert ours == [entry[:3] for entry in reference_keys(name)]


@pytest.mark.parametrize("name", ["tiny", "r50"])
def test_geometry_buffers_are_the_published_ones(name: str):
    state = CRN(SHAPES[name]).state_dict()
    for key, _, _, crc in reference_keys(name):
        if key.startswith("backbone_img.voxel_"):
            assert zlib.crc32(state[key].numpy().tobytes()) == crc


def test_filled_weights_are_the_reference_weights():
    for key, shape, _, crc in reference_keys("tiny"):
        value = reference_value(key, shape)
        assert value is None or zlib.crc32(np.ascontiguousarray(value).tobytes()) == crc, key


@pytest.fixture(scope="module")
def tiny() -> Stages:
    return Stages("tiny_s1")


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("tiny_s1")


@torch.no_grad()
def test_every_stage_of_the_tiny_network(tiny: Stages, golden: Golden):
    differences = {name: golden.difference(name, value) for name, value in tiny.every()}
    stored = {key for key in golden.arrays if f"{key}@shape" in golden.arrays}
    assert stored <= differences.keys()
    bound = {name: TIGHT if name.startswith("pts.") else TOLERANCE for name in differences}
    assert {k: d for k, d in differences.items() if d > bound[k]} == {}


def test_pillars_and_geometry_of_the_tiny_network(tiny: Stages, golden: Golden):
    grid = tiny.network.backbone_pts.pts_voxel_encoder.grid
    pillars = grid.gather(tiny.batch["pts_pv"][:, 0].flatten(0, 1))
    zero = torch.zeros_like(pillars.view)
    places = torch.stack([pillars.view, zero, pillars.row, pillars.column], dim=1)
    assert np.array_equal(places, golden.arrays["pts.s0.pillar_coors"])
    assert np.array_equal(pillars.count, golden.arrays["pts.s0.pillar_count"])
    check_geometry(tiny, golden)


@torch.no_grad()
def test_columns_are_counted_in_their_cells(tiny: Stages, golden: Golden):
    cells = tiny.constants["cells"][:, 0].flatten(1)  # (B, 6 D w)
    n = tiny.case.sizes.cells
    count = torch.bincount(cells[0], minlength=n * n + 1)[:-1].reshape(1, n, n)
    assert np.array_equal(count, golden.arrays["geom.s0.count"])
    ones = pool(torch.ones(*cells.shape, 1), cells, n * n)[..., 0].reshape(1, n, n)
    assert torch.equal(ones, (count > 0).float())
