"""The variant ``coalitions``: secants of single operations along frozen edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import (
    decompose,
    register_rule,
    unregister_rule,
)
from lmd_cli.decomposition.linearised.replay import (
    Linearised,
    replay,
    replay_deviation,
)
from tests.decomposition.test_coalition_slopes import close
from tests.support.rule_oracle import normal
from tests.support.shapley_oracle import assert_shapley, shapley_of_layers


class Rounded(torch.autograd.Function):
    """x^2 / 2, with a rule of its own that says nothing of secants."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * x / 2


W = normal(4, 5, 5, seed=50)
PLACES = torch.tensor([[0, 2], [1, 3]])


def attention(x: Tensor) -> Tensor:
    q, k, v = (x @ w for w in W[:3])
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def hand_written(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 0.1)


def sampled(x: Tensor) -> Tensor:
    places = torch.tanh(x[..., :2] + 0.1)
    return F.grid_sample(x.unsqueeze(1), places.unsqueeze(1), align_corners=False)


def recurrent(x: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.LSTM(5, 3, batch_first=True).double().eval().requires_grad_(False)
    output: Tensor = layer(x)[0]
    return output


def masked_rows(x: Tensor) -> Tensor:
    """Minus infinity in all of a row, whichever sensors are there."""
    hidden = x.masked_fill(torch.arange(4).eq(1).unsqueeze(-1), -torch.inf)
    return (
        hidden.amax(-1).exp() + hidden.max(-1).values.sigmoid() + torch.maximum(hidden, x).sum(-1)
    )


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "softmax, far apart": lambda x: (300 * x).softmax(-1),
    "log-softmax": lambda x: x.log_softmax(1),
    "logsumexp": lambda x: torch.logsumexp(300 * x, (0, 2)),
    "masked": lambda x: x.masked_fill(torch.eye(5, dtype=torch.bool)[:4], -torch.inf).softmax(-1),
    "maxima of masked rows": masked_rows,
    "attention": attention,
    "product": lambda x: (x @ W[0]) * (x @ W[1]) * x,
    "square": lambda x: x * x,
    "outer product": lambda x: x @ x.transpose(-1, -2),
    "quotient": lambda x: x[..., 1:] / (1 + x[..., :1].exp()),
    "constant over": lambda x: 2.0 / (1 + x * x),
    "reciprocal": lambda x: (3 + x.tanh()).reciprocal(),
    "negative power": lambda x: (3 + x.tanh()) ** -1.5,
    "power": lambda x: x**3 - x.abs() ** 2.5,
    "root": lambda x: (x * x + 0.1).sqrt(),
    "norm by hand": hand_written,
    "layer norm": lambda x: F.layer_norm(x, (4, 5), normal(4, 5, seed=1), normal(4, 5, seed=2)),
    "RMS norm": lambda x: F.rms_norm(x, (5,)),
    "normalize": lambda x: F.normalize(x + 0.1, dim=-1),
    "deviation": lambda x: x / (x.std(-1, keepdim=True) + 1),
    "max-pooling": lambda x: F.max_pool2d(x, 2, padding=1),
    "adaptive max-pooling": lambda x: F.adaptive_max_pool2d(x, 2),
    "maximum along": lambda x: x.max(-1).values + x.amin(1).sum(-1, keepdim=True),
    "cumulative maximum": lambda x: torch.cummax(x, 1).values,
    "maximum": lambda x: torch.maximum(x @ W[0], x.flip(-1)),
    "minimum": lambda x: torch.minimum(x, torch.full((5,), 0.2).double()),
    "clamp": lambda x: x.clamp(x.flip(1) - 0.5, torch.full((5,), 0.5).double()),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.6),
    "threshold": lambda x: F.threshold(x, 0.25, -1.0),
    "rounded": lambda x: torch.round(3 * x) + torch.floor_divide(x, 0.7),
    "sampling at features": sampled,
    "recurrent": recurrent,
    "written in place": lambda x: torch.zeros_like(x).copy_(x).relu_().mul_(x).add_(1).sigmoid_(),
    "read at places": lambda x: torch.relu(x[:, PLACES]) * x[:, PLACES],
    "complex": lambda x: torch.fft.rfft(x).real.relu(),
}


def mixed(operation: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Three sensors, one of which an activation has gone through already."""
    return lambda camera, radar, lidar: operation(torch.relu(camera + radar) - lidar + 0.2)


def three(seed: int = 0) -> dict[str, Tensor]:
    names = ("camera", "radar", "lidar")
    return {name: normal(2, 4, 5, seed=seed + i) for i, name in enumerate(names)}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_by_its_secants(name: str) -> None:
    """Exact values; every edge's map gives them again, and is affine in a replaced sensor."""
    function, given = mixed(OPERATIONS[name]), three()
    riding = {m: [x, y] for (m, x), y in zip(three(10).items(), three(20).values(), strict=True)}
    result = decompose(function, given, "coalitions", extras=riding, keep_maps=True, audit="raise")
    assert_shapley(result, shapley_of_layers(function, given)[""])
    assert replay_deviation(replay(result, given), result) < 1e-9
    linear = Linearised(result)
    for m, (x, y) in riding.items():
        at_x, at_y, at_given = (linear.part(m, z) for z in (x, y, given[m]))
        close(result.extras[m][0], at_x)
        close(
            linear.part(m, 2 * x - 3 * y + 2 * given[m]), 2 * at_x - 3 * at_y + 2 * at_given, 1e-9
        )


def test_a_rule_without_a_secant_has_a_constant_for_each_edge() -> None:
    @register_rule(Rounded, kind="activation")
    def rule(call: Any, x: Tensor) -> Any:
        from lmd_cli.decomposition.maps import slope

        return call.function(x), slope(x / 2)

    try:
        function, given = mixed(Rounded.apply), three()
        result = decompose(function, given, "coalitions", keep_maps=True)
        assert_shapley(result, shapley_of_layers(function, given)[""])
        assert replay_deviation(replay(result, given), result) < 1e-12
    finally:
        unregister_rule(Rounded)


def test_what_features_decide_stays_as_it_is() -> None:
    """Masks and indices are those of the operating point: the plain network at a coalition would
    choose others."""
    given = three()

    def chosen(camera: Tensor, radar: Tensor, lidar: Tensor) -> Tensor:
        x = camera + radar + lidar
        return (
            x[:, x.sum((0, 2)).argmax()]
            + torch.where(x > 0, x, -x)[:, 0]
            + x.topk(2).values[:, 0, :1]
        )

    result = decompose(chosen, given, "coalitions")
    usual = decompose(chosen, given, "identity-ratio")
    for name in given:
        close(result.parts[name], usual.parts[name])


def test_a_sensor_of_one_branch_has_no_part_elsewhere() -> None:
    given = three()
    result = decompose(
        lambda camera, radar, lidar: (torch.tanh(camera + 0.1), torch.relu(camera * radar), lidar),
        given,
        "coalitions",
    )
    assert not result[0].parts["radar"].any()
    assert not result[1].parts["lidar"].any()
    assert not result.interaction[1].any()
    close(result[1].parts["camera"], result[1].parts["radar"])
