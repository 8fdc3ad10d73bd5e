"""How the cost of a sample grows: with parts, offsets, variants and the grid's size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.setting import OUTPUT, VARIANT, Bench, build
from lmd_cli.decomposition import Variant, decompose_onward
from lmd_cli.evaluation.cost import Meter
from lmd_cli.evaluation.variants import VariantPredictions
from lmd_cli.geometry import Grid
from lmd_cli.networks import random_weights

NAMES = ("identity-ratio", "uniform-ratio", "identity-identity", "uniform-identity")
VARIANTS = tuple(map(Variant.parse, NAMES))


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        of: what grows; ``size``: to what.
        gflops: as torch counts them.
        seconds: of one run.
        flops_ratio, time_ratio: over the first size's.
    """

    of: str
    size: int
    gflops: float
    seconds: float
    flops_ratio: float = 1.0
    time_ratio: float = 1.0


def series(of: str, sizes: list[int], work: Callable[[int], Any], repeats: int) -> list[Point]:
    """Measures each size, smallest first."""
    points = []
    for size in sizes:
        with Meter() as meter:  # also warms up
            work(size)
        seconds = min(_seconds(work, size) for _ in range(repeats))
        points.append(Point(of, size, meter.flops / 1e9, seconds))
    first = points[0]
    return [
        replace(p, flops_ratio=p.gflops / first.gflops, time_ratio=p.seconds / first.seconds)
        for p in points
    ]


def _seconds(work: Callable[[int], Any], size: int) -> float:
    started = time.perf_counter()
    work(size)
    return time.perf_counter() - started


def growth(bench: Bench, repeats: int) -> list[Point]:
    """All four series; the decoder and what comes with it, encodings aside."""
    visit, network = bench.visit, bench.network

    def parts(count: int) -> Any:
        extras = {"camera": [bench.fused.parts["camera"]] * (count - 3)}
        return decompose_onward(
            bench.tail, bench.fused.total, bench.fused.parts, VARIANT, extras=extras, root=network
        )

    def offsets(count: int) -> Any:
        some = replace(visit, partners=visit.partners[:count])
        return VariantPredictions(network, some, OUTPUT).under(VARIANT)

    def variants(count: int) -> Any:
        predictions = VariantPredictions(network, visit, OUTPUT)
        return [predictions.under(variant) for variant in VARIANTS[:count]]

    return [
        *series("parts (camera, radar, bias and extras)", [3, 6, 12, 24], parts, repeats),
        *series("offsets", [1, 3, 6, 12], offsets, repeats),
        *series(f"variants ({', '.join(NAMES)})", [1, 2, 3, 4], variants, repeats),
        *series("grid's edge", [50, 100, 200], _grids(), repeats),
    ]


def _grids() -> Callable[[int], Any]:
    """The decoder on three parts and the total, for grids of any size."""
    network = build(Grid((8, 8, 8)))
    random_weights(network, seed=0)
    network.eval().requires_grad_(False)
    source = torch.randn(2, network.widths.latent, 50, 50)

    def decomposed(edge: int) -> Any:
        maps = F.interpolate(source, (edge, edge))
        sensors = {"camera": maps[:1], "radar": maps[1:]}
        tail = lambda x: network.tail(x, [OUTPUT])[OUTPUT]  # noqa: E731
        return decompose_onward(tail, maps.sum(0, keepdim=True), sensors, VARIANT, root=network)

    return decomposed


def convolution_peak(repeats: int) -> float:
    """GFLOP/s of the machine's fastest convolution, out of sizes that the network has."""
    best = 0.0
    for channels, edge in ((128, 200), (256, 100), (512, 50)):
        x, kernel = torch.randn(1, channels, edge, edge), torch.randn(channels, channels, 3, 3)
        flops = 2 * 9 * channels**2 * edge**2
        for _ in range(repeats + 1):
            started = time.perf_counter()
            F.conv2d(x, kernel, padding=1)
            best = max(best, flops / (time.perf_counter() - started))
    return best / 1e9
