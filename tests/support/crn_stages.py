"""What CRN computes on a golden's case, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lmd_cli.networks import CRN
from lmd_cli.networks.crn.view import lift_by_depth, lift_by_radar
from lmd_cli.networks.detections import Detections
from tests.support.crn_reference import CASES, Golden, fill_reference, reference_batch

TOLERANCE = 1e-4  # the reference's own, which separates every known mistake


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
        yield from self.maps.items()

    @cached_property
    def maps(self) -> dict[str, Tensor]:
        """Of the head."""
        names = [name for name in self.network.output_names() if name.startswith("task")]
        return self.network.fuse(self.features, names, **self.constants)

    def every(self) -> Iterator[tuple[str, Tensor]]:
        for sweep in range(self.case.sweeps):
            for stage in (self.radar_branch, self.image_branch, self.view, self.fuser):
                yield from stage(sweep)
        yield from self.outputs()


def check_geometry(stages: Stages, golden: Golden) -> None:
    n = stages.case.sizes.cells
    for sweep in range(stages.case.sweeps):
        xy = golden.arrays[f"geom.s{sweep}.cell_xy"]
        inside = ((xy >= 0) & (xy < n)).all(-1)
        wanted = np.where(inside, xy[..., 1] * n + xy[..., 0], n * n)
        assert np.array_equal(stages.constants["cells"][:, sweep], wanted)
        mask = stages.constants["mask"][:, sweep].numpy().astype(bool)
        assert np.array_equal(mask, golden.mask(sweep))


def with_bottoms(detections: Detections) -> Detections:
    """The boxes with z that of the bottom, as in the public code."""
    boxes = detections.boxes.clone()
    boxes[:, 2] -= boxes[:, 5] / 2
    return replace(detections, boxes=boxes)
