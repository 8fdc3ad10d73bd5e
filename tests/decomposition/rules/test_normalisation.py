"""BatchNorm against eq. 10, the other norms against eq. 11 or eq. 10, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import function_name
from tests.support.rule_oracle import BIAS, Sample, assert_rows, assert_total, normal

Array = np.ndarray
EPS = 1e-3
SHAPES = ((2, 6, 3, 4), (2, 6, 5), (2, 6, 2, 2, 3))
Statistics = tuple[Array, Array, Array, Array]  # mean, variance, gamma, beta; broadcastable


def channels(values: Array, ndim: int) -> Array:
    return values.reshape(1, -1, *(1,) * (ndim - 2))


def affine(size: int, on: bool) -> tuple[Tensor | None, Tensor | None]:
    return (1.0 + 0.2 * normal(size, seed=40), normal(size, seed=41)) if on else (None, None)


def filled(parameters: tuple[Tensor | None, Tensor | None], size: int) -> tuple[Array, Array]:
    gamma, beta = parameters
    return (
        np.ones(size) if gamma is None else gamma.numpy(),
        np.zeros(size) if beta is None else beta.numpy(),
    )


def eq_10(h: Array, share: float, statistics: Statistics) -> Array:
    mean, variance, gamma, beta = statistics
    return gamma / np.sqrt(variance + EPS) * h + share * (
        beta - mean * gamma / np.sqrt(variance + EPS)
    )


def eq_11(h: Array, own_mean: Array, share: float, statistics: Statistics) -> Array:
    _, variance, gamma, beta = statistics
    return (h - own_mean) / np.sqrt(variance + EPS) * gamma + share * beta


def check(
    call: Callable[[Tensor], Tensor],
    sample: Sample,
    rule: str,
    variant: str,
    mean: Callable[[Array], Array],
    statistics: Statistics,
) -> None:
    """Every part through the equation that ``rule`` names."""
    rows = {}
    for name, part in sample.rows().items():
        h = part.numpy()
        share = 1 / 3 if rule == "uniform" else float(name == BIAS)
        out = (
            eq_11(h, mean(h), share, statistics) if rule == "ratio" else eq_10(h, share, statistics)
        )
        rows[name] = [torch.from_numpy(out)]
    result = sample.through(call, variant)
    assert_total(result, call(sample.total))
    assert_rows(result, rows)


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("rule", ["identity", "uniform"])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 6)])
def test_batch_norm(shape: tuple[int, ...], rule: str, with_affine: bool) -> None:
    mean, variance = normal(6, seed=42), normal(6, seed=43).square() + 0.1
    parameters = affine(6, with_affine)
    gamma, beta = filled(parameters, 6)
    values = (mean.numpy(), variance.numpy(), gamma, beta)
    statistics = tuple(channels(v, len(shape)) for v in values)

    def call(x: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, *parameters, False, 0.1, EPS)

    check(call, Sample(*shape), rule, f"{rule}-ratio", lambda h: h, statistics)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["identity", "uniform"])
def test_instance_norm_with_running_statistics_is_a_batch_norm(rule: str) -> None:
    mean, variance = normal(6, seed=42), normal(6, seed=43).square() + 0.1
    gamma, beta = affine(6, True)
    statistics = tuple(channels(v.numpy(), 4) for v in (mean, variance, gamma, beta))

    def call(x: Tensor) -> Tensor:
        return F.instance_norm(x, mean, variance, gamma, beta, False, 0.1, EPS)

    check(call, Sample(2, 6, 3, 4), rule, f"{rule}-ratio", lambda h: h, statistics)  # type: ignore[arg-type]


def own_statistics(sample: Sample, mean: Callable[[Array], Array], affine_: Any) -> Statistics:
    x = sample.total.numpy()
    return mean(x), mean((x - mean(x)) ** 2), *affine_


def spatial_mean(h: Array) -> Array:
    return h.mean(tuple(range(2, h.ndim)), keepdims=True)


def group_mean(h: Array, groups: int = 3) -> Array:
    grouped = h.reshape(h.shape[0], groups, -1).mean(2)  # (B, G)
    each = np.repeat(grouped, h.shape[1] // groups, axis=1)  # (B, C)
    return each.reshape(*each.shape, *(1,) * (h.ndim - 2))


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("rule", ["ratio", "identity", "uniform"])
@pytest.mark.parametrize("shape", SHAPES)
def test_instance_norm(shape: tuple[int, ...], rule: str, with_affine: bool) -> None:
    sample, parameters = Sample(*shape), affine(6, with_affine)
    values = [channels(v, len(shape)) for v in filled(parameters, 6)]
    statistics = own_statistics(sample, spatial_mean, values)

    def call(x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=parameters[0], bias=parameters[1], eps=EPS)

    check(call, sample, rule, f"identity-{rule}", spatial_mean, statistics)


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("rule", ["ratio", "identity", "uniform"])
@pytest.mark.parametrize("function", [F.group_norm, torch.group_norm], ids=function_name)
@pytest.mark.parametrize("shape", [*SHAPES, (5, 6)])
def test_group_norm(shape: tuple[int, ...], function: Any, rule: str, with_affine: bool) -> None:
    sample, parameters = Sample(*shape), affine(6, with_affine)
    values = [channels(v, len(shape)) for v in filled(parameters, 6)]
    statistics = own_statistics(sample, group_mean, values)

    def call(x: Tensor) -> Tensor:
        return function(x, 3, *parameters, EPS)

    check(call, sample, rule, f"identity-{rule}", group_mean, statistics)


@pytest.mark.parametrize("with_affine", [True, False])
@pytest.mark.parametrize("rule", ["ratio", "identity", "uniform"])
@pytest.mark.parametrize("function", [F.layer_norm, torch.layer_norm], ids=function_name)
@pytest.mark.parametrize("last", [1, 2])
def test_layer_norm(last: int, function: Any, rule: str, with_affine: bool) -> None:
    sample = Sample(2, 5, 3, 4)
    normalised = (2, 5, 3, 4)[-last:]
    parameters = affine(int(np.prod(normalised)), with_affine)
    parameters = tuple(None if p is None else p.reshape(normalised) for p in parameters)

    def mean(h: Array) -> Array:
        return h.mean(tuple(range(-last, 0)), keepdims=True)

    values = [v.reshape(normalised) for v in filled(parameters, int(np.prod(normalised)))]
    statistics = own_statistics(sample, mean, values)

    def call(x: Tensor) -> Tensor:
        return function(x, normalised, *parameters, EPS)

    check(call, sample, rule, f"identity-{rule}", mean, statistics)


@pytest.mark.parametrize("function", [F.rms_norm, torch.rms_norm], ids=function_name)
@pytest.mark.parametrize("with_affine", [True, False])
def test_rms_norm_scales_every_part_alike(function: Any, with_affine: bool) -> None:
    sample, weight = Sample(2, 5, 4), affine(4, with_affine)[0]
    for eps, floor in ((EPS, EPS), (None, np.finfo(np.float64).eps)):
        x = sample.total.numpy()
        scale = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + floor) * filled((weight, None), 4)[0]
        result = sample.through(lambda x, e=eps: function(x, (4,), weight, e), "uniform-uniform")
        assert_total(result, function(sample.total, (4,), weight, eps))
        assert_rows(result, {k: [h * torch.from_numpy(scale)] for k, h in sample.rows().items()})


@pytest.mark.parametrize(("p", "dim"), [(2.0, 1), (1.0, -1), (3.0, 0)])
def test_normalize_scales_every_part_alike(p: float, dim: int) -> None:
    sample = Sample(2, 5, 4)
    x = sample.total.numpy()
    length = (np.abs(x) ** p).sum(dim, keepdims=True) ** (1 / p)
    result = sample.through(lambda x: F.normalize(x, p, dim), "uniform-uniform")
    assert_total(result, F.normalize(sample.total, p, dim))
    assert_rows(result, {k: [h / torch.from_numpy(length)] for k, h in sample.rows().items()})
