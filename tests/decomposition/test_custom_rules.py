"""Rules of one's own, and the checks that catch a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import (
    ConservationError,
    Decomposition,
    DecompositionError,
    NoRuleError,
    decompose,
    find_rule,
    register_rule,
    unregister_rule,
)
from lmd_cli.decomposition.maps import Affine, constant, linear
from lmd_cli.decomposition.tracing.calls import Call
from tests.support.rule_oracle import assert_replayed, normal

C, R = normal(2, 3, 4), normal(2, 3, 4, seed=1)

INPUTS = {"camera": C, "radar": R}


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float = 2.0) -> Tensor:  # type: ignore[override]
        return torch.from_numpy((x * factor).numpy())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return 2.0 * grad, None


STORED = Double.apply  # kept before any decomposition, as extensions do


@torch.library.custom_op("lmd_tests::tripled", mutates_args=())
def tripled(x: Tensor) -> Tensor:
    return 3.0 * x


@contextmanager
def registered(*functions: Any, rule: Any, **options: Any) -> Iterator[None]:
    register_rule(*functions, **options)(rule)
    try:
        yield
    finally:
        for function in functions:
            unregister_rule(function)


class Row(torch.autograd.Function):
    """Its result lies in its argument's memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x[:, 1]


def double(call: Call, x: Tensor, factor: float = 2.0) -> Any:
    return call.function(x, factor), linear(lambda h: factor * h)


def run(function: Any, **options: Any) -> Decomposition:
    return decompose(lambda camera, radar: function(camera + radar + 1.0), INPUTS, **options)


@pytest.mark.parametrize("apply", [STORED, lambda x: Double.apply(x), lambda x: STORED(x, 2.0)])
def test_a_custom_autograd_function(apply: Any) -> None:
    with pytest.raises(NoRuleError, match=r"custom autograd function Double.*@register_rule"):
        run(apply)
    with registered(Double, rule=double, equation="2 h"):
        result = run(apply, audit="raise", keep_maps=True)
        assert torch.equal(result.total, 2.0 * (C + R + 1.0))
        assert torch.equal(result.parts["radar"], 2.0 * R)
        assert result.operations[-1].equation == "2 h"
        assert_replayed(INPUTS, result)


def test_a_custom_autograd_function_made_of_operators_with_rules() -> None:
    def rule(call: Call, x: Tensor, factor: float = 2.0) -> Any:
        return call.function(x, factor), call.compose(
            lambda h: F.relu(h) * 2.0 - F.relu(-h) * 2.0, x
        )

    with registered(Double, rule=rule, kind="composite"):
        result = run(STORED, audit="raise", keep_maps=True)
        torch.testing.assert_close(result.parts["radar"], 2.0 * R, rtol=0, atol=1e-12)
        assert_replayed(INPUTS, result)


def test_custom_functions_of_constants_and_afterwards_are_left_alone() -> None:
    before = torch.autograd.function._SingleLevelFunction.__dict__.get("apply")

    def function(x: Tensor) -> Tensor:
        return x * STORED(torch.ones(4).double())

    assert torch.equal(run(function).parts["camera"], 2.0 * C)
    with pytest.raises(NoRuleError):
        run(STORED)
    assert before is None
    assert "apply" not in torch.autograd.function._SingleLevelFunction.__dict__
    x = C.clone().requires_grad_()
    (Double.apply(x.detach()) * x).sum().backward()
    assert torch.equal(x.grad, 2.0 * C)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call", [tripled, torch.ops.lmd_tests.tripled, torch.ops.lmd_tests.tripled.default]
)
def test_a_custom_operator(call: Any) -> None:
    with pytest.raises(NoRuleError, match=r"lmd_tests.tripled"):
        run(call)

    def rule(call: Call, x: Tensor) -> Any:
        return call.plain(), linear(lambda h: 3.0 * h)

    with registered(torch.ops.lmd_tests.tripled, rule=rule):
        result = run(call, audit="raise")
        assert torch.equal(result.parts["camera"], 3.0 * C)


@pytest.mark.parametrize(
    ("operator", "twin"),
    [
        (lambda x: torch.ops.aten.relu(x), torch.relu),
        (lambda x: torch.ops.aten.relu.default(x), torch.relu),
        (lambda x: torch.ops.aten.add.Tensor(x, x), lambda x: x + x),
        (lambda x: torch.ops.aten.linear(x, C[0]), lambda x: F.linear(x, C[0])),
        (lambda x: torch.ops.aten.sum.dim_IntList(x, [1]), lambda x: x.sum(1)),
        (lambda x: torch.ops.aten.mul_(x * 1.0, 2.0), lambda x: x * 2.0),
    ],
)
def test_operators_have_the_rules_of_their_functions(operator: Any, twin: Any) -> None:
    result, wanted = run(operator, audit="raise"), run(twin)
    assert torch.equal(result.total, operator(C + R + 1.0))
    for name in INPUTS:
        assert torch.equal(result.parts[name], wanted.parts[name])
    assert torch.equal(result.bias, wanted.bias)


def test_a_rule_of_ours_is_replaced_and_comes_back() -> None:
    ours = find_rule(torch.relu)

    def all_bias(call: Call, input: Tensor) -> Any:
        total = call.plain()
        return total, constant(total)

    with pytest.raises(ValueError, match=r"torch\.relu has a rule already; override=True"):
        register_rule(torch.relu)(all_bias)
    with registered(torch.relu, rule=all_bias, kind="statistic", override=True):
        result = run(torch.relu, audit="raise")
        assert torch.equal(result.bias, torch.relu(C + R + 1.0))
    assert find_rule(torch.relu) is ours


class Suspect(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Double.apply(x)


NETWORK = nn.Sequential(
    nn.Linear(4, 4), nn.Sequential(nn.Identity(), Suspect()), nn.ReLU()
).double()


def through_network(**options: Any) -> Decomposition:
    return decompose(lambda camera, radar: NETWORK(camera + radar), INPUTS, root=NETWORK, **options)


def test_a_rule_that_breaks_conservation_is_named_where_it_happens() -> None:
    def wrong(call: Call, x: Tensor) -> Any:
        return call.function(x), linear(lambda h: 1.9 * h)

    with registered(Double, rule=wrong, equation="a typing error"):
        with pytest.raises(ConservationError, match="breaks conservation") as error:
            through_network(audit="raise")
        message = str(error.value)
        assert "Double in module '1.1' (Suspect)" in message
        assert "5.0e-02 of max |total|" in message
        assert "a typing error" in message
        records = through_network(audit=True).operations
        first = next(r for r in records if r.residual > 1e-10)
        assert (first.module, first.operation.split(".")[-1]) == ("1.1", "Double")
    with registered(Double, rule=double):
        assert through_network(audit="raise").residual < 1e-14


def test_parts_that_are_not_numbers_break_conservation() -> None:
    def infinite(call: Call, x: Tensor) -> Any:
        return call.function(x), linear(lambda h: h / 0.0)

    with registered(Double, rule=infinite), pytest.raises(ConservationError, match="Double"):
        through_network(audit="raise")


def test_a_breach_at_small_elements_is_seen_beside_a_large_one() -> None:
    def wrong(call: Call, x: Tensor) -> Any:
        return call.function(x), linear(lambda h: torch.where(x.abs() < 1000.0, 60.0 * h, 2.0 * h))

    large = C.clone()
    large[0, 0, 0] = 1e7
    with registered(Double, rule=wrong), pytest.raises(ConservationError, match="Double"):
        decompose(lambda camera, radar: STORED(camera + radar), {"camera": large, "radar": R},
                  audit="raise")  # fmt: skip


def test_a_coarser_type_before_does_not_hide_a_breach() -> None:
    def wrong(call: Call, x: Tensor) -> Any:
        return call.function(x), linear(lambda h: 2.1 * h)

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return STORED(camera.bfloat16().double() + radar)

    with registered(Double, rule=wrong), pytest.raises(ConservationError, match="Double"):
        decompose(function, INPUTS, audit="raise")
    with registered(Double, rule=double):
        decompose(function, INPUTS, audit="raise")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_in_less_than_float64_is_no_breach(dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 4)).to(
        dtype
    )
    inputs = {name: x.to(dtype) for name, x in INPUTS.items()}
    decompose(lambda camera, radar: network(camera + radar), inputs, audit="raise")


def test_a_rule_that_gives_parts_of_another_shape() -> None:
    def wrong(call: Call, x: Tensor) -> Any:
        return call.function(x), linear(lambda h: h.sum(1))

    with (
        registered(Double, rule=wrong),
        pytest.raises(
            DecompositionError, match=r"shape \(3, 3, 4\) for a total of shape \(2, 3, 4\).*'1\.1'"
        ),
    ):
        through_network()


def test_a_rule_that_forgets_the_parts() -> None:
    def forgetful(call: Call, x: Tensor) -> Any:
        return call.function(x)

    with (
        registered(Double, rule=forgetful),
        pytest.raises(NoRuleError, match=r"Double .*'1\.1'.*its rule gave no map.*linear\("),
    ):
        through_network()


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        (lambda call, x: (call.function(x), linear(lambda h: h[:, :, 1])), R[:, 1]),
        (lambda call, x: (call.function(x), constant(x[:, 1])), 0.0 * R[:, 1]),
        (lambda call, x: [call.compose(lambda: x[:, 1] * 2.0)] * 2, 2.0 * R[:, 1]),
    ],
    ids=["a view", "a view that is a constant", "what was composed"],
)
def test_a_result_that_has_parts_already(rule: Any, part: Tensor) -> None:
    with registered(Row, rule=lambda call, x: tuple(rule(call, x))):
        result = decompose(
            lambda camera, radar: (Row.apply(x := camera + radar), x * 1.0),
            INPUTS,
            keep_maps=True,
        )
        torch.testing.assert_close(result.parts["radar"], (part, R))
        assert_replayed(INPUTS, result)


def test_a_functional_copy_replays() -> None:  # of exported modules
    copied = torch.ops.aten.copy.default
    result = decompose(
        lambda camera, radar: copied(0 * C, camera * 2.0 + radar), INPUTS, keep_maps=True
    )
    assert torch.equal(result.parts["camera"], 2.0 * C)
    assert_replayed(INPUTS, result)


def test_constants_of_a_rule_are_those_of_its_call() -> None:
    """The network writes to one afterwards; the program keeps what the rule was given."""

    def scaled(call: Call, x: Tensor, factor: Tensor) -> Any:
        return call.function(x, factor), linear(lambda h: h * factor)

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        factor = torch.full((4,), 2.0, dtype=torch.float64)
        y = STORED(camera + radar, factor)
        return y + factor.zero_()

    with registered(Double, rule=scaled):
        assert_replayed(INPUTS, decompose(function, INPUTS, keep_maps=True))


def test_a_map_that_gives_too_many_rows_is_an_error() -> None:
    def rule(call: Call, x: Tensor) -> Any:
        return call.plain(), Affine(lambda h: torch.cat([3.0 * h, h]), (x,), torch.ones_like(x))

    with registered(tripled, rule=rule), pytest.raises((DecompositionError, ValueError)):
        decompose(lambda camera: tripled(camera), {"camera": C})
