"""Torch's transformer layers: their fused operators in evaluation mode, and their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import Decomposition, NoRuleError, decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from tests.support.rule_oracle import normal

LENGTH, WIDTH = 5, 8
Made = tuple[Callable[..., Any], dict[str, Tensor]]
INPUTS = {n: normal(2, LENGTH, WIDTH, seed=30 + i) for i, n in enumerate(("camera", "radar"))}
LATER = torch.ones(LENGTH, LENGTH).triu(1).bool()
RIGHT = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
LEFT = torch.tensor([[False] * 5, [True] * 2 + [False] * 3])


def filled(module: nn.Module) -> nn.Module:
    module = module.double().eval()
    for i, parameter in enumerate(module.parameters()):
        parameter.data = 0.5 * normal(*parameter.shape, seed=100 + i)
    return module


def encoder_layer(**options: Any) -> nn.Module:
    return filled(nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True, **options))


def of_sum(module: nn.Module, **options: Any) -> Made:
    return lambda camera, radar: module(camera + radar, **options), INPUTS


def self_attention(**options: Any) -> Made:
    module = filled(nn.MultiheadAttention(WIDTH, 2, batch_first=True))

    def function(camera: Tensor, radar: Tensor) -> Any:
        x = camera + radar
        return module(x, x, x, **options)

    return function, INPUTS


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


def scaled(**options: Any) -> Made:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = heads(camera + radar)
        return F.scaled_dot_product_attention(x, heads(radar) + 0.3, x, **options)

    return function, INPUTS


EMPTY_ROWS = torch.ones(LENGTH, LENGTH).bool()
EMPTY_ROWS[1:3] = False
ADDED = torch.zeros(LENGTH, LENGTH).double().masked_fill(LATER, -torch.inf)

ATTENTION: dict[str, Callable[[], Made]] = {
    "encoder layer": lambda: of_sum(encoder_layer()),
    "encoder layer, norm first, GELU": lambda: of_sum(
        encoder_layer(norm_first=True, activation="gelu")
    ),
    "encoder layer, padding": lambda: of_sum(encoder_layer(), src_key_padding_mask=RIGHT),
    "encoder layer, causal": lambda: of_sum(encoder_layer(), src_mask=LATER),
    "encoder layer, both": lambda: of_sum(
        encoder_layer(), src_mask=LATER, src_key_padding_mask=RIGHT
    ),
    "encoder": lambda: of_sum(nn.TransformerEncoder(encoder_layer(), 2).eval()),
    "attention": self_attention,
    "attention without weights": lambda: self_attention(need_weights=False),
    "attention with each head's weights": lambda: self_attention(average_attn_weights=False),
    "attention, padding": lambda: self_attention(key_padding_mask=RIGHT),
    "scaled": scaled,
    "scaled, causal": lambda: scaled(is_causal=True),
    "scaled, rows without keys": lambda: scaled(attn_mask=EMPTY_ROWS),
    "scaled, added mask": lambda: scaled(attn_mask=ADDED),
    "scaled, factor": lambda: scaled(scale=0.3),
}


def decomposed(made: Made, variant: str) -> Decomposition:
    function, inputs = made
    result = decompose(function, inputs, variant, keep_maps=True)
    with torch.no_grad():
        plain = function(**inputs)
    first = result.total[0] if isinstance(result.total, tuple) else result.total
    assert torch.equal(first, plain[0] if isinstance(plain, tuple) else plain)
    assert result.residual < 1e-12
    assert replay_deviation(replay(result, inputs), result) < 1e-12
    return result


@contextmanager
def single_operations() -> Iterator[None]:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("softmax", ["frozen", "taylor", "secant"])
@pytest.mark.parametrize("name", ATTENTION)
def test_fused_layers_are_their_operations(name: str, softmax: str) -> None:
    """The total is the fused operator's, bit for bit; the parts those of the single operations."""
    variant = f"identity-ratio-identity-{softmax}"
    result = decomposed(ATTENTION[name](), variant)
    with single_operations():
        apart = decompose(*ATTENTION[name](), variant)
    for modality, part in result.parts.items():
        for a, b in zip(leaves(part), leaves(apart.parts[modality]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def leaves(tree: Any) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(tree) if isinstance(t, Tensor)]


@pytest.mark.parametrize("softmax", ["frozen", "taylor", "secant"])
def test_rows_without_keys_are_zero(softmax: str) -> None:
    result = decomposed(scaled(attn_mask=EMPTY_ROWS), f"identity-ratio-identity-{softmax}")
    for tree in (result.total, *result.parts.values(), result.bias):
        assert not tree[:, :, 1:3].any()
    assert all(part[:, :, 0].any() for part in result.parts.values())


@pytest.mark.parametrize("options", [{}, {"need_weights": False}])
def test_left_padding_follows_torch(options: dict[str, Any]) -> None:
    """Under a causal mask the padded rows have no keys; torch's fused attention gives NaN there."""
    function, inputs = self_attention(key_padding_mask=LEFT, attn_mask=LATER, **options)
    with torch.no_grad():
        result, plain = decompose(function, inputs), function(**inputs)[0]
    total = result.total[0]
    assert torch.equal(torch.isnan(total), torch.isnan(plain))
    assert torch.equal(total.nan_to_num(), plain.nan_to_num())
    there = ~torch.isnan(plain)
    made = sum(part[0] for part in result.parts.values()) + result.bias[0]
    torch.testing.assert_close(made[there], plain[there], rtol=1e-12, atol=1e-12)


def test_rows_without_keys_are_zero_where_torch_does_not_fuse() -> None:
    """With gradients torch runs the single operations, which give 0 for a row without keys."""
    options = {"key_padding_mask": LEFT, "attn_mask": LATER, "need_weights": False}
    function, inputs = self_attention(**options)
    result, plain = decompose(function, inputs), function(**inputs)[0].detach()
    assert torch.isfinite(plain).all()
    torch.testing.assert_close(result.total[0], plain, rtol=1e-12, atol=1e-12)
    assert result.residual < 1e-12


def test_nested_sequences_are_refused_with_what_to_do() -> None:
    encoder = nn.TransformerEncoder(encoder_layer(), 1).eval()
    function, inputs = of_sum(encoder, src_key_padding_mask=RIGHT)
    with pytest.raises(NoRuleError, match=r"set_fastpath_enabled\(False\)"):
        decompose(function, inputs)
    with single_operations():
        assert decompose(function, inputs).residual < 1e-12


def test_torch_is_left_as_it_was() -> None:
    asked = torch.overrides.has_torch_function
    decompose(*ATTENTION["encoder layer"]())
    assert torch.overrides.has_torch_function is asked
