"""The study of the last ReLU's slope, at units whose shares can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from studies import last_relu as study
from torch import Tensor, nn

from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.result import Parts


class Units(nn.Module):
    """Units whose input is the bias part plus one number from each sensor."""

    def __init__(self, bias: Tensor):
        super().__init__()
        self.before, self.bias = nn.Identity(), bias

    def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
        return torch.relu(self.before(camera + radar + self.bias))


def split(bias: list[float], camera: list[float], radar: list[float]) -> tuple[Parts, Tensor]:
    """The units' input with its parts, and what the ReLU lets through."""
    given = {"camera": torch.tensor(camera)[None], "radar": torch.tensor(radar)[None]}
    units = Units(torch.tensor(bias)[None])
    result = decompose(units, given, layers=["before"])
    return result.layers["before"], result.total


def shares(before: Parts, rule: str) -> tuple[list[float], list[float]]:
    """Camera's and radar's share of every unit's output under a rule."""
    without = {m: before.total - h for m, h in before.parts.items()}
    maps = study.by_rule(before, without, lambda h: h)[rule]
    return maps["camera"][0].tolist(), maps["radar"][0].tolist()


def test_a_unit_that_a_sensor_switched_off_gives_it_nothing_under_equation_9() -> None:
    # On without sensors (2), switched off by the camera (-3); switched on by it; on in any case.
    before, total = split([2.0, -1.0, 1.0], [-3.0, 3.0, 1.0], [0.0, 0.0, 1.0])
    assert total.tolist() == [[0.0, 2.0, 3.0]]
    assert shares(before, study.LMD) == ([0.0, 3.0, 1.0], [0.0, 0.0, 1.0])
    assert shares(before, "only here") == shares(before, study.LMD)
    assert shares(before, "live") == ([-2.0, 2.0, 1.0], [0.0, 0.0, 1.0])
    assert shares(before, "from the bias")[0] == pytest.approx([-2.0, 2.0, 1.0])


def test_the_slope_from_the_bias_conserves() -> None:
    g = torch.Generator().manual_seed(0)
    bias, camera, radar = torch.randn(3, 200, generator=g).tolist()
    before, total = split(bias, camera, radar)
    given = [torch.tensor(share) for share in shares(before, "from the bias")]
    left = total[0] - sum(given)
    assert torch.allclose(left, torch.tensor(bias).relu(), atol=1e-5)


def test_where_no_sensor_moved_a_unit_the_slope_is_the_derivative() -> None:
    before, _ = split([1.0, -1.0], [2.0, 2.0], [-2.0, -2.0])
    assert shares(before, "from the bias") == ([2.0, 0.0], [-2.0, 0.0])
