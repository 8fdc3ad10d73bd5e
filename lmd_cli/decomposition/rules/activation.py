"""Activations: an elementwise slope at the total (eq. 9), with Appendix C's bias splitting.

Where f(0) != 0 (sigmoid, exp, softplus) the secant output / input has a pole at 0. Below
|x| = :data:`SECANT_GUARD` the derivative takes its place, and what is missing to the total,
f(x) - slope * x, goes to the bias, so that eq. 8 holds to rounding. Roots and logarithms, whose
derivative has a pole at 0 too, take the derivative at the guard. Under ``taylor`` the slope is the
derivative everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, constant, slope
from lmd_cli.decomposition.registry import aten_rule, register_rule
from lmd_cli.decomposition.rules import slopes
from lmd_cli.decomposition.tracing.calls import Call
from lmd_cli.decomposition.tracing.modes import above_dispatch

#: Below this |input|, activations with f(0) != 0 use their derivative.
SECANT_GUARD = 0.1

Slope = Callable[..., Tensor | None]
Elementwise = Callable[[Tensor], Tensor]
ClosedForm = Callable[[Tensor], Tensor | None]
Result = tuple[Any, Any]

#: Activations with f(0) = 0, and the closed form of their slope.
THROUGH_ORIGIN: dict[str, Slope] = {
    "relu": slopes.relu,
    "leaky_relu": slopes.leaky_relu,
    "_prelu_kernel": slopes.prelu,
    "rrelu_with_noise": slopes.rrelu,
    "hardtanh": slopes.hardtanh,
    "elu": slopes.elu,
    "celu": slopes.celu,
    "gelu": slopes.gelu,
    "silu": slopes.silu,
    "mish": slopes.mish,
    "hardswish": slopes.hardswish,
    "tanh": slopes.tanh,
    "hardshrink": slopes.hardshrink,
    "softshrink": slopes.softshrink,
    "abs": slopes.absolute,
    "atan": slopes.arctangent,
    "sin": slopes.sine,
    "erf": slopes.error_function,
    "expm1": slopes.exp_minus_one,
    "clamp": slopes.clamp,
    "clamp_min": slopes.clamp,
    "clamp_max": slopes.clamp,
    "log1p": slopes.through_origin(torch.log1p, 1.0),
    "sinh": slopes.through_origin(torch.sinh, 1.0),
    "asinh": slopes.through_origin(torch.asinh, 1.0),
    "asin": slopes.through_origin(torch.asin, 1.0),
    "atanh": slopes.through_origin(torch.atanh, 1.0),
    "tan": slopes.through_origin(torch.tan, 1.0),
    "erfinv": slopes.through_origin(torch.erfinv, math.sqrt(math.pi) / 2.0),
    "round": slopes.through_origin(torch.round, 0.0),
    "trunc": slopes.through_origin(torch.trunc, 0.0),
    "frac": slopes.through_origin(torch.frac, 1.0),
}

#: Activations with f(0) != 0, or with steps at 0 (whose derivative is 0).
OFF_ORIGIN = (
    *("sigmoid", "exp", "exp2", "softplus", "hardsigmoid", "log_sigmoid_forward", "cos", "cosh"),
    *("acos", "acosh", "erfc", "sinc", "floor", "ceil", "sign", "sgn"),
)

#: Activations whose derivative has a pole at 0 too: the guard takes the derivative at its edge.
STEEP = ("sqrt", "log", "log2", "log10", "logit")

#: Gates of recurrent layers: under ``frozen`` constants of the operating point, as attention
#: weights are, else their derivative. Products with them would grow from step to step otherwise.
GATES = ("sigmoid",)


def guarded_secant(function: Elementwise, x: Tensor, steep: bool = False) -> tuple[Tensor, Tensor]:
    """Slope and remainder of a function with f(0) != 0.

    Args:
        function: elementwise.
        x: the total, any shape.
        steep: the derivative has a pole at 0; the one at :data:`SECANT_GUARD` takes its place.

    Returns:
        f(x) / x, or f'(x) where |x| < :data:`SECANT_GUARD`; and f(x) - slope * x there, else 0.
    """
    y, within = value_and_derivative(function, x)
    if steep:
        within = value_and_derivative(function, torch.full_like(x, SECANT_GUARD))[1]
    near = x.abs() < SECANT_GUARD
    factor = torch.where(near, within, y / torch.where(near, 1.0, x))
    return factor, torch.where(near, y - factor * x, 0.0)


def value_and_derivative(function: Elementwise, x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and f'(x), any shape."""
    with above_dispatch():
        if x.is_inference() or torch.is_inference_mode_enabled():
            # There some releases of torch silently give no derivative.
            with torch.inference_mode(False), torch.no_grad():
                return _derived(function, x.clone())
        return _derived(function, x)


def _derived(function: Elementwise, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    try:
        made: Any = torch.func.jvp(function, (x,), (torch.ones_like(x),))
        return made[0], made[1]
    except (NotImplementedError, RuntimeError):  # it has no forward derivative
        return _derived_backwards(function, x)


def _derived_backwards(function: Elementwise, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        y = function(leaf)
        if not y.requires_grad:
            raise NotImplementedError("a function without a derivative (give it a slope)")
        return y.detach(), torch.autograd.grad(y.sum(), leaf)[0]


def tangent(function: Elementwise, x: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 1: f'(x), and f(x) - f'(x) x for the bias; no slope where the derivative has a pole."""
    y, factor = value_and_derivative(function, x)
    factor = torch.where(torch.isfinite(factor), factor, 0.0)
    return factor, y - factor * x


def linearised(
    call: Call,
    x: Tensor,
    total: Tensor,
    function: Elementwise,
    closed: ClosedForm | None = None,
    *,
    steep: bool = False,
    taylor: bool = False,
) -> Affine:
    """The map of an elementwise function under the variant's rule.

    Args:
        x, total: its input, of the result's shape, and the result.
        function: f, out of place.
        closed: f(x) / x; ``None``, or a result of ``None``, for the guarded secant.
        steep: as in :func:`guarded_secant`.
        taylor: the derivative whatever the variant says.

    Raises:
        NoRuleError: the input is complex.
    """
    if x.is_complex():
        raise call.refused("of a complex tensor it has no slope; use .real and .imag")
    if taylor or call.variant.activation == "taylor":
        return sloped(call, x, total, *tangent(function, x), splits=False)
    factor = None if closed is None else closed(x)
    if factor is not None:
        return sloped(call, x, total, factor)
    return sloped(call, x, total, *guarded_secant(function, x, steep))


def sloped(
    call: Call,
    x: Tensor,
    total: Tensor,
    factor: Tensor,
    remainder: Tensor | None = None,
    splits: bool = True,
) -> Affine:
    """Every part times the slope; where the input is infinite, the output is bias."""
    infinite = call.infinite(x)
    if infinite is None:
        return slope(factor, x, remainder=remainder, splits=splits)
    factor = factor.masked_fill(infinite, 0.0)
    remainder = torch.where(infinite, total, 0.0 if remainder is None else remainder)
    return Affine(lambda h: h.masked_fill(infinite, 0.0) * factor, (x,), remainder, splits=splits)


def _activation(name: str, closed: Slope | None) -> Callable[..., Result]:
    """The rule of one of ATen's activations."""

    def rule(call: Call, input: Tensor, **options: Any) -> Result:
        if not call.carries(input) or any(map(call.carries, options.values())):
            raise call.refused("only the activation's input may carry parts")
        if options.get("training"):
            raise call.refused("its slope is random in training mode; call .eval()")
        total, gate = call.plain(), name in GATES and call.recurrent
        if gate and call.variant.softmax == "frozen":
            call.hold("gates")
            return total, constant(total)
        several = isinstance(total, tuple)
        linear_map = linearised(
            call,
            input,
            total[0] if several else total,
            lambda x: call.run(input=x)[0] if several else call.run(input=x),
            None if closed is None else lambda x: closed(x, **options),
            steep=name in STEEP,
            taylor=gate,
        )
        return total, [linear_map] if several else linear_map

    rule.__doc__ = f"{name}: eq. 9."
    return rule


def _clamp(call: Call, input: Tensor, min: Any = None, max: Any = None) -> Result:
    """clamp: eq. 9; limits that carry parts are chosen from."""
    total = call.plain()
    if not (call.carries(min) or call.carries(max)):
        return total, linearised(
            call, input, total, lambda x: call.run(input=x), lambda x: slopes.clamp(x, min, max)
        )

    def chosen() -> Tensor:
        x = input if min is None else torch.maximum(input, min)
        return x if max is None else torch.minimum(x, max)

    return total, call.compose(chosen)


for _name, _closed in THROUGH_ORIGIN.items():
    _rule = _clamp if _name.startswith("clamp") else _activation(_name, _closed)
    aten_rule(_name, kind="activation", equation="eq. 9, App. C")(_rule)
for _name in (*OFF_ORIGIN, *STEEP):
    aten_rule(_name, kind="activation", equation="eq. 9 (guarded)")(_activation(_name, None))


@aten_rule("threshold", kind="activation", equation="eq. 9, App. C")
def threshold(call: Call, input: Tensor, threshold: Any, value: Any) -> Result:
    """The input above the threshold, else a constant: slope 1 or 0, the constant to the bias."""
    above = input > threshold
    factor = above.to(input.dtype)
    remainder = torch.where(above, torch.zeros_like(factor), value) if value else None
    total = call.plain()
    return total, sloped(call, input, total, factor, remainder)


def register_activation(
    function: Any, slope: Slope | None = None, *, override: bool = False
) -> None:
    """Registers an elementwise function of one tensor as an activation (eq. 9, appendix C).

    Args:
        function: a torch function or operator (whose in-place form follows), a custom autograd
            function, or any function that takes part in torch's override protocol.
        slope: called as ``slope(x, *other arguments)``, the closed form of f(x) / x for an f with
            f(0) = 0; without one it is the guarded secant, with the derivative by autograd.
        override: replace a rule that is there already.

    Raises:
        ValueError: the function has a rule already.
    """

    def rule(call: Call, *args: Any, **kwargs: Any) -> Result:
        names = [*range(len(args)), *kwargs]
        values = [*args, *kwargs.values()]
        carrying = [name for name, v in zip(names, values, strict=True) if call.carries(v)]
        if len(carrying) != 1:
            raise call.refused("only the activation's input may carry parts")
        at = carrying[0]

        def run(function: Callable[..., Any], x: Tensor) -> Any:
            given = [x if i == at else value for i, value in enumerate(args)]
            return function(*given, **{k: x if k == at else v for k, v in kwargs.items()})

        x = values[names.index(at)]
        plain = partial(run, call.function if args else lambda **named: call.run(**named))
        total = plain(x)
        closed = None if slope is None else partial(_closed_form, slope, values, names.index(at))
        return total, linearised(call, x, total, plain, closed)

    register_rule(
        function,
        kind="activation",
        equation="eq. 9" if slope else "eq. 9 (guarded)",
        override=override,
    )(rule)


def _closed_form(slope: Slope, values: list[Any], at: int, x: Tensor) -> Tensor | None:
    return slope(x, *values[:at], *values[at + 1 :])


register_activation(F.tanhshrink, slopes.tanhshrink)
register_activation(F.softsign, slopes.softsign)
