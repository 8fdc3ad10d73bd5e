"""Counting passes, FLOPs and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.evaluation.cost import Meter, compare, method_costs, plain_cost

FEATURES = {
    "camera": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
    "radar": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
    "lidar": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)),
}
LAYERS = nn.Sequential(
    nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 1, 1, bias=False)
)


def fuse(camera: Tensor, radar: Tensor, lidar: Tensor) -> Tensor:
    return LAYERS(camera + radar + lidar)


def mean(output: Tensor) -> Tensor:
    return output.flatten(1).mean(1, keepdim=True)


PLAIN = 2 * 64 * (4 * 6 * 9 + 6)  # multiplications and additions of both convolutions


def test_flops_of_a_plain_pass_are_counted_by_hand() -> None:
    assert plain_cost(fuse, FEATURES).flops == PLAIN


def test_costs_by_hand() -> None:
    actual = {(c.method, c.modalities): c for c in method_costs(fuse, FEATURES, mean)}
    assert len(actual) == 9
    for count in (1, 2, 3):
        shapley, lrp = actual["Shapley-based", count], actual["LRP", count]
        assert (shapley.forward, shapley.backward) == (2**count, 0)
        assert shapley.flops == 2**count * PLAIN
        assert (lrp.forward, lrp.backward) == (1, 1)
        assert lrp.flops == 3 * PLAIN  # the network, its linear maps, and back
        lmd = actual["LMD", count]
        assert (lmd.forward, lmd.backward) == (1, 0)
        constants = 0 if count == 3 else 1  # the modalities that are not told apart are bias
        assert lmd.flops == (1 + count + constants) * PLAIN


def test_memory_is_the_largest_sum_alive() -> None:
    size = 100 * 100 * 4
    with Meter() as meter:
        a = torch.zeros(100, 100)
        b = a + 1
        del a
        c = b * 2
        del b
        d = c.view(-1)
        e = d + 1
    assert meter.peak == 2 * size
    del c, d, e
    with Meter() as meter:
        x = torch.zeros(100, 100)
        for _ in range(10):
            x = x + 1
    assert meter.peak == 2 * size


def test_lrp_beside_lmd() -> None:
    actual = compare(fuse, FEATURES, mean)
    assert actual.target == pytest.approx(float(mean(fuse(**FEATURES))), rel=1e-5)
    for shares in (actual.relevance, actual.parts):
        assert sum(shares.values()) == pytest.approx(actual.target, abs=1e-6)
    assert actual.distance < 1e-3
    assert actual.residual < 1e-5
