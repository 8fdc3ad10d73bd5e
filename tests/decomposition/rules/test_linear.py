"""Every linear rule against the dense Jacobian of the plain operation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.registry import function_name
from tests.support.joining_cases import CASES as JOINING
from tests.support.linear_cases import LINEAR, STRUCTURE
from tests.support.rule_oracle import (
    MODALITIES,
    Sample,
    affine_rows,
    aliases,
    assert_replayed,
    assert_rows,
    assert_total,
    directional_rows,
    lookup,
    normal,
)
from tests.support.scatter_cases import NOT_DIFFERENTIABLE


def check(function: Callable[..., Any], sample: Sample) -> None:
    """Parts, extras and total of a function that is affine in both modalities together.

    An audit looks at every tensor, so that concatenations are carried out at once; without one
    they are not.
    """
    plain = function(**{name: x.clone() for name, x in sample.parts.items()})
    rows = affine_rows(function, sample.parts, sample.extras)
    for audit in (False, True):
        options: dict[str, Any] = {"extras": sample.extras, "audit": audit, "keep_maps": True}
        result = decompose(function, sample.parts, **options)
        assert_total(result, plain)
        assert_rows(result, rows)
    assert_replayed(sample.parts, result)


@pytest.mark.parametrize("function", aliases(*STRUCTURE, *LINEAR), ids=function_name)
def test_one_tensor(function: Any) -> None:
    """Each function of one tensor, with parts of everything and with a camera's alone."""
    for shape, call in lookup(STRUCTURE | LINEAR, function):
        sample = Sample(*shape)
        check(lambda camera, radar: call(function, camera + radar + sample.bias), sample)  # noqa: B023
        check(lambda camera, radar: call(function, camera), sample)  # noqa: B023


@pytest.mark.parametrize("function", aliases(*JOINING), ids=function_name)
def test_several_tensors(function: Any) -> None:
    for case in lookup(JOINING, function):
        check(lambda camera, radar: case(function, camera, radar), Sample(2, 3, 4))  # noqa: B023


@pytest.mark.parametrize("function", aliases(*NOT_DIFFERENTIABLE), ids=function_name)
def test_by_differences(function: Any) -> None:
    sample = Sample(2, 3, 4)
    for case in lookup(NOT_DIFFERENTIABLE, function):
        given = partial(case, function)
        named = lambda camera, radar: given(camera, radar)  # noqa: B023, E731
        options: dict[str, Any] = {"extras": sample.extras, "keep_maps": True}
        result = decompose(named, sample.parts, **options)
        assert_total(result, named(**sample.parts))
        assert_rows(result, directional_rows(named, sample.parts, sample.extras), 1e-8)
        assert_replayed(sample.parts, result)


@pytest.mark.parametrize("name", ["float", "half", "bfloat16"])
def test_conversions_round_each_part(name: str) -> None:
    sample = Sample(2, 3)
    result = sample.through(lambda x: getattr(x, name)(), "identity-ratio")
    assert torch.equal(result.total, getattr(sample.total, name)())
    for modality in MODALITIES:
        assert torch.equal(result.parts[modality], getattr(sample.parts[modality], name)())


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("dim", [0, 1])
def test_convolution_of_a_concatenation(dimensions: int, batched: bool, dim: int) -> None:
    """Concatenated channels meet their own weights only; other dimensions are not channels."""
    size = (2, 4, *(3,) * dimensions)[0 if batched else 1 :]
    joined = list(size)
    joined[dim] *= 2
    channels = joined[1 if batched else 0]
    weight = normal(2, channels, *(2,) * dimensions)
    convolve = getattr(torch, f"conv{dimensions}d")

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return convolve(torch.cat([radar, camera], dim), weight, normal(2, seed=1))

    check(function, Sample(*size))


def test_grouped_convolution_of_a_concatenation() -> None:
    weight = normal(4, 4, 2, 2)

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        joined = torch.cat([camera, radar], 1)
        return torch.conv2d(joined, weight, None, 1, 0, 1, 2) + joined[:, :4, 1:, 1:]

    check(function, Sample(2, 4, 3, 3))
