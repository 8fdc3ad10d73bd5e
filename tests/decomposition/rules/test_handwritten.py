"""Norms and gates written out in single operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.decomposition.rules.test_composite import X, two
from tests.support.rule_oracle import (
    MODALITIES,
    assert_rows,
    assert_total,
    rows_of,
)


def layer_norm(x: Tensor) -> Tensor:
    centre = x - x.mean(-1, keepdim=True)
    return centre / torch.sqrt(centre.pow(2).mean(-1, keepdim=True) + 1e-5)


def convnext_norm(x: Tensor) -> Tensor:
    u = x.mean(-1, keepdim=True)
    s = (x - u).pow(2).mean(-1, keepdim=True)
    return (x - u) / torch.sqrt(s + 1e-5)


def rms_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


BY_HAND: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "LayerNorm": (layer_norm, lambda x: F.layer_norm(x, (4,))),
    "ConvNeXt's": (convnext_norm, lambda x: F.layer_norm(x, (4,))),
    "LayerNorm by var": (
        lambda x: (
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        ),
        lambda x: F.layer_norm(x, (4,)),
    ),
    "LayerNorm by var_mean and rsqrt": (
        lambda x: (lambda v, m: (x - m) * torch.rsqrt(v + 1e-5))(
            *torch.var_mean(x, -1, correction=0, keepdim=True)
        ),
        lambda x: F.layer_norm(x, (4,)),
    ),
    "InstanceNorm": (
        lambda x: (x - x.mean(2, True)) * (x.var(2, False, True) + 1e-5) ** -0.5,
        lambda x: F.instance_norm(x),
    ),
    "RMSNorm": (rms_norm, lambda x: F.rms_norm(x, (4,), eps=1e-5)),
    "RMSNorm by reciprocal": (
        lambda x: x * (x.square().mean(-1, True) + 1e-5).sqrt().reciprocal(),
        lambda x: F.rms_norm(x, (4,), eps=1e-5),
    ),
    "normalize": (lambda x: x / x.norm(dim=1, keepdim=True), F.normalize),
    "normalize by vector_norm": (
        lambda x: x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=1e-12),
        F.normalize,
    ),
    "normalize by abs": (
        lambda x: x / x.abs().sum(1, keepdim=True),
        lambda x: F.normalize(x, p=1.0),
    ),
    "softmin": (F.softmin, lambda x: torch.softmax(-x, 1)),
}


@pytest.mark.parametrize("name", [n for n in BY_HAND if n != "softmin"])
def test_norms_written_by_hand_are_the_norms(name: str) -> None:
    by_hand, built_in = (two(lambda x, y, f=f: f(x)) for f in BY_HAND[name])
    torch.testing.assert_close(by_hand.total, built_in.total, rtol=1e-12, atol=1e-12)
    assert_rows(by_hand, rows_of(built_in), 1e-11)


def sigmoid_slope(g: Tensor) -> Tensor:
    y = torch.sigmoid(g)
    return torch.where(g.abs() < 0.1, y * (1 - y), y / g)


def test_gates_are_products() -> None:
    """GLU, SwiGLU's relatives and squeeze-excite: appendix D.2 with eq. 9's gate."""
    result = two(lambda x, y: F.glu(x, -1))
    value, gate = X.total[..., :2], X.total[..., 2:]
    assert_total(result, F.glu(X.total, -1))
    slope = sigmoid_slope(gate)
    left = torch.sigmoid(gate) - slope * gate

    def form(h: Tensor) -> Tensor:
        return h[..., :2] * (slope * h[..., 2:] + left)

    nothing = form(X.bias)
    for name in MODALITIES:
        wanted = form(X.parts[name] + X.bias) - nothing
        torch.testing.assert_close(result.parts[name], wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.own_bias, nothing, rtol=1e-12, atol=1e-12)
    again = two(lambda x, y: x[..., :2] * torch.sigmoid(x[..., 2:]))
    assert_rows(result, rows_of(again))
    assert value.shape == gate.shape


def test_softmin_is_the_softmax_of_the_negative() -> None:
    for rule in ("frozen", "taylor"):
        one, other = (
            two(lambda x, y, f=f: f(x, 1), f"identity-ratio-identity-{rule}")
            for f in (F.softmin, lambda x, d: torch.softmax(-x, d))
        )
        assert_rows(one, rows_of(other))
