"""Activations: an elementwise slope at the total (eq. 9), with Appendix C's bias splitting.

f(h_m) = c h_m with the slope c = f(a) / a at the total a, and its limit f'(0) at a = 0: never a
division by ``a + eps``. Where f(0) != 0 (sigmoid, exp, softplus), f(a) / a has a pole at 0. Below
|a| = :data:`SECANT_GUARD` the derivative takes its place, and what is missing to the total,
f(a) - c a, goes to the bias, so that eq. 8 holds to rounding. Roots and logarithms, whose
derivative has a pole at 0 too, take the derivative at the guard. Under ``taylor`` the slope is the
derivative everywhere (eq. 1). Every slope of an elementwise function is made in :func:`slope_at`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.coalition_slopes import CURVES, Curve, curve_of
from lmd_cli.decomposition.maps import Affine, constant, same, slope
from lmd_cli.decomposition.registry import aten_rule, register_rule
from lmd_cli.decomposition.tracing.calls import Call, Result
from lmd_cli.decomposition.tracing.modes import above_dispatch
from lmd_cli.decomposition.variant import COALITION_RULES, COALITIONS

#: Below this |input|, activations with f(0) != 0 use their derivative.
SECANT_GUARD = 0.1

Elementwise = Callable[[Tensor], Tensor]
#: f(x) / x of x, f(x) and the activation's other arguments; ``None`` where f(0) != 0.
Slope = Callable[..., Tensor | None]


# -- the slope ------------------------------------------------------------------------------------


def slope_at(
    x: Tensor,
    y: Tensor,
    function: Elementwise,
    secant: Slope | None = None,
    *,
    steep: bool = False,
    taylor: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The slope of an elementwise function f, and what it misses of the output, f(x) - slope * x.

    Args:
        x, y: the total and f(x).
        secant: f(x) / x; ``None``, or a result of ``None``, where f(0) != 0.
        steep: the derivative has a pole at 0; the one at :data:`SECANT_GUARD` takes its place.
        taylor: eq. 1 in place of eq. 9; the slope is 0 where the derivative has a pole.
    """
    if taylor:
        tangent = derivative(function, x)
        factor = torch.where(torch.isfinite(tangent), tangent, 0.0)
        return factor, y - factor * x
    exact = None if secant is None else secant(x, y)
    if exact is not None:
        return exact, None
    edge = torch.full_like(x, SECANT_GUARD) if steep else x
    return guarded(y, x, derivative(function, edge), SECANT_GUARD)


def ratio(y: Tensor, x: Tensor, limit: Any) -> Tensor:
    """y / x where x is not 0, ``limit`` there."""
    zero = x == 0
    return torch.where(zero, limit, y / torch.where(zero, 1.0, x))


def guarded(y: Tensor, x: Tensor, within: Tensor | float, guard: float) -> tuple[Tensor, Tensor]:
    """y / x, or ``within`` where ``|x|`` is below the guard; and what this slope misses of y."""
    near = x.abs() < guard
    factor = torch.where(near, within, y / torch.where(near, 1.0, x))
    return factor, torch.where(near, y - factor * x, 0.0)


def derivative(function: Elementwise, x: Tensor) -> Tensor:
    """f'(x) of an elementwise function."""
    with above_dispatch():
        if x.is_inference() or torch.is_inference_mode_enabled():
            # There some releases of torch silently give no derivative.
            with torch.inference_mode(False), torch.no_grad():
                return _by_autograd(function, x.clone())
        return _by_autograd(function, x)


def _by_autograd(function: Elementwise, x: Tensor) -> Tensor:
    x = x.contiguous()
    try:
        tangent: Tensor = torch.func.jvp(function, (x,), (torch.ones_like(x),))[1]
        return tangent
    except (NotImplementedError, RuntimeError):  # it has no forward derivative
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            y = function(leaf)
            if not y.requires_grad:
                raise NotImplementedError(
                    "a function without a derivative (give it a slope)"
                ) from None
            return torch.autograd.grad(y.sum(), leaf)[0]


def linearised(
    call: Call,
    x: Tensor,
    total: Tensor,
    function: Elementwise,
    secant: Slope | None = None,
    *,
    steep: bool = False,
    taylor: bool = False,
    curve: Curve | None = None,
) -> Affine:
    """The map of an elementwise function under the variant's rule; arguments as in
    :func:`slope_at`, with x of the result's shape, and its closed forms if it has them.

    Raises:
        NoRuleError: the input is complex.
    """
    if x.is_complex():
        raise call.refused("of a complex tensor it has no slope; use .real and .imag")
    rule = call.variant.activation
    taylor = rule == "taylor" or (taylor and rule != COALITIONS)
    if not taylor and _by_coalitions(call, x):
        return by_coalitions(x, curve or curve_of(function, partial(derivative, function)))
    made = slope_at(x, total, function, secant, steep=steep, taylor=taylor)
    return sloped(call, x, total, *made, splits=not taylor)


def _by_coalitions(call: Call, x: Tensor) -> bool:
    """Whether every modality has a slope of its own: never at an infinite input, which is bias."""
    rules = (*COALITION_RULES, COALITIONS)
    return call.variant.activation in rules and call.infinite(x) is None


def by_coalitions(x: Tensor, curve: Curve) -> Affine:
    """The map whose slopes are made when the parts are known."""
    return Affine(same, (x,), splits=True, curve=curve)


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


# -- which activation has which slope -------------------------------------------------------------


def through_origin(limit: Any) -> Slope:
    """f(x) / x, and ``limit`` at 0: a number, or a function of the activation's arguments."""

    def secant(x: Tensor, y: Tensor, /, **options: Any) -> Tensor | None:
        at_zero = limit(**options) if callable(limit) else limit
        return None if at_zero is None else ratio(y, x, at_zero)

    return secant


def clamp_limit(min: Any = None, max: Any = None) -> float | None:
    """Of clamp(x) / x, if the limits are numbers that admit 0."""
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return None
    if (min is not None and min > 0) or (max is not None and max < 0):
        return None
    return 0.0 if min == 0 or max == 0 else 1.0


#: Activations with f(0) = 0, and f'(0), the slope's limit there.
THROUGH_ORIGIN: dict[str, Any] = {
    **dict.fromkeys(("tanh", "atan", "sin", "expm1", "log1p", "sinh", "asinh", "asin"), 1.0),
    **dict.fromkeys(("atanh", "tan", "frac", "celu"), 1.0),
    **dict.fromkeys(("gelu", "silu", "hardswish"), 0.5),
    **dict.fromkeys(("round", "trunc", "hardshrink", "softshrink"), 0.0),
    "mish": 0.6,  # tanh(log(2))
    "erf": 2.0 / math.sqrt(math.pi),
    "erfinv": math.sqrt(math.pi) / 2.0,
    "elu": lambda alpha=1.0, scale=1.0, input_scale=1.0: alpha * scale * input_scale,
    "leaky_relu": lambda negative_slope=0.01: negative_slope,
    "_prelu_kernel": lambda weight: weight,
    "rrelu_with_noise": lambda lower=1 / 8, upper=1 / 3, **_: (lower + upper) / 2,
    "hardtanh": lambda min_val=-1.0, max_val=1.0: clamp_limit(min_val, max_val),
}

#: Activations with f(0) != 0, or with steps at 0 (whose derivative is 0).
OFF_ORIGIN = (
    *("exp", "exp2", "softplus", "hardsigmoid", "log_sigmoid_forward", "cos", "cosh", "acos"),
    *("acosh", "erfc", "sinc", "floor", "ceil", "sign", "sgn"),
)

#: Activations whose derivative has a pole at 0 too: the guard takes the derivative at its edge.
STEEP = ("sqrt", "log", "log2", "log10", "logit")

#: Gates of recurrent layers: under ``frozen`` constants of the operating point, as attention
#: weights are, else their derivative. Products with them would grow from step to step otherwise.
GATES = ("sigmoid",)


def activation(
    secant: Slope | None = None,
    *,
    of: str | None = "input",
    steep: bool = False,
    gate: bool = False,
) -> Callable[..., Result]:
    """The rule of an elementwise function of one argument: ``of``, or the one with parts."""

    def rule(call: Call, *args: Any, **kwargs: Any) -> Result:
        given = call.given
        carrying = [name for name, value in given.items() if call.carries(value)]
        if len(carrying) != 1 or of not in (None, carrying[0]):
            raise call.refused("only the activation's input may carry parts")
        if call.operator is not None and given.get("training"):
            raise call.refused("its slope is random in training mode; call .eval()")

        def run(h: Tensor) -> Any:
            return call.run(**{carrying[0]: h})

        x = given[carrying[0]]
        result, recurrent = run(x), gate and call.recurrent
        frozen = call.variant.softmax == "frozen" and call.variant.activation != COALITIONS
        if recurrent and frozen:
            call.hold("gates")
            return result, constant(result)
        others = {name: value for name, value in given.items() if name != carrying[0]}
        several = isinstance(result, tuple)
        made = linearised(
            call,
            x,
            result[0] if several else result,
            (lambda h: run(h)[0]) if several else run,
            partial(secant, **others) if secant and others else secant,
            steep=steep,
            taylor=recurrent,
            curve=CURVES.get(call.operator.name) if call.operator and not others else None,
        )
        return result, [made] if several else made

    return rule


def relu_slope(x: Tensor, y: Tensor) -> Tensor:
    """ReLU's f(x) / x: a mask in {0, 1}, 0 at 0."""
    return (x > 0).to(x.dtype)


_clamp, _absolute = map(activation, (through_origin(clamp_limit), through_origin(0.0)))


@aten_rule("abs", kind="activation", equation="eq. 9, App. C")
def absolute(call: Call, input: Tensor) -> Result:
    """|x|; of a complex number the root of a sum of squares."""
    if not input.is_complex():
        return _absolute(call, input=input)
    return call.plain(), call.compose(lambda: torch.hypot(input.real, input.imag))


@aten_rule("clamp", "clamp_min", "clamp_max", kind="activation", equation="eq. 9, App. C")
def clamp(call: Call, input: Tensor, **limits: Any) -> Result:
    """eq. 9; limits that carry parts are chosen from."""
    if not call.operands(*limits.values()):
        return _clamp(call, input=input, **limits)

    def chosen() -> Tensor:
        low, high = limits.get("min"), limits.get("max")
        x = input if low is None else torch.maximum(input, low)
        return x if high is None else torch.minimum(x, high)

    return call.plain(), call.compose(chosen)


aten_rule("relu", kind="activation", equation="eq. 9, App. C")(activation(relu_slope))
for _name, _limit in THROUGH_ORIGIN.items():
    _rule = activation(through_origin(_limit))
    aten_rule(_name, kind="activation", equation="eq. 9, App. C")(_rule)
for _name in (*OFF_ORIGIN, *STEEP, *GATES):
    _rule = activation(steep=_name in STEEP, gate=_name in GATES)
    aten_rule(_name, kind="activation", equation="eq. 9 (guarded)")(_rule)


@aten_rule("threshold", kind="activation", equation="eq. 9, App. C")
def threshold(call: Call, input: Tensor, threshold: Any, value: Any) -> Result:
    """The input above the threshold, else a constant: slope 1 or 0, the constant to the bias."""
    total, above = call.plain(), input > threshold
    if _by_coalitions(call, input):
        run = partial(F.threshold, threshold=threshold, value=value)
        return total, by_coalitions(input, curve_of(run, lambda x: (x > threshold).to(x)))
    factor = above.to(input.dtype)
    remainder = torch.where(above, torch.zeros_like(factor), value) if value else None
    return total, sloped(call, input, total, factor, remainder)


# -- activations of one's own ---------------------------------------------------------------------


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

    def secant(x: Tensor, y: Tensor, /, **others: Any) -> Tensor | None:
        made = None if slope is None else slope(x, *others.values())
        return made.clone() if isinstance(made, Tensor) else made  # it may be an argument

    equation = "eq. 9" if slope else "eq. 9 (guarded)"
    decorate = register_rule(function, kind="activation", equation=equation, override=override)
    decorate(activation(secant, of=None))


register_activation(F.tanhshrink, lambda x: 1.0 - ratio(torch.tanh(x), x, 1.0))
register_activation(F.softsign, lambda x: 1.0 / (1.0 + x.abs()))
