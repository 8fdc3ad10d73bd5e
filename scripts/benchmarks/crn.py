"""How long decomposing CRN's ``fuse`` takes beside a plain batch of as many entries.

    cd scripts
    python -m benchmarks.crn             # the published R18's sizes, one key frame
    python -m benchmarks.crn --frames 4  # all of its key frames; needs several GB

Camera, radar, bias and interaction ride through ``fuse``, and each sensor of ``--partners`` other
samples; the plain batch has one entry more, for the total. Weights and features are random.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from benchmarks.timing import compare, relative
from lmd_cli.decomposition import decompose
from lmd_cli.networks import CRN, CRNSizes, random_weights
from lmd_cli.runtime.allocator import keep_freed_memory

OUTPUT = "heatmap.car"
BOUND = 1.5


def random_features(sizes: CRNSizes, frames: int) -> dict[str, dict[str, Tensor]]:
    """Features of one sample, of the right shapes and ranges."""
    generator = torch.Generator().manual_seed(0)
    (h, w), bins, context = sizes.feature_size, sizes.depth_bins, sizes.context

    def noise(*size: int) -> Tensor:
        return torch.randn(1, frames, 6, *size, generator=generator)

    camera = {"context": noise(context, h, w), "depth": noise(bins, h, w).softmax(3)}
    radar = {"context": noise(context, bins, w), "occupancy": noise(1, bins, w).sigmoid()}
    return {"camera": camera, "radar": radar}


def random_constants(sizes: CRNSizes, frames: int) -> dict[str, Tensor]:
    """Cells spread over the map, and no point masked."""
    (h, w), bins = sizes.feature_size, sizes.depth_bins
    cells = torch.randint(
        sizes.cells**2, (1, frames, 6, bins, w), generator=torch.Generator().manual_seed(1)
    )
    return {"cells": cells, "mask": torch.ones(1, frames, 6, bins, h, w)}


def repeated(tree: Any, count: int) -> Any:
    """Every tensor ``count`` times along its first dimension."""
    return pytree.tree_map(lambda x: x.repeat(count, *(1,) * (x.dim() - 1)), tree)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--partners", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as lmd does
    sizes = CRNSizes.published(18)
    network = CRN(sizes).eval()
    random_weights(network)
    features = random_features(sizes, arguments.frames)
    constants = random_constants(sizes, arguments.frames)
    entries = 2 * (1 + arguments.partners) + 3  # sensors; bias, interaction, total
    batch, geometry = repeated(features, entries), repeated(constants, entries)
    extras = {name: [value] * arguments.partners for name, value in features.items()}

    def ours() -> Tensor:
        fuse = lambda **f: network.fuse(f, [OUTPUT], **constants)[OUTPUT]  # noqa: E731
        total: Tensor = decompose(fuse, features, extras=extras, root=network).total
        return total

    @torch.no_grad()
    def plain() -> Tensor:
        return network.fuse(batch, [OUTPUT], **geometry)[OUTPUT][:1]

    name = f"decomposing CRN's fuse with {entries - 1} parts / a plain batch of {entries}"
    c = compare(name, ours, plain, relative, BOUND, arguments.repeats)
    print(
        f"{c.name}: {c.ours:.2f} s / {c.other:.2f} s = {c.ratio:.3f} (at most "
        f"{c.bound}: {'ok' if c.ratio <= BOUND else 'MISSED'}; results differ by "
        f"{c.difference:.1e})"
    )


if __name__ == "__main__":
    main()
