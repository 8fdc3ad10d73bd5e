"""Flex attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lmd_cli.decomposition import decompose
from tests.decomposition.rules.test_attention import normal
from tests.support.rule_oracle import assert_replayed, assert_rows, rows_of

SLOPES = normal(2, seed=20).reshape(2, 1, 1)


STEPS = torch.arange(6)[None, :] - torch.arange(6)[:, None]


#: Options of flex attention, and how the same is written in single operations.
FLEXIBLE: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "plain": ({}, lambda scores: scores),
    "masked": (
        {"block_mask": lambda b, h, i, j: i >= j},
        lambda scores: scores.masked_fill(STEPS > 0, -torch.inf),
    ),
    "biased": (
        {"score_mod": lambda s, b, h, i, j: s + SLOPES[h, 0, 0] * (j - i)},
        lambda scores: scores + SLOPES * STEPS,
    ),
    "capped": (
        {"score_mod": lambda s, b, h, i, j: 2.0 * torch.tanh(s / 2.0), "scale": 0.3},
        lambda scores: 2.0 * torch.tanh(scores * 0.6 / 2.0),
    ),
}


@pytest.mark.skipif(
    not hasattr(TorchDispatchMode, "supports_higher_order_operators"),
    reason="this torch shows no dispatch mode what flex attention calls",
)
@pytest.mark.parametrize("softmax", ["frozen", "taylor"])
@pytest.mark.parametrize("name", FLEXIBLE)
def test_flex_attention_is_its_operations(name: str, softmax: str) -> None:
    """Called as it is, uncompiled."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    given, change = FLEXIBLE[name]
    options = dict(given)
    if "block_mask" in options:
        sizes = {"B": 1, "H": 1, "Q_LEN": 6, "KV_LEN": 6, "device": "cpu"}
        options["block_mask"] = create_block_mask(options["block_mask"], **sizes)
    layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)).double()
    layers.requires_grad_(False)  # torch has no backward pass for it on CPUs

    def flexible(camera: Tensor, radar: Tensor) -> Tensor:
        query, key, value = (layer(camera + radar) for layer in layers)
        return flex_attention(query, key, value, **options)  # type: ignore[no-any-return]

    def single(camera: Tensor, radar: Tensor) -> Tensor:
        query, key, value = (layer(camera + radar) for layer in layers)
        return torch.softmax(change(query @ key.mT / 2.0), -1) @ value

    inputs = {"camera": normal(1, 2, 6, 4, seed=21), "radar": normal(1, 2, 6, 4, seed=22)}
    rules = f"identity-ratio-{'taylor' if softmax == 'taylor' else 'identity'}-{softmax}"
    result = decompose(flexible, inputs, rules, keep_maps=True)
    wanted = decompose(single, inputs, rules)
    assert torch.equal(result.total, flexible(**inputs))  # also compiled again after the run
    assert_rows(result, rows_of(wanted))
    assert_replayed(inputs, result)
    names = {function for _, function in result.coverage}
    assert "torch.ops.higher_order.flex_attention" in names
