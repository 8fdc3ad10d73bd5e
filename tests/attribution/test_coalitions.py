"""Shared passes give what separate ones give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.attribution import METHODS, method_named
from lmd_cli.attribution.coalitions import Coalitions
from tests.support.rule_oracle import normal

NORM = torch.nn.InstanceNorm2d(3)
CLEAN = {"camera": normal(1, 3, 4, 5), "radar": normal(1, 3, 4, 5, seed=1)}
OTHERS = {"camera": normal(4, 3, 4, 5, seed=2), "radar": normal(4, 3, 4, 5, seed=3)}
FORWARD = [name for name in METHODS if name != "lrp"]


def fuse(camera: Tensor, radar: Tensor) -> Tensor:
    """Adds features up, so that batches of 1 and of many go together."""
    return F.gelu(NORM(camera + radar + 0.1)).relu() + camera.tanh() - 0.3


def counting(calls: list[int]) -> Callable[..., Tensor]:
    def counted(**features: Tensor) -> Tensor:
        calls.append(1)
        return fuse(**features)

    return counted


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("replaced", ["camera", "radar"])
def test_a_batch_of_partners_is_each_of_them(name: str, replaced: str) -> None:
    method: Any = method_named(name)
    together = method.at(Coalitions(fuse, broadcasts=True), CLEAN)
    actual = together.parts({**CLEAN, replaced: OTHERS[replaced]})
    alone = method.at(fuse, CLEAN)
    for i in range(4):
        wanted = alone.parts({**CLEAN, replaced: OTHERS[replaced][i : i + 1]})
        for part, values in wanted.items():
            batch = actual[part].expand(4, *actual[part].shape[1:])
            torch.testing.assert_close(batch[i : i + 1], values, rtol=1e-10, atol=1e-12)


def test_methods_share_their_passes() -> None:
    calls: list[int] = []
    shared = Coalitions(counting(calls), broadcasts=True)
    for name in ("leave-one-out", "shapley", "leave-one-out"):
        explainer = method_named(name).at(shared, CLEAN)  # type: ignore[union-attr]
        explainer.parts(CLEAN)
        for replaced in CLEAN:
            explainer.parts({**CLEAN, replaced: OTHERS[replaced]})
    # Clean: 4 coalitions. Each replaced: both, and the partner's alone; the rest is known.
    assert len(calls) == shared.passes == 4 + 2 * 2


def test_values_of_objects_that_are_gone_are_not_mistaken() -> None:
    shared = Coalitions(lambda camera: camera * 2.0, broadcasts=False)
    for seed in range(50):  # a new tensor may take the place of the last one in memory
        x = normal(1, 2, seed=seed)
        assert torch.equal(shared.value({"camera": x}, frozenset()), x * 2.0)
