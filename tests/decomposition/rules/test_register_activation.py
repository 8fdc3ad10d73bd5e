"""Activations of one's own: a function of one tensor becomes eq. 9 by one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition import (
    NoRuleError,
    decompose,
    register_activation,
    unregister_rule,
)
from lmd_cli.decomposition.rules.activation import SECANT_GUARD
from tests.support.rule_oracle import Sample, assert_rows, assert_total, normal, rows_of


class Cube(torch.autograd.Function):
    """x^3, with a derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return factor * x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 3.0 * ctx.factor * grad * x**2, None


class Step(torch.autograd.Function):
    """A function without a derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)


@contextmanager
def registered(function: Any, slope: Any = None) -> Iterator[None]:
    register_activation(function, slope)
    try:
        yield
    finally:
        unregister_rule(function)


def rows_of_slope(
    sample: Sample, slope: Tensor, output: Tensor, remainder: bool
) -> dict[str, list[Tensor]]:
    rows = {name: [slope * h] for name, h in sample.rows().items()}
    if remainder:
        rows["bias"][0] = rows["bias"][0] + output - slope * sample.total
    return rows


@pytest.mark.parametrize("closed", [False, True])
def test_a_custom_autograd_function(closed: bool) -> None:
    sample = Sample(2, 3, 4)

    def call(x: Tensor) -> Tensor:
        return Cube.apply(x, 2.0)

    x = sample.total
    near = (x.abs() < SECANT_GUARD) & (not closed)
    slope = torch.where(near, 6.0 * x**2, 2.0 * x**2)
    with registered(Cube, (lambda x, factor: factor * x**2) if closed else None):
        result = sample.through(call, "identity-ratio")
    assert_total(result, call(x))
    assert_rows(result, rows_of_slope(sample, slope, call(x), True))


@pytest.mark.parametrize(
    "call", [torch.lgamma, lambda x: (x * 1.0).lgamma_(), lambda x: torch.lgamma(x, out=x.clone())]
)
@pytest.mark.parametrize("variant", ["identity-ratio", "identity-ratio-taylor-frozen"])
def test_an_operator_with_its_other_forms(call: Callable[[Tensor], Tensor], variant: str) -> None:
    sample = Sample(2, 3, 4)
    sample.bias += 1.0 + sample.total.abs() - sample.total
    x, y = sample.total, torch.lgamma(sample.total)
    slope = torch.digamma(x) if "taylor" in variant else y / x
    with registered(torch.lgamma):
        result = sample.through(call, variant)
    assert_total(result, y)
    assert_rows(result, rows_of_slope(sample, slope, y, "taylor" in variant))


@pytest.mark.parametrize("split", ["sum", "ratio"])
def test_splitting_of_the_bias_holds_for_it_too(split: str) -> None:
    sample, variant = Sample(2, 3, 4), f"identity-ratio-{split}"
    with registered(Cube, lambda x, factor: factor * x**2):
        actual = sample.through(lambda x: Cube.apply(x, 1.0), variant)
    assert_rows(actual, rows_of(sample.through(lambda x: x**3, variant)))


def test_without_a_slope_or_a_derivative_it_is_refused() -> None:
    inputs = {"camera": normal(3, 4)}
    with registered(Step), pytest.raises(NoRuleError, match=r"Step .*has no rule"):
        decompose(lambda camera: Step.apply(camera), inputs, "identity-ratio-taylor-frozen")


def test_only_one_argument_may_carry_parts() -> None:
    inputs = {"camera": normal(3, 4)}
    with registered(torch.igamma), pytest.raises(NoRuleError, match="input may carry parts"):
        decompose(lambda camera: torch.igamma(camera, camera), inputs)


def test_a_function_that_has_a_rule_keeps_it_unless_told_otherwise() -> None:
    with pytest.raises(ValueError, match="has a rule already"):
        register_activation(torch.relu)


@pytest.mark.parametrize("function", [F.tanhshrink, F.softsign, lambda x: Cube.apply(x, 2.0)])
def test_shapley_values_of_a_function_that_is_no_operator(function: Any) -> None:
    camera, radar, b = (normal(2, 3, seed=s) for s in range(3))
    with registered(Cube):
        result = decompose(
            lambda camera, radar: function(camera + radar + b),
            {"camera": camera, "radar": radar},
            "identity-ratio-shapley",
        )
        alone = function(b + camera) - function(b)
        last = function(b + camera + radar) - function(b + radar)
    torch.testing.assert_close(result.parts["camera"], (alone + last) / 2, rtol=0, atol=1e-13)
    torch.testing.assert_close(result.bias, function(b), rtol=0, atol=1e-13)
