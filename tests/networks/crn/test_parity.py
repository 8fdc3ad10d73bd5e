"""CRN against the public code: the same state, and the same numbers at every stage."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lmd_cli.networks import CRN
from lmd_cli.networks.crn.view import lift_by_depth, lift_by_radar, pool
from tests.support.crn_reference import (
    CASES,
    SHAPES,
    Golden,
    fill_reference,
    reference_batch,
    reference_keys,
    reference_value,
)

TOLERANCE = 1e-4  # the reference's own, which separates every known mistake
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


class Stages:
    """Everything that a golden holds, computed stage by stage."""

    def __init__(self, name: str):
        self.case = CASES[name]
        self.network = fill_reference(CRN(self.case.sizes))
        self.batch = reference_batch(name)
        with torch.no_grad():
            self.features = self.network.encode(self.batch)
            self.constants = self.network.constants(self.batch)
            self.image, self.radar = self.network.view_transform(self.features, **self.constants)

    def radar_branch(self, sweep: int) -> Iterator[tuple[str, Tensor]]:
        branch = self.network.backbone_pts
        points = self.batch["pts_pv"][:, sweep].flatten(0, 1)
        pillars = branch.pts_voxel_encoder.grid.gather(points)
        yield f"pts.s{sweep}.pillar_features", branch.pts_voxel_encoder(pillars)
        canvas = branch.scatter(pillars, len(points))
        if sweep == 0:
            yield "pts.s0.canvas", canvas
        stages = branch.pts_backbone(canvas)
        yield from ((f"pts.s{sweep}.second{i}", stage) for i, stage in enumerate(stages))
        yield f"pts.s{sweep}.neck", branch.pts_neck(stages)

    def image_branch(self, sweep: int) -> Iterator[tuple[str, Tensor]]:
        branch = self.network.backbone_img
        maps = branch.img_backbone(self.batch["imgs"][:, sweep].flatten(0, 1))
        yield from ((f"img.s{sweep}.backbone{i}", x) for i, x in enumerate(maps))
        neck = branch.img_neck(maps)
        yield f"img.s{sweep}.neck", neck
        context, logits = branch.depth_net(neck)
        yield from ((f"img.s{sweep}.context", context), (f"img.s{sweep}.depth_logits", logits))

    def view(self, sweep: int) -> Iterator[tuple[str, Tensor]]:
        camera = {k: v[:, sweep].flatten(0, 1) for k, v in self.features["camera"].items()}
        occupancy = self.features["radar"]["occupancy"][:, sweep].flatten(0, 1)
        mask = self.constants["mask"][:, sweep].flatten(0, 1)
        depth = lift_by_depth(camera["context"], camera["depth"], mask)
        radar = lift_by_radar(camera["context"], occupancy, mask)
        yield from ((f"img.s{sweep}.lift_depth", depth), (f"img.s{sweep}.lift_radar", radar))
        aggregated = self.network.backbone_img.view_aggregation_net(torch.cat([depth, radar], 1))
        yield f"img.s{sweep}.view_agg", aggregated

    def fuser(self, sweep: int) -> Iterator[tuple[str, Tensor]]:
        fuser, n = self.network.fuser, self.case.sizes.cells
        image, radar = fuser.norm_img(self.image[:, sweep]), fuser.norm_pts(self.radar[:, sweep])
        for name, x in (("norm_img", image), ("norm_pts", radar)):
            yield f"fuser.s{sweep}.{name}", x.unflatten(1, (n, n))
        query = fuser.input_proj(torch.cat([image, radar], dim=-1))
        position = fuser.positional_encoding()
        yield f"fuser.s{sweep}.query0", query
        yield "fuser.pos", position.T.unflatten(1, (n, n))[None]
        for i, attend in enumerate(fuser.attn_layers):
            if sweep == i == 0:
                yield from self.linear_outputs(attend, query + position, image, radar)
            actual = attend(query + position, image, radar, fuser.ref_2d)
            query = query + actual
            stages = {"sampled": actual, "attn": query}
            stages["norm1"] = fuser.norm_layers1[i](query)
            stages["ffn"] = fuser.ffn_layers[i](stages["norm1"])
            stages["norm2"] = query = fuser.norm_layers2[i](stages["ffn"])
            yield from ((f"fuser.s{sweep}.layer{i}.{k}", x) for k, x in stages.items())

    def linear_outputs(self, attend, query, image, radar) -> Iterator[tuple[str, Tensor]]:
        yield "fuser.s0.layer0.value_proj_img", attend.value_proj_img(image)
        yield "fuser.s0.layer0.value_proj_pts", attend.value_proj_pts(radar)
        yield "fuser.s0.layer0.sampling_offsets", attend.sampling_offsets(query)
        yield "fuser.s0.layer0.attention_weights", attend.attention_weights(query)

    def outputs(self) -> Iterator[tuple[str, Tensor]]:
        n = self.case.sizes.cells
        both = torch.cat([self.image, self.radar], dim=-1)  # (B, S, Q, 2 C)
        yield "bev.feats", both.transpose(2, 3).unflatten(3, (n, n))
        swapped = {k: x.transpose(1, 2).flatten(0, 1) for k, x in self.features["radar"].items()}
        yield from ((f"pts.{name}", x) for name, x in swapped.items())
        fused = self.network.fuser(self.image, self.radar)
        yield "fuser.out", fused
        head = self.network.head
        trunk = head.trunk
        yield "head.stem", trunk.relu(trunk.bn1(trunk.conv1(fused)))
        maps = trunk(fused)
        yield from ((f"head.layer{i}", x) for i, x in enumerate(maps, start=1))
        yield "head.neck", head.neck([fused, *maps])
        yield "head.shared", head.shared(fused)
        names = [name for name in self.network.output_names() if name.startswith("task")]
        yield from self.network.fuse(self.features, names, **self.constants).items()

    def every(self) -> Iterator[tuple[str, Tensor]]:
        for sweep in range(self.case.sweeps):
            for stage in (self.radar_branch, self.image_branch, self.view, self.fuser):
                yield from stage(sweep)
        yield from self.outputs()


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


def check_geometry(stages: Stages, golden: Golden) -> None:
    n = stages.case.sizes.cells
    for sweep in range(stages.case.sweeps):
        xy = golden.arrays[f"geom.s{sweep}.cell_xy"]
        inside = ((xy >= 0) & (xy < n)).all(-1)
        wanted = np.where(inside, xy[..., 1] * n + xy[..., 0], n * n)
        assert np.array_equal(stages.constants["cells"][:, sweep], wanted)
        mask = stages.constants["mask"][:, sweep].numpy().astype(bool)
        assert np.array_equal(mask, golden.mask(sweep))


@torch.no_grad()
def test_columns_are_counted_in_their_cells(tiny: Stages, golden: Golden):
    cells = tiny.constants["cells"][:, 0].flatten(1)  # (B, 6 D w)
    n = tiny.case.sizes.cells
    count = torch.bincount(cells[0], minlength=n * n + 1)[:-1].reshape(1, n, n)
    assert np.array_equal(count, golden.arrays["geom.s0.count"])
    ones = pool(torch.ones(*cells.shape, 1), cells, n * n)[..., 0].reshape(1, n, n)
    assert torch.equal(ones, (count > 0).float())


@torch.no_grad()
def test_the_published_network():
    golden, stages = Golden("r50"), Stages("r50")
    check_geometry(stages, golden)
    differences = {name: golden.difference(name, value) for name, value in stages.outputs()}
    assert {k: d for k, d in differences.items() if d > TOLERANCE} == {}


@torch.no_grad()
def test_a_batch_of_several_frames_is_its_samples_one_by_one():
    network, batch = fill_reference(CRN(SHAPES["tiny"])), reference_batch("tiny_s4")
    together = network(batch)["heatmap.car"]
    alone = [network({k: v[b : b + 1] for k, v in batch.items()}) for b in range(2)]
    assert torch.allclose(together, torch.cat([x["heatmap.car"] for x in alone]), atol=1e-5)
