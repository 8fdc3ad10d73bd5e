"""Every activation against output / input (eq. 9), and Appendix C's handing out of the bias."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.registry import function_name
from lmd_cli.decomposition.rules.activation import SECANT_GUARD
from tests.support.appendix_c import shares
from tests.support.rule_oracle import BIAS, Sample, aliases, assert_rows, assert_total, lookup

Array = np.ndarray
#: The limit of output / input at 0 for activations with f(0) = 0 (at a kink, from below).
LIMITS = {
    **dict.fromkeys(
        ("relu", "relu6", "hardshrink", "softshrink", "tanhshrink", "abs", "absolute"), 0
    ),
    **dict.fromkeys(("hardtanh", "elu", "celu", "tanh", "softsign", "atan", "arctan", "sin"), 1),
    **dict.fromkeys(("expm1", "clamp", "clip", "clamp_min", "clamp_max"), 1),
    **dict.fromkeys(("gelu", "silu", "hardswish"), 0.5),
    "leaky_relu": 0.01,
    "prelu": 0.25,
    "rrelu": (1 / 8 + 1 / 3) / 2,
    "selu": 1.0507009873554805 * 1.6732632423543772,
    "mish": math.tanh(math.log(2)),
    "erf": 2 / math.sqrt(math.pi),
    "erfinv": math.sqrt(math.pi) / 2,
    **dict.fromkeys(("square", "round", "trunc", "fix"), 0),
    **dict.fromkeys(("log1p", "sinh", "asinh", "arcsinh", "asin", "arcsin"), 1),
    **dict.fromkeys(("atanh", "arctanh", "tan", "frac"), 1),
}
#: Activations that are defined, or far from a pole, in (-1, 1) only; in (0, 1) only.
NARROW = ("log1p", "asin", "arcsin", "acos", "arccos", "atanh", "arctanh", "tan", "erfinv")
POSITIVE = ("sqrt", "log", "log2", "log10", "logit")
#: In (1, inf) only: never below the guard.
LARGE = ("acosh", "arccosh")


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


#: Derivatives of the activations with f(0) != 0.
DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: sigmoid(x) * (1 - sigmoid(x)),
    "expit": lambda x: sigmoid(x) * (1 - sigmoid(x)),
    "exp": np.exp,
    "softplus": sigmoid,
    "hardsigmoid": lambda x: np.where(np.abs(x) < 3, np.float32(1) / np.float32(6), 0.0),  # torch's
    "log_sigmoid": lambda x: sigmoid(-x),
    "cos": lambda x: -np.sin(x),
    "exp2": lambda x: math.log(2) * 2**x,
    "cosh": np.sinh,
    **dict.fromkeys(("acos", "arccos"), lambda x: -1 / np.sqrt(1 - x**2)),
    "erfc": lambda x: -2 / math.sqrt(math.pi) * np.exp(-(x**2)),
    "sinc": lambda x: np.where(x == 0, 0, np.cos(np.pi * x) / x - np.sinc(x) / x),
    **dict.fromkeys(("floor", "ceil", "sign", "sgn"), np.zeros_like),
    **dict.fromkeys(LARGE, lambda x: np.full_like(x, np.nan)),
    # Those with a pole at 0: the derivative at the guard.
    "sqrt": lambda x: np.full_like(x, 0.5 / math.sqrt(SECANT_GUARD)),
    "log": lambda x: np.full_like(x, 1 / SECANT_GUARD),
    "log2": lambda x: np.full_like(x, 1 / (SECANT_GUARD * math.log(2))),
    "log10": lambda x: np.full_like(x, 1 / (SECANT_GUARD * math.log(10))),
    "logit": lambda x: np.full_like(x, 1 / (SECANT_GUARD * (1 - SECANT_GUARD))),
}
#: Arguments that a call needs, or that change the slope: (args, kwargs, the limit at 0).
OPTIONS: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], float]]] = {
    "prelu": [((torch.tensor([0.25], dtype=torch.float64),), {}, 0.25)],
    "leaky_relu": [((0.2,), {}, 0.2), ((), {"negative_slope": 0.3}, 0.3)],
    "elu": [((0.5,), {}, 0.5)],
    "celu": [((0.5,), {}, 1.0)],
    "hardtanh": [((-0.5, 2.0), {}, 1.0), ((), {"min_val": 0.0, "max_val": 1.0}, 0.0)],
    "gelu": [((), {"approximate": "tanh"}, 0.5)],
    "hardshrink": [((0.2,), {}, 0.0)],
    "softshrink": [((0.2,), {}, 0.0)],
    "rrelu": [((0.1, 0.3), {}, 0.2)],
    "clamp": [((-1.0, 0.5), {}, 1.0), ((0.0,), {}, 0.0), ((), {"max": 0.7}, 1.0)],
    "clip": [((), {"min": -0.3}, 1.0)],
    "clamp_min": [((-0.3,), {}, 1.0), ((0.0,), {}, 0.0)],
    "clamp_max": [((0.7,), {}, 1.0)],
    "round": [((), {"decimals": 1}, 0.0)],
}


def bare_name(function: Any) -> str:
    return function.__name__.removesuffix("_").removeprefix("special_")


def sample_with_zeros() -> Sample:
    """Parts of all sign patterns, among them zero totals and zero parts."""
    sample = Sample(2, 3, 4, seed=3)
    sample.parts["camera"][0, 0] *= -1
    sample.parts["camera"][1, 2, :2] = 0.0
    sample.parts["radar"][1, 2, 0] = 0.0
    sample.bias[1, 2, 3] = 0.0
    sample.bias[0, :, 0] = -(sample.parts["camera"] + sample.parts["radar"])[0, :, 0]  # total 0
    sample.bias[1, :, 0] *= 0.05
    assert (sample.total == 0).sum() == 3
    return sample


def sample_for(name: str) -> Sample:
    """A sample whose totals lie where the function is defined, some of them below the guard."""
    sample = sample_with_zeros()
    if name in POSITIVE:
        size = sample.total.abs() + 0.01
        sample.bias += size - sample.total
    if name in NARROW + POSITIVE:
        scale = 0.9 / float(sample.total.abs().max())
        sample.parts = {name: scale * part for name, part in sample.parts.items()}
        sample.bias *= scale
    if name in LARGE:
        sample.bias += 1.1 + sample.total.abs() - sample.total
        return sample
    assert (sample.total.abs() < SECANT_GUARD).any()
    return sample


def calls(function: Any) -> list[tuple[Callable[[Tensor], Tensor], float | None]]:
    """The function with its default and with other arguments, and the limit of each at 0."""
    name = bare_name(function)
    given = OPTIONS.get(name, [])
    limit = None if name in DERIVATIVES else lookup(LIMITS, _named(name))
    bare = [] if name == "prelu" or name.startswith("cl") else [((), {}, limit)]
    return [(lambda x, a=a, k=k: function(x, *a, **k), at_zero) for a, k, at_zero in bare + given]


def _named(name: str) -> Any:
    return type("", (), {"__name__": name, "__qualname__": name})


NAMES = ("logsigmoid", *(name for name in (*LIMITS, *DERIVATIVES) if name != "log_sigmoid"))
FUNCTIONS = aliases(*NAMES)
IN_PLACE = aliases(*(f"{name}_" for name in NAMES))


def bias_shares(parts: Array, bias: Array, split: str) -> Array:
    """Appendix C's shares (..., M) for parts (..., M), neuron by neuron."""
    neurons = zip(parts.reshape(-1, parts.shape[-1]), bias.ravel(), strict=True)
    return np.array([shares(p.tolist(), float(b), split) for p, b in neurons]).reshape(parts.shape)


def expected_rows(
    sample: Sample, output: Tensor, name: str, limit: float | None, split: str
) -> Any:
    """Eq. 9 in numpy: slope * (part + its share of the bias), remainders to the bias."""
    x, y = sample.total.numpy(), output.numpy()
    with np.errstate(all="ignore"):
        slope = np.where(x == 0, 0.0 if limit is None else limit, y / x)
    if limit is None:
        near = np.abs(x) < SECANT_GUARD
        slope = np.where(near, DERIVATIVES[name](x), slope)
    parts = [part.numpy() for part in sample.parts.values()]
    given = bias_shares(np.stack(parts, -1), sample.bias.numpy(), split)
    owners = {"camera": 0, "camera+": 0, "radar": 1, "radar+": 1}
    rows = {
        row: [
            torch.from_numpy(slope * (part.numpy() + given[..., owners[row]] * sample.bias.numpy()))
        ]
        for row, part in sample.rows().items()
        if row != BIAS
    }
    kept = slope * sample.bias.numpy() * (1 - given.sum(-1))
    rows[BIAS] = [torch.from_numpy(kept + (y - slope * x))]
    return rows


@pytest.mark.parametrize("split", ["identity", "sum", "ratio"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=function_name)
def test_slope(function: Any, split: str) -> None:
    """Every row's part is its own value times output / input (eq. 9)."""
    name = bare_name(function)
    for call, limit in calls(function):
        sample = sample_for(name)
        output = call(sample.total)
        result = sample.through(call, f"identity-ratio-{split}")
        assert_total(result, output)
        assert_rows(result, expected_rows(sample, output, name, limit, split))


@pytest.mark.parametrize("split", ["identity", "ratio"])
@pytest.mark.parametrize("function", IN_PLACE, ids=function_name)
def test_slope_in_place(function: Any, split: str) -> None:
    name = bare_name(function)
    for call, limit in calls(function):
        sample = sample_for(name)

        def written(x: Tensor) -> Tensor:
            assert call(x) is x  # noqa: B023
            return x

        output = written(sample.total)
        result = sample.through(written, f"identity-ratio-{split}")
        assert_total(result, output)
        assert_rows(result, expected_rows(sample, output, name, limit, split))


def smooth(x: Tensor) -> Tensor:
    """Away from the kinks at 0, where a derivative is a matter of taste."""
    return torch.where(x == 0, 0.03, x)


@pytest.mark.parametrize("function", FUNCTIONS, ids=function_name)
def test_taylor_is_the_derivative_with_the_rest_in_the_bias(function: Any) -> None:
    for call, _ in calls(function):
        sample = sample_for(bare_name(function))
        sample.bias += smooth(sample.total) - sample.total
        x = sample.total.clone().requires_grad_()
        y = call(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        rows = {name: [slope * part] for name, part in sample.rows().items()}
        rows[BIAS][0] = rows[BIAS][0] + y.detach() - slope * sample.total
        result = sample.through(call, "identity-ratio-taylor-frozen")
        assert_total(result, call(sample.total))
        assert_rows(result, rows)


def test_taylor_has_no_slope_at_a_pole() -> None:
    zero = torch.zeros(2, 3).double()
    result = decompose(
        lambda camera: camera.sqrt(), {"camera": zero}, "identity-ratio-taylor-frozen"
    )
    assert not result.parts["camera"].any()
    assert not result.bias.any()


@pytest.mark.parametrize(
    "name", ["relu", "relu6", "leaky_relu", "hardtanh", "elu", "celu", "selu", "silu", "mish"]
)
def test_inplace_argument(name: str) -> None:
    function = getattr(torch.nn.functional, name)
    sample = sample_with_zeros()
    apart = sample.through(function, "identity-ratio-sum")

    def written(x: Tensor) -> Tensor:
        function(x, inplace=True)
        return x

    result = sample.through(written, "identity-ratio-sum")
    assert torch.equal(result.total, apart.total)
    for row in (*result.parts, BIAS):
        a, b = ((r.bias if row == BIAS else r.parts[row]) for r in (result, apart))
        assert torch.equal(a, b)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("value", [0.0, -0.7])
@pytest.mark.parametrize(
    "function",
    aliases("threshold", "threshold_"),
    ids=function_name,
)
def test_threshold(function: Any, value: float, inplace: bool) -> None:
    sample = sample_with_zeros()

    def call(x: Tensor) -> Tensor:
        if not inplace or not inspect.isfunction(function):
            return function(x, 0.3, value)
        function(x, 0.3, value, True)
        return x

    above = (sample.total > 0.3).double()
    rows = {name: [above * part] for name, part in sample.rows().items()}
    rows[BIAS][0] = rows[BIAS][0] + (1 - above) * value
    output = call(sample.total)
    result = sample.through(call, "identity-ratio")
    assert_total(result, output)
    assert_rows(result, rows)


@pytest.mark.parametrize("limits", [(0.5, 2.0), (-2.0, -0.5)])
@pytest.mark.parametrize("function", [torch.clamp, torch.nn.functional.hardtanh])
def test_limits_away_from_zero_are_guarded(
    function: Callable[..., Tensor], limits: tuple[float, float]
) -> None:
    sample = sample_with_zeros()

    def call(x: Tensor) -> Tensor:
        return function(x, *limits)

    x, output = sample.total, call(sample.total)
    slope = torch.where(x.abs() < SECANT_GUARD, (output == x).double(), output / x)
    rows = {name: [slope * part] for name, part in sample.rows().items()}
    rows[BIAS][0] = rows[BIAS][0] + output - slope * x
    result = sample.through(call, "identity-ratio")
    assert_total(result, output)
    assert_rows(result, rows)


def test_clamp_by_tensors_conserves() -> None:
    low, high = torch.tensor([[-0.2], [0.3], [0.0]]).double(), torch.tensor([0.5, 1.0, 2.0, 0.4])
    result = sample_with_zeros().through(
        lambda x: x.clamp(low, high.double()), "identity-ratio-sum"
    )
    assert result.residual < 1e-14
    assert torch.isfinite(result.bias).all()


def test_softplus_options_reach_the_slope() -> None:
    sample = sample_with_zeros()
    result = sample.through(lambda x: softplus(x, beta=3.0, threshold=2.0), "identity-ratio")
    x = sample.total
    near = x.abs() < SECANT_GUARD
    slope = torch.where(near, torch.sigmoid(3.0 * x), softplus(x, 3.0, 2.0) / x)
    torch.testing.assert_close(
        result.parts["radar"], slope * sample.parts["radar"], rtol=1e-12, atol=1e-12
    )
