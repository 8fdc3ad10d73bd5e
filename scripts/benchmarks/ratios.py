"""Ways of getting the same numbers, compared in turn."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.setting import OFFSETS, OUTPUT, VARIANT, Bench
from benchmarks.timing import Comparison, compare, relative
from lmd_cli.decomposition import decompose_onward
from lmd_cli.evaluation.variants import VariantPredictions
from lmd_cli.evaluation.walk import Encoder, Visit
from lmd_cli.networks.simplebev.unprojection import unproject


def unprojection(bench: Bench, repeats: int) -> Comparison:
    """Visible (voxel, camera) pairs against all pairs."""
    images = bench.batch["images"]
    assert isinstance(images, Tensor)
    features = bench.network.image_features(images)
    cameras = (bench.batch["pix_T_cams"], bench.batch["cam0_T_camXs"])
    size = (images.shape[-2], images.shape[-1])

    def run(dense: bool) -> Tensor:
        return unproject(features, *cameras, bench.network.grid, size, dense=dense)  # type: ignore[arg-type]

    return compare(
        "unprojection / the dense way",
        lambda: run(False),
        lambda: run(True),
        relative,
        1 / 4,
        repeats,
    )


def decomposition(bench: Bench, repeats: int) -> Comparison:
    """The decoder with 2 + 24 parts and the bias against a plain batch of 28."""
    sample = bench.fused
    extras = {name: [part] * OFFSETS for name, part in sample.parts.items()}
    parts = len(sample.parts) * (1 + OFFSETS) + 1
    batch = sample.total.repeat(parts + 1, 1, 1, 1)

    def ours() -> Tensor:
        result = decompose_onward(
            bench.tail, sample.total, sample.parts, VARIANT, extras=extras, root=bench.network
        )
        return result.total

    return compare(
        f"decomposing with {parts} parts / a plain batch of {parts + 1}",
        ours,
        lambda: bench.tail(batch)[:1],
        relative,
        1.15,
        repeats,
    )


def one_sample(bench: Bench, repeats: int) -> Comparison:
    """A sample of the evaluation against the plain parts that it consists of."""
    encode = Encoder(bench.network, [bench.data[0]], torch.device("cpu"))
    passes = len(bench.network.modalities) * (1 + OFFSETS) + 2

    def ours() -> Tensor:
        sample = encode(0, False)
        visit = Visit(0, sample, bench.visit.partners)
        return VariantPredictions(bench.network, visit, OUTPUT).under(VARIANT).total

    def plain() -> Tensor:
        features = bench.network.encode(bench.batch)
        fused = bench.network.fusion_layer(features)
        return [bench.tail(fused) for _ in range(passes)][-1]

    return compare(
        f"a sample with {OFFSETS} offsets / encoding + fusion layer + {passes} decoder passes",
        ours,
        plain,
        relative,
        1.2,
        repeats,
    )
