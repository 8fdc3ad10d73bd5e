"""CRN's pieces against literal loops, and what it says of sizes and weights that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmd_cli.errors import CheckpointError, ConfigError
from lmd_cli.networks import CRN, CRNSizes, load_checkpoint
from lmd_cli.networks.crn.fuser import DeformableAttention, cell_centres
from lmd_cli.networks.crn.radar import PillarGrid
from lmd_cli.networks.crn.view import lift_by_depth, lift_by_radar, pool
from tests.support.crn_reference import SHAPES, TINY, fill_reference, reference_batch

# -- pillars ------------------------------------------------------------------------------------


def literal_pillars(points: np.ndarray, sizes: CRNSizes) -> list[tuple[int, int, int, np.ndarray]]:
    """(view, row, column, points) of every pillar, point by point as the rule is stated."""
    first, last, step = sizes.depth
    columns, rows = sizes.image_size[1] // 8, round((last - first) / (step / 2))
    size, lower = np.float32([8, step / 2, 2]), np.float32([0, first, 0])
    actual = []
    for view, rows_of_view in enumerate(points):
        pillars: dict[tuple[int, int], list[np.ndarray]] = {}
        for point in rows_of_view:
            column, row, level = np.floor((point[:3] - lower) / size).astype(int)
            if not (0 <= column < columns and 0 <= row < rows and level == 0):
                continue
            if (row, column) not in pillars and len(pillars) >= sizes.max_pillars:
                continue
            pillars.setdefault((row, column), []).append(point)
        actual += [
            (view, *place, np.stack(p[: sizes.pillar_points])) for place, p in pillars.items()
        ]
    return actual


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), limit=st.sampled_from([2, 5, 1000]), kept=st.sampled_from([1, 3])
)
def test_pillars_are_those_of_a_literal_loop(seed: int, limit: int, kept: int):
    sizes = replace(TINY, max_pillars=limit, pillar_points=kept)
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(3, 40, 5, generator=generator) * torch.tensor([400.0, 8.0, 2.5, 1.0, 1.0])
    points[1, 30:] = -999.0
    wanted, pillars = literal_pillars(points.numpy(), sizes), PillarGrid(sizes).gather(points)
    places = [(v, r, c) for v, r, c, _ in wanted]
    assert (
        list(zip(*(x.tolist() for x in (pillars.view, pillars.row, pillars.column)), strict=True))
        == places
    )
    for i, (*_, content) in enumerate(wanted):
        assert pillars.count[i] == len(content)
        assert np.array_equal(pillars.points[i, : len(content)], content)
        assert not pillars.points[i, len(content) :].any()


def test_views_without_any_point_have_no_pillar():
    network = fill_reference(CRN(TINY))
    context, occupancy = network.backbone_pts(torch.full((2, 8, 5), -999.0))
    assert context.shape == (2, 16, 24, 22)
    assert occupancy.isfinite().all()


# -- view transform -----------------------------------------------------------------------------


def test_lifting_is_the_sum_over_image_rows():
    g = torch.Generator().manual_seed(1)
    context, depth = (torch.rand(2, n, 4, 5, generator=g, dtype=torch.float64) for n in (3, 6))
    mask = (torch.rand(2, 6, 4, 5, generator=g) > 0.4).double()
    occupancy = torch.rand(2, 1, 6, 5, generator=g, dtype=torch.float64)
    lifted = torch.einsum("vcij,vdij,vdij->vcjd", context, depth, mask)
    assert torch.allclose(lift_by_depth(context, depth, mask), lifted, atol=1e-14)
    collapsed = torch.einsum("vcij,vij->vcj", context, mask.amax(1))
    by_radar = torch.einsum("vdj,vcj->vcjd", occupancy[:, 0], collapsed)
    assert torch.allclose(lift_by_radar(context, occupancy, mask), by_radar, atol=1e-14)


def test_pooling_averages_each_cells_columns_and_drops_those_outside():
    g = torch.Generator().manual_seed(2)
    columns = torch.rand(2, 50, 3, generator=g, dtype=torch.float64)
    cells = torch.randint(0, 10, (2, 50), generator=g)  # 9 means outside
    pooled = pool(columns, cells, 9)
    for b in range(2):
        for cell in range(9):
            inside = columns[b, cells[b] == cell]
            mean = inside.mean(0) if len(inside) else torch.zeros(3, dtype=torch.float64)
            assert torch.allclose(pooled[b, cell], mean, atol=1e-14)


# -- attention ----------------------------------------------------------------------------------


def bilinear(value: Tensor, x: float, y: float) -> Tensor:
    """A map (E, ny, nx) at a place in shares of the map; neighbours outside count as zero."""
    n = value.shape[-1]
    column, row = x * n - 0.5, y * n - 0.5
    left, top = int(np.floor(column)), int(np.floor(row))
    out = torch.zeros(value.shape[0], dtype=value.dtype)
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - abs(row - i)) * (1 - abs(column - j))
        if 0 <= i < n and 0 <= j < n:
            out += weight * value[:, i, j]
    return out


@torch.no_grad()
def test_deformable_attention_is_its_literal_loop():
    sizes = replace(TINY, cells=8, embed=8, heads=2, points=2, context=3)
    attend, n = DeformableAttention(sizes).double(), 8
    g = torch.Generator().manual_seed(3)
    query = torch.randn(1, n * n, 8, generator=g, dtype=torch.float64)
    image, radar = (torch.randn(1, n * n, 3, generator=g, dtype=torch.float64) for _ in range(2))
    actual = attend(query, image, radar, cell_centres(n).double())
    offsets = attend.sampling_offsets(query).reshape(
        n * n, 2, 2, 2, 2
    )  # query, head, sensor, point
    weights = attend.attention_weights(query).reshape(n * n, 2, 4).softmax(-1)
    values = (attend.value_proj_img(image)[0], attend.value_proj_pts(radar)[0])
    for cell in (0, 7, 27, 63):
        x, y = (cell % n + 0.5) / n, (cell // n + 0.5) / n
        for head in range(2):
            wanted = sum(
                weights[cell, head, 2 * s + p]
                * bilinear(
                    values[s][:, 4 * head : 4 * head + 4].T.reshape(4, n, n),
                    float(x + offsets[cell, head, s, p, 0] / n),
                    float(y + offsets[cell, head, s, p, 1] / n),
                )
                for s in range(2)
                for p in range(2)
            )
            assert torch.allclose(actual[0, cell, 4 * head : 4 * head + 4], wanted, atol=1e-12)


# -- outputs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> CRN:
    return fill_reference(CRN(TINY))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    return reference_batch("tiny_s1")


@torch.no_grad()
def test_outputs_are_channels_of_the_heat_maps_and_their_sigmoid(network: CRN, batch: Any):
    names = ["heatmap.bus", "probability.bus", "task1.heatmap", "heatmap.car"]
    actual = network(batch, names)
    assert list(actual) == names
    assert torch.equal(actual["heatmap.bus"], actual["task1.heatmap"][:, 1:])
    assert torch.equal(actual["probability.bus"], actual["heatmap.bus"].sigmoid())
    assert torch.equal(network(batch)["heatmap.car"], actual["heatmap.car"])


def test_an_unknown_output_is_refused_with_those_there_are(network: CRN):
    with pytest.raises(ConfigError, match=r"no output 'heatmap.tram': choose one of heatmap.car, "):
        network.require_output("heatmap.tram")


def test_maps_turn_forward_up(network: CRN):
    values = torch.zeros(32, 32)
    values[20, 30] = 1.0  # y 20 cells to the left, x 30 forward
    assert network.forward_up(values)[30, 32 - 1 - 20] == 1


@torch.no_grad()
def test_both_boundaries_predict_the_same(network: CRN, batch: Any):
    cut = CRN(TINY, boundary="fuser").eval()
    cut.load_state_dict(network.state_dict())
    assert cut.constants(batch) == {}
    assert torch.equal(cut(batch)["heatmap.car"], network(batch)["heatmap.car"])


def test_an_unknown_boundary_is_refused():
    with pytest.raises(ConfigError, match="no boundary 'middle': choose product or fuser"):
        CRN(TINY, boundary="middle")  # type: ignore[arg-type]


# -- sizes and weights that do not fit ----------------------------------------------------------

BAD_SIZES = {
    "image_size": ((250, 704), "multiples of 32"),
    "depth": ((2.0, 57.0, 0.8), "a whole number of steps"),
    "cells": (100, "a multiple of 8"),
    "pillar": ((7, 16), "the first even"),
    "embed": (130, "even and a multiple of heads"),
    "tasks": ((("car",), ("car",)), "distinct class names"),
}


@pytest.mark.parametrize("name", BAD_SIZES)
def test_sizes_that_cannot_be_built_are_named(name: str):
    value, expected = BAD_SIZES[name]
    with pytest.raises(ConfigError, match=rf"CRN's {name} is .*: expected .*{expected}"):
        replace(CRNSizes(), **{name: value})


def checkpoint(folder: Path, sizes: CRNSizes) -> Path:
    """Weights as Lightning saves them."""
    state = {f"model.{name}": value for name, value in CRN(sizes).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, folder / "weights.pth")
    return folder / "weights.pth"


SMALL = replace(TINY, backbone_width=4, trunk=8)


def test_a_lightning_checkpoint_loads(tmp_path: Path):
    network = CRN(SMALL)
    load_checkpoint(checkpoint(tmp_path, SMALL), network)
    saved = torch.load(tmp_path / "weights.pth", weights_only=True)["state_dict"]
    state = network.state_dict()
    assert all(torch.equal(state[k.removeprefix("model.")], v) for k, v in saved.items())


def test_a_checkpoint_of_another_depth_is_named_as_such(tmp_path: Path):
    path = checkpoint(tmp_path, replace(SMALL, backbone=50))
    with pytest.raises(CheckpointError, match=r"CRN with a ResNet-50 image backbone, .* says 18"):
        load_checkpoint(path, CRN(SMALL))


def test_a_checkpoint_of_another_number_of_key_frames_is_named_as_such(tmp_path: Path):
    path = checkpoint(tmp_path, replace(SMALL, key_frames=2))
    with pytest.raises(CheckpointError, match=r"fuses 2 key frames, the config says 4"):
        load_checkpoint(path, CRN(SMALL))


def test_the_published_parameter_counts():
    with torch.device("meta"):
        counts = {n: sum(p.numel() for p in CRN(SHAPES[n]).parameters()) for n in ("r18", "r50")}
    assert counts == {"r18": 37_153_789, "r50": 61_435_037}
