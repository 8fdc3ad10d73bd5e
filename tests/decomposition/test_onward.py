"""Going on from an intermediate tensor gives what the whole run gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import decompose, decompose_onward, variant_names
from tests.support.rule_oracle import normal

INPUTS = {"camera": normal(1, 3, 4, 4), "radar": normal(1, 2, 4, 4, seed=1)}
EXTRAS = {"radar": [normal(1, 2, 4, 4, seed=2), normal(1, 2, 4, 4, seed=3)]}


def tail_and_fusion() -> tuple[nn.Sequential, nn.Conv2d]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fusion = nn.Conv2d(5, 4, 3, padding=1)
        tail = nn.Sequential(nn.InstanceNorm2d(4), nn.GELU(), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    return tail.double().eval(), fusion.double().eval()


@pytest.mark.parametrize("variant", variant_names())
def test_onward_is_the_rest_of_the_run(variant: str) -> None:
    tail, fusion = tail_and_fusion()

    def whole(camera: Tensor, radar: Tensor) -> Tensor:
        return tail(fusion(torch.cat([camera, radar], 1)))

    def first(camera: Tensor, radar: Tensor) -> Tensor:
        return fusion(torch.cat([camera, radar], 1))

    expected = decompose(whole, INPUTS, variant, extras=EXTRAS)
    middle = decompose(first, INPUTS, variant, extras=EXTRAS)
    result = decompose_onward(
        tail, middle.total, middle.parts, variant, bias=middle.bias, extras=middle.extras
    )
    assert torch.equal(result.total, expected.total)
    torch.testing.assert_close(result.bias, expected.bias, rtol=0, atol=1e-13)
    for name in INPUTS:
        torch.testing.assert_close(result.parts[name], expected.parts[name], rtol=0, atol=1e-13)
    for a, b in zip(result.extras["radar"], expected.extras["radar"], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_without_a_bias_part_there_is_none_yet() -> None:
    tail, _ = tail_and_fusion()
    x, y = normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    result = decompose_onward(tail[:2], x + y, {"camera": x, "radar": y})
    assert torch.equal(result.total, tail[:2](x + y))
    assert not result.bias.any()


def test_the_given_total_is_not_written_to() -> None:
    x, y = normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    total, before = x + y, x + y
    result = decompose_onward(nn.ReLU(inplace=True), total, {"camera": x, "radar": y})
    assert torch.equal(total, before)
    assert torch.equal(result.total, before.relu())
