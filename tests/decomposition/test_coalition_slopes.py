"""Slopes between coalitions' values: against Shapley values summed over every order of joining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lmd_cli.decomposition import (
    InputError,
    coalition_slopes,
    decompose,
)
from lmd_cli.decomposition.coalition_slopes import CURVES, curve_of
from lmd_cli.decomposition.coalition_slopes import coalition_slopes as slopes_of
from lmd_cli.decomposition.linearised.replay import replay
from lmd_cli.decomposition.variant import COALITION_RULES
from tests.support.rule_oracle import assert_replayed, normal

Function = Callable[[Tensor], Tensor]
NAMES = ("camera", "radar", "lidar", "map")
SHAPE = (2, 3, 4, 5)
BIAS = normal(*SHAPE, seed=99)
FUNCTIONS: dict[str, Function] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "relu6": F.relu6,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "exp": torch.exp,
    "threshold": lambda x: F.threshold(x, 0.1, 0.4),
    "power": lambda x: x**3,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)),
}
EVERY_RULE = pytest.mark.parametrize("rule", COALITION_RULES)


def variant(rule: str) -> str:
    return f"identity-ratio-{rule}"


def inputs(count: int, shape: Sequence[int] = SHAPE) -> dict[str, Tensor]:
    return {name: normal(*shape, seed=i) for i, name in enumerate(NAMES[:count])}


def extras(given: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    return {name: [normal(*x.shape, seed=50 + i)] for i, (name, x) in enumerate(given.items())}


def close(actual: Any, wanted: Tensor, tolerance: float = 1e-12) -> None:
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(actual, wanted, rtol=0, atol=tolerance * scale)


# -- the oracles ----------------------------------------------------------------------------------


def by_orders(f: Function, bias: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Shapley values: what each adds to f when it joins, over every order."""
    orders = list(permutations(range(len(parts))))
    values = [torch.zeros_like(bias) for _ in parts]
    for order in orders:
        z = bias
        for m in order:
            values[m] = values[m] + (f(z + parts[m]) - f(z)) / len(orders)
            z = z + parts[m]
    return values


def by_signs(f: Function, bias: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Shapley values of the positive and the negative parts, each shared in proportion."""
    groups = [sum((h.clamp(min=0) for h in parts), torch.zeros_like(bias))]
    groups.append(sum((h.clamp(max=0) for h in parts), torch.zeros_like(bias)))
    values = by_orders(f, bias, groups)
    share = [v / torch.where(g == 0, 1, g) for v, g in zip(values, groups, strict=True)]
    return [torch.where(h > 0, share[0], share[1]) * h for h in parts]


def in_proportion(f: Function, bias: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    total = sum(parts, torch.zeros_like(bias))
    return [h * (f(bias + total) - f(bias)) / total for h in parts]


ORACLES = {"shapley": by_orders, "reveal": by_signs, "rescale": in_proportion}


# -- one activation -------------------------------------------------------------------------------


@EVERY_RULE
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts_are_the_oracle_s(name: str, count: int, rule: str) -> None:
    """Parts, extras (at the clean slope), the bias f(b), eq. 8, and the program."""
    f, given = FUNCTIONS[name], inputs(count)
    riding = extras(given)
    result = decompose(
        lambda **x: f(sum(x.values()) + BIAS),
        given,
        variant(rule),
        extras=riding,
        audit=True,
        keep_maps=True,
    )
    values = ORACLES[rule](f, BIAS, list(given.values()))
    for (m, h), value in zip(given.items(), values, strict=True):
        close(result.parts[m], value)
        close(result.extras[m][0], riding[m][0] * value / h, 1e-11)
    close(result.bias, f(BIAS))
    assert result.residual < 1e-12
    assert_replayed(given, result)


@EVERY_RULE
def test_an_interaction_is_one_more_player(rule: str) -> None:
    given = inputs(2)

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return F.gelu((camera + 0.3) * (radar - 0.7) + BIAS)

    result = decompose(
        fuse, given, variant(rule), bilinear="interaction", keep_maps=True, extras=extras(given)
    )
    camera, radar = given.values()
    players = [camera * -0.7, 0.3 * radar, camera * radar]
    values = ORACLES[rule](F.gelu, BIAS - 0.21, players)
    actual = [result.parts["camera"], result.parts["radar"], result.interaction]
    for part, value in zip(actual, values, strict=True):
        close(part, value, 1e-11)
    close(result.bias, F.gelu(BIAS - 0.21))
    replayed = replay(result, {m: x[0] for m, x in extras(given).items()}, given)
    for m in given:
        close(replayed[m], result.extras[m][0])


@EVERY_RULE
def test_a_modality_without_a_part_is_no_player(rule: str) -> None:
    given = inputs(3)
    result = decompose(
        lambda camera, radar, lidar: torch.relu(camera + lidar + BIAS) + radar * 0,
        given,
        variant(rule),
        keep_maps=True,
    )
    wanted = ORACLES[rule](torch.relu, BIAS, [given["camera"], given["lidar"]])
    close(result.parts["camera"], wanted[0])
    close(result.parts["lidar"], wanted[1])
    assert not result.parts["radar"].any()
    assert_replayed(given, result)


@EVERY_RULE
@pytest.mark.parametrize("f", [torch.sqrt, torch.log, torch.acosh], ids=["sqrt", "log", "acosh"])
def test_beyond_the_domain_a_slope_is_the_tangent(f: Function, rule: str) -> None:
    """The total is defined, the bias alone and some coalitions are not."""
    given = {"camera": torch.full((2, 3), 4.0).double(), "radar": torch.full((2, 3), -1.0).double()}
    result = decompose(
        lambda camera, radar: f(camera + radar - 0.5), given, variant(rule), keep_maps=True
    )
    z = torch.full((2, 3), 2.5, dtype=torch.float64, requires_grad=True)
    tangent = torch.autograd.grad(f(z).sum(), z)[0]
    close(result.parts["radar"], -tangent)
    assert all(part.isfinite().all() for part in (*result.parts.values(), result.bias))
    close(sum(result.parts.values()) + result.bias, f(z).detach())
    assert_replayed(given, result)


def test_a_zero_part_has_the_mean_derivative() -> None:
    """What rides along there takes it; for ReLU at both ends, 0 or 1."""
    radar, other = normal(*SHAPE, seed=5), normal(*SHAPE, seed=6)
    given = {"camera": torch.zeros(SHAPE).double(), "radar": radar}
    for f, derivative in (
        (torch.tanh, lambda x: 1 - torch.tanh(x) ** 2),
        (torch.relu, lambda x: (x > 0).double()),
    ):
        riding = {"camera": [other], "radar": []}
        result = decompose(
            lambda camera, radar, f=f: f(camera + radar + BIAS),
            given,
            variant("shapley"),
            extras=riding,
        )
        assert not result.parts["camera"].any()
        slope = (derivative(BIAS) + derivative(BIAS + radar)) / 2
        close(result.extras["camera"][0], slope * other)


@EVERY_RULE
def test_nothing_at_all_is_nothing(rule: str) -> None:
    zero = {name: torch.zeros(2, 3).double() for name in NAMES[:2]}
    for f in (torch.relu, torch.tanh, torch.sqrt):
        result = decompose(lambda camera, radar, f=f: f(camera + radar), zero, variant(rule))
        for part in (*result.parts.values(), result.bias):
            assert torch.equal(part, torch.zeros(2, 3).double())


@EVERY_RULE
def test_masked_logits_are_bias(rule: str) -> None:
    mask = torch.arange(5) % 2 == 0
    given = inputs(2)

    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return (camera + radar + BIAS).masked_fill(mask, float("-inf")).sigmoid()

    result = decompose(fuse, given, variant(rule), keep_maps=True)
    for part in result.parts.values():
        assert part.isfinite().all()
        assert not part[..., mask].any()
    close(sum(result.parts.values()) + result.bias, fuse(**given))
    assert_replayed(given, result)


@EVERY_RULE
def test_the_slope_of_a_nearly_zero_part_is_the_derivative(rule: str) -> None:
    """A difference of values would be rounding alone."""
    camera = torch.full((50,), 1e-14, dtype=torch.float64)
    base = torch.linspace(-2, 2, 50, dtype=torch.float64)
    result = decompose(lambda camera: torch.tanh(camera + base), {"camera": camera}, variant(rule))
    wanted = (1 - torch.tanh(base) ** 2) * 1e-14
    torch.testing.assert_close(result.parts["camera"], wanted, rtol=1e-6, atol=0)


@EVERY_RULE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["relu", "gelu", "sigmoid"])
def test_low_precision(name: str, dtype: torch.dtype, rule: str) -> None:
    """As in float64, to a few roundings of the largest value."""
    f, given = FUNCTIONS[name], inputs(3)
    low = {m: x.to(dtype) for m, x in given.items()}
    result = decompose(lambda **x: f(sum(x.values()) + BIAS.to(dtype)), low, variant(rule))
    exact = [x.double() for x in low.values()]
    wanted = ORACLES[rule](f, BIAS.to(dtype).double(), exact)
    for part, value in zip(result.parts.values(), wanted, strict=True):
        assert part.dtype == dtype
        error = (part.double() - value).abs()
        # ``rescale`` divides by a sum that may nearly vanish: only its product is bounded.
        assert float(error.quantile(0.95)) < 32 * torch.finfo(dtype).eps
    parts = torch.stack([*result.parts.values(), result.bias]).double()
    scale = float(parts.abs().sum(0).max())
    assert float((parts.sum(0) - result.total.double()).abs().max()) < (
        8 * torch.finfo(dtype).eps * scale
    )


@EVERY_RULE
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_blocks_and_layouts_make_no_difference(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {m: torch.randn(1, 6, 7, 5) for m in NAMES[:3]}

    def parts(moved: Callable[[Tensor], Tensor] = lambda x: x) -> list[Tensor]:
        result = decompose(
            lambda **x: FUNCTIONS[name](moved(sum(x.values()) + 0.1)), given, variant(rule)
        )
        return [*result.parts.values(), result.bias]

    whole = parts()
    lasting = parts(lambda x: x.to(memory_format=torch.channels_last))
    monkeypatch.setattr(coalition_slopes, "BLOCK", 8)
    for other in (parts(), lasting):
        for a, b in zip(other, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@EVERY_RULE
def test_writes_in_place_are_the_same(rule: str) -> None:
    given = inputs(2)
    apart = decompose(lambda camera, radar: torch.relu(camera + radar + BIAS), given, variant(rule))
    result = decompose(
        lambda camera, radar: torch.relu_(camera + radar + BIAS),
        given,
        variant(rule),
        keep_maps=True,
    )
    for name in given:
        assert torch.equal(result.parts[name], apart.parts[name])
    assert torch.equal(result.bias, apart.bias)
    assert_replayed(given, result)


@EVERY_RULE
def test_nothing_looks_at_values(rule: str) -> None:
    """What would wait for a GPU, and cannot be recorded as a graph, fails on tensors without."""
    with FakeTensorMode():
        x = [torch.randn(3, 4) for _ in range(4)]
        for curve in (*CURVES.values(), curve_of(torch.exp, torch.exp)):
            slopes, rest = slopes_of(rule, curve, x[0], x[1:], sum(x), x[0])
            assert (slopes.shape, rest.shape) == ((3, 3, 4), (3, 4))


def test_too_many_players_are_refused() -> None:
    given = {f"sensor{i}": normal(2, seed=i) for i in range(9)}

    def fuse(**x: Tensor) -> Tensor:
        return torch.relu(sum(x.values()))

    with pytest.raises(InputError, match=r"9 players .* 2304 .* reveal"):
        decompose(fuse, given, variant("shapley"))
    result = decompose(fuse, given, variant("reveal"))
    close(sum(result.parts.values()) + result.bias, fuse(**given))
