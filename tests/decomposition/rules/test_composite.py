"""Composites, quotients and powers against their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from lmd_cli.decomposition.registry import function_name
from tests.support.closed_forms import CLOSED_FORMS, PRODUCTS, Multilinear, Slope
from tests.support.rule_oracle import (
    BIAS,
    MODALITIES,
    Sample,
    aliases,
    assert_rows,
    assert_total,
    normal,
    rows_of,
)

X, Y = Sample(2, 3, 4, seed=50), Sample(2, 3, 4, seed=70)


def two(call: Callable[[Tensor, Tensor], Any], variant: str = "identity-ratio") -> Decomposition:
    """Decomposes ``call(x, y)``, two tensors with parts of everything, and replays it."""
    inputs = {m: [X.parts[m], Y.parts[m]] for m in MODALITIES}
    extras = {m: [[X.extras[m][0], Y.extras[m][0]]] for m in MODALITIES}

    def function(camera: Any, radar: Any) -> Any:
        return call(camera[0] + radar[0] + X.bias, camera[1] + radar[1] + Y.bias)

    result = decompose(function, inputs, variant, extras=extras, audit=True, keep_maps=True)
    assert replay_deviation(replay(result, inputs), result) < 1e-12
    return result


def tensors(value: Any) -> list[Tensor]:
    return pytree.tree_leaves(value)


def rows_wanted(case: Slope | Multilinear, total: list[Tensor]) -> dict[str, list[Tensor]]:
    x, y = X.total, Y.total
    if isinstance(case, Slope):
        pairs = zip(X.rows().items(), Y.rows().values(), strict=True)
        return {name: tensors(case.part(x, y, h, k)) for (name, h), k in pairs}
    nothing = case.again(X.bias, Y.bias, x, y)
    pairs = zip(X.rows().items(), Y.rows().values(), strict=True)
    rows = {
        name: [case.again(h + X.bias, k + Y.bias, x, y) - nothing]
        for (name, h), k in pairs
        if name != BIAS
    }
    rows[BIAS] = [total[0] - sum(rows[name][0] for name in MODALITIES)]  # with the interaction
    return rows


def check(call: Callable[[Tensor, Tensor], Any], case: Slope | Multilinear) -> None:
    plain = call(X.total.clone(), Y.total.clone())
    result = two(call)
    assert_total(result, plain)
    rows = rows_wanted(case, tensors(plain))
    actual = rows_of(result)
    for name, wanted in rows.items():
        for value, want in zip(actual[name], wanted, strict=True):
            torch.testing.assert_close(value, want, rtol=1e-11, atol=1e-11, msg=name)
    if isinstance(case, Multilinear):
        bias = case.again(X.bias, Y.bias, X.total, Y.total)
        torch.testing.assert_close(result.own_bias, bias, rtol=1e-11, atol=1e-11)
    assert max(record.residual for record in result.operations) < 1e-12


CASES = [
    (function, name, i)
    for name, cases in CLOSED_FORMS.items()
    for function in aliases(name)
    if function.__name__ == name  # linalg.norm is not norm
    for i in range(len(cases))
]


@pytest.mark.parametrize(
    ("function", "name", "index"), CASES, ids=[f"{function_name(f)}-{i}" for f, _, i in CASES]
)
def test_closed_form(function: Any, name: str, index: int) -> None:
    case = CLOSED_FORMS[name][index]
    check(lambda x, y: case.call(function, x, y), case)


@pytest.mark.parametrize("name", ["remainder_", "fmod_", "floor_divide_", "hypot_"])
def test_closed_form_in_place(name: str) -> None:
    function = getattr(Tensor, name)
    for case in CLOSED_FORMS[name.removesuffix("_")]:
        check(lambda x, y: case.call(function, x * 1.0, y), case)  # noqa: B023


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_several_tensors(name: str) -> None:
    case = PRODUCTS[name]
    check(lambda x, y: case.call(None, x, y), case)


EXPONENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.pow": lambda x: torch.pow(x, 3),
    "**": lambda x: x**3,
    "pow_": lambda x: (x * 1.0).pow_(3),
    "**=": lambda x: (x * 1.0).__ipow__(3),
    "a tensor": lambda x: x.pow(torch.full((4,), 3.0).double()),
}


@pytest.mark.parametrize("name", EXPONENTS)
@pytest.mark.parametrize("split", ["identity", "ratio"])
def test_whole_powers(name: str, split: str) -> None:
    result = two(lambda x, y: EXPONENTS[name](x), f"identity-ratio-{split}")
    assert_total(result, EXPONENTS[name](X.total))
    cube = two(
        lambda x, y: F.threshold(x, -1e9, 0.0) * (x.detach() ** 2), f"identity-ratio-{split}"
    )
    assert_rows(result, rows_of(cube))


def test_taylor_of_a_power() -> None:
    result = two(lambda x, y: x**3, "identity-ratio-taylor-frozen")
    slope = 3 * X.total**2
    rows = {name: [slope * h] for name, h in X.rows().items()}
    rows[BIAS][0] = rows[BIAS][0] - 2 * X.total**3
    assert_rows(result, rows)


@pytest.mark.parametrize("exponent", [0.5, torch.tensor([0.5, 0.3, 0.9, 0.5]).double()])
def test_fractional_powers_are_guarded_as_roots(exponent: Any) -> None:
    shift = 0.05 - float(X.total.min())
    x = X.total + shift
    result = two(lambda x, y: (x + shift) ** exponent)
    slope = torch.where(x < 0.1, exponent * 0.1 ** (exponent - 1.0), x**exponent / x)
    rows = {name: [slope * h] for name, h in X.rows().items()}
    rows[BIAS][0] = x**exponent - slope * (x - X.bias - shift)
    assert_total(result, x**exponent)
    assert_rows(result, rows)
    if isinstance(exponent, float):
        root = two(lambda x, y: (x + shift).sqrt())
        assert_rows(root, rows)


def test_a_decomposed_exponent_is_an_exponential() -> None:
    for call in (lambda x, y: 2.0**x, lambda x, y: torch.pow(2.0, x)):
        result = two(call)
        assert_total(result, 2.0**X.total)
        assert_rows(result, rows_of(two(lambda x, y: torch.exp2(x))))


def everything_is_bias(result: Decomposition, value: Tensor) -> None:
    assert_total(result, value)
    torch.testing.assert_close(result.bias, value)
    assert not any(part.any() for part in result.parts.values())
    assert not result.extras["camera"][0].any()


RECIPROCALS: dict[str, Callable[[Tensor], Tensor]] = {
    "reciprocal": torch.reciprocal,
    "reciprocal_": lambda x: (x * 1.0).reciprocal_(),
    "1 / x": lambda x: 1.0 / x,
    "a constant over x": lambda x: CONSTANT / x,
    "true_divide": lambda x: torch.true_divide(CONSTANT, x),
    "x ** -1": lambda x: x**-1,
    "x ** -2 in place": lambda x: (x * 1.0).pow_(-2),
    "x ** 0": lambda x: x**0,
    "rsqrt": lambda x: (x.abs() + 1.0).rsqrt(),
    "rsqrt_": lambda x: (x.abs() + 1.0).rsqrt_(),
}

CONSTANT = normal(2, 3, 4, seed=90)


@pytest.mark.parametrize("name", RECIPROCALS)
def test_divisors_are_constants(name: str) -> None:
    everything_is_bias(two(lambda x, y: RECIPROCALS[name](x)), RECIPROCALS[name](X.total))


@pytest.mark.parametrize("name", ["/", "/=", "div", "div_", "over a mean", "of a plain tensor"])
def test_quotients_are_linear_in_the_numerator(name: str) -> None:
    calls: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "/": lambda x, y: x / y,
        "/=": lambda x, y: (x * 1.0).__itruediv__(y),
        "div": lambda x, y: torch.div(x, y),
        "div_": lambda x, y: (x * 1.0).div_(y),
        "over a mean": lambda x, y: x[0] / (y - y + y),
        "of a plain tensor": lambda x, y: (x * CONSTANT) / (CONSTANT * y),
    }
    result = two(calls[name])
    x_rows = {k: (h[0] if name == "over a mean" else h) for k, h in X.rows().items()}
    assert_total(result, calls[name](X.total, Y.total))
    assert_rows(result, {k: [h / Y.total] for k, h in x_rows.items()}, 1e-11)


LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "torch.log_softmax": lambda x: torch.log_softmax(x, 1),
    "x.log_softmax": lambda x: x.log_softmax(1),
    "special.log_softmax": lambda x: torch.special.log_softmax(x, 1),
}


@pytest.mark.parametrize("name", LOGITS)
def test_log_softmax_follows_the_softmax_rule(name: str) -> None:
    frozen = two(lambda x, y: LOGITS[name](x))
    assert_total(frozen, LOGITS[name](X.total))
    norm = torch.logsumexp(X.total, 1, keepdim=True)
    rows = {k: [h] for k, h in X.rows().items()}
    rows[BIAS] = [X.bias - norm]
    assert_rows(frozen, rows)
    weights = torch.softmax(X.total, 1)
    rows = {k: [h - (weights * h).sum(1, True)] for k, h in X.rows().items()}
    rows[BIAS] = [rows[BIAS][0] + (weights * X.total).sum(1, True) - norm]
    for rule in ("taylor", "secant"):
        assert_rows(two(lambda x, y: LOGITS[name](x), f"identity-ratio-identity-{rule}"), rows)


def test_logsumexp_over_several_dimensions_ignores_what_is_masked() -> None:
    mask = torch.zeros(4, dtype=torch.bool)
    mask[1] = True

    def call(x: Tensor, y: Tensor) -> Tensor:
        return torch.logsumexp(x.masked_fill(mask, -torch.inf), (0, 2))

    result = two(call, "identity-ratio-identity-taylor")
    weights = torch.softmax(X.total.masked_fill(mask, -torch.inf).movedim(1, 0).flatten(1), 1)
    weights = weights.unflatten(1, (2, 4)).movedim(0, 1)
    for name in MODALITIES:
        torch.testing.assert_close(result.parts[name], (weights * X.parts[name]).sum((0, 2)))
    assert torch.isfinite(result.bias).all()


@pytest.mark.parametrize("base", [math.e, 2.0])
def test_logaddexp_is_a_logsumexp(base: float) -> None:
    function = torch.logaddexp if base == math.e else torch.logaddexp2
    frozen = two(function)
    everything_is_bias(frozen, function(X.total, Y.total))
    weight = torch.sigmoid((X.total - Y.total) * math.log(base))
    result = two(function, "identity-ratio-identity-taylor")
    rows = zip(X.rows().items(), Y.rows().values(), strict=True)
    wanted = {name: [weight * h + (1 - weight) * k] for (name, h), k in rows}
    wanted[BIAS] = [result.total - wanted["camera"][0] - wanted["radar"][0]]
    assert_rows(result, wanted)


@pytest.mark.parametrize("rule", ["frozen", "taylor", "secant"])
def test_softmax_of_masked_logits_stays_finite(rule: str) -> None:
    mask = torch.ones(3, 4).triu(1).bool()

    def call(x: Tensor, y: Tensor) -> Tensor:
        return x.masked_fill(mask, float("-inf")).softmax(-1) @ y.mT

    result = two(call, f"identity-ratio-identity-{rule}")
    assert_total(result, call(X.total, Y.total))
    assert all(torch.isfinite(t).all() for rows in rows_of(result).values() for t in rows)


def test_finite_elements_pass_nan_to_num() -> None:
    holes = torch.zeros(2, 3, 4).double()
    holes[0, 0, 0], holes[1, 1, 1], holes[1, 2, 3] = torch.nan, torch.inf, -torch.inf

    def call(x: Tensor) -> Tensor:
        return torch.nan_to_num(x + holes, nan=0.5, posinf=2.0, neginf=-2.0)

    result = two(lambda x, y: call(x))
    assert_total(result, call(X.total))
    finite = torch.isfinite(holes)
    torch.testing.assert_close(result.parts["camera"], X.parts["camera"] * finite)
    assert float(result.bias[0, 0, 0]) == 0.5
    assert float(result.bias[1, 2, 3]) == -2.0


def test_batch_statistics_without_running_ones() -> None:
    """``track_running_stats=False`` uses its own input's statistics, in evaluation mode too."""
    norm = nn.BatchNorm2d(3, track_running_stats=False).double().eval()
    result = two(lambda x, y: norm(x.unsqueeze(-1)))
    by_hand = two(
        lambda x, y: (
            (x - x.mean((0, 2), True)).unsqueeze(-1)
            / torch.sqrt(x.var((0, 2), False, True) + norm.eps).unsqueeze(-1)
        )
    )
    assert_rows(result, rows_of(by_hand), 1e-11)


def test_local_response_norm_divides_by_a_constant() -> None:
    def divisor(x: Tensor) -> Tensor:
        squares = F.pad(x.square(), (0, 0, 1, 1))
        return (2.0 + 0.3 * (squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]) / 3) ** 0.75

    result = two(lambda x, y: F.local_response_norm(x, 3, alpha=0.3, beta=0.75, k=2.0))
    assert_rows(result, {k: [h / divisor(X.total)] for k, h in X.rows().items()})
