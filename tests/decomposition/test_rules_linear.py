"""Every linear rule against the dense Jacobian of the plain operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from joining_cases import CASES as JOINING
from linear_cases import LINEAR, STRUCTURE
from rule_oracle import (
    MODALITIES,
    Sample,
    affine_rows,
    assert_rows,
    assert_total,
    functions_of_kind,
    lookup,
)

from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.registry import function_name

#: Conversions that change the values or the machine have tests of their own.
ELSEWHERE = ("float", "half", "bfloat16", "cuda")
ELEMENTWISE = [f for f in functions_of_kind("structure", "linear") if f.__name__ not in ELSEWHERE]


def check(function: Callable[..., Any], sample: Sample) -> None:
    """Parts, extras and total of a function that is affine in both modalities together."""
    result = decompose(function, sample.parts, "identity-ratio", extras=sample.extras, audit=True)
    assert_total(result, function(**{name: x.clone() for name, x in sample.parts.items()}))
    assert_rows(result, affine_rows(function, sample.parts, sample.extras))


@pytest.mark.parametrize("function", ELEMENTWISE, ids=function_name)
def test_one_tensor(function: Any) -> None:
    for shape, call in lookup(STRUCTURE | LINEAR, function):
        sample = Sample(*shape)
        check(lambda camera, radar: call(function, camera + radar + sample.bias), sample)  # noqa: B023
        check(lambda camera, radar: call(function, camera), sample)  # noqa: B023


@pytest.mark.parametrize("function", functions_of_kind("sum", "product"), ids=function_name)
def test_several_tensors(function: Any) -> None:
    for case in lookup(JOINING, function):
        check(lambda camera, radar: case(function, camera, radar), Sample(2, 3, 4))  # noqa: B023


@pytest.mark.parametrize("name", ["float", "half", "bfloat16"])
def test_conversions_round_each_part(name: str) -> None:
    sample = Sample(2, 3)
    result = sample.through(lambda x: getattr(x, name)(), "identity-ratio")
    assert torch.equal(result.total, getattr(sample.total, name)())
    for modality in MODALITIES:
        assert torch.equal(result.parts[modality], getattr(sample.parts[modality], name)())
