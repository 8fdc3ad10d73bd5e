"""Activations: an elementwise slope at the total (eq. 9), with Appendix C's bias splitting.

Where f(0) != 0 (sigmoid, exp, softplus) the secant output / input has a pole at 0. Below
|x| = :data:`SECANT_GUARD` the derivative takes its place, and what is missing to the total,
f(x) - slope * x, goes to the bias, so that eq. 8 holds to rounding. Roots and logarithms, whose
derivative has a pole at 0 too, take the derivative at the guard. Under ``taylor`` the slope is the
derivative everywhere.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenSlope
from lmd_cli.decomposition.registry import aliases, inplace_aliases, register_rule
from lmd_cli.decomposition.rules import slopes
from lmd_cli.decomposition.rules.common import insert_row
from lmd_cli.decomposition.splitting import ratio_shares, sum_shares
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

#: Below this |input|, activations with f(0) != 0 use their derivative.
SECANT_GUARD = 0.1

Slope = Callable[..., Tensor | None]

#: Activations with f(0) = 0, and the closed form of their slope.
THROUGH_ORIGIN: dict[str, Slope] = {
    "relu": slopes.relu,
    "relu6": slopes.relu6,
    "leaky_relu": slopes.leaky_relu,
    "prelu": slopes.prelu,
    "rrelu": slopes.rrelu,
    "hardtanh": slopes.hardtanh,
    "elu": slopes.elu,
    "celu": slopes.celu,
    "selu": slopes.selu,
    "gelu": slopes.gelu,
    "silu": slopes.silu,
    "mish": slopes.mish,
    "hardswish": slopes.hardswish,
    "tanh": slopes.tanh,
    "tanhshrink": slopes.tanhshrink,
    "softsign": slopes.softsign,
    "hardshrink": slopes.hardshrink,
    "softshrink": slopes.softshrink,
    "abs": slopes.absolute,
    "absolute": slopes.absolute,
    "atan": slopes.arctangent,
    "arctan": slopes.arctangent,
    "sin": slopes.sine,
    "erf": slopes.error_function,
    "expm1": slopes.exp_minus_one,
    "clamp": slopes.clamp,
    "clip": slopes.clamp,
    "clamp_min": slopes.clamp,
    "clamp_max": slopes.clamp,
    "square": slopes.square,
    "log1p": slopes.through_origin(torch.log1p, 1.0),
    "sinh": slopes.through_origin(torch.sinh, 1.0),
    "asinh": slopes.through_origin(torch.asinh, 1.0),
    "arcsinh": slopes.through_origin(torch.asinh, 1.0),
    "asin": slopes.through_origin(torch.asin, 1.0),
    "arcsin": slopes.through_origin(torch.asin, 1.0),
    "atanh": slopes.through_origin(torch.atanh, 1.0),
    "arctanh": slopes.through_origin(torch.atanh, 1.0),
    "tan": slopes.through_origin(torch.tan, 1.0),
    "erfinv": slopes.through_origin(torch.erfinv, math.sqrt(math.pi) / 2.0),
    "round": slopes.through_origin(torch.round, 0.0),
    "trunc": slopes.through_origin(torch.trunc, 0.0),
    "fix": slopes.through_origin(torch.trunc, 0.0),
    "frac": slopes.through_origin(torch.frac, 1.0),
}

#: Activations with f(0) != 0, or with steps at 0 (whose derivative is 0).
OFF_ORIGIN = (
    *("sigmoid", "expit", "exp", "exp2", "softplus", "hardsigmoid", "logsigmoid", "cos", "cosh"),
    *("acos", "arccos", "erfc", "sinc", "floor", "ceil", "sign", "sgn"),
)

#: Activations whose derivative has a pole at 0 too: the guard takes the derivative at its edge.
STEEP = ("sqrt", "log", "log2", "log10", "logit")


def bias_shares(session: Session, x: DecomposedTensor) -> Tensor | None:
    """Appendix C's shares ``(M, *shape)`` for the clean parts of ``x``, or ``None``."""
    split, layout = session.variant.activation, session.layout
    if split in ("identity", "taylor") or layout.bias not in x.rows:
        return None
    modalities = torch.stack([x.row(row) for row in range(len(layout.modalities))])
    shares = sum_shares if split == "sum" else ratio_shares
    return shares(modalities, x.row(layout.bias))


def split_bias(session: Session, x: DecomposedTensor, shares: Tensor) -> Tensor:
    """Hands the bias part out before the slope is applied; an extra takes its modality's share.

    Returns:
        The stack ``(rows, *shape)``, all rows of the layout (the interaction only if it is there).
    """
    layout = session.layout
    parts = x.expand_rows(layout.all_with(x.rows))
    parts = parts.clone() if parts is x.parts else parts
    bias = parts[layout.bias].clone()
    for row, owner in enumerate(layout.owners):
        parts[row].addcmul_(shares[owner], bias)
    parts[layout.bias] = bias * (1.0 - shares.sum(0))
    return parts


def linearised(
    session: Session,
    x: DecomposedTensor,
    slope: Tensor,
    remainder: Tensor | None,
    reuse: bool = False,
) -> tuple[Tensor, tuple[int, ...]]:
    """Parts after an activation: slope * (part + its share of the bias), eq. 9 and App. C.

    Args:
        slope: at the total, ``(*shape)``.
        remainder: what the slope misses of the output, for the bias part.
        reuse: the parts' memory may be overwritten (an in-place activation).
    """
    shares = bias_shares(session, x)
    session.freeze(FrozenSlope(slope, remainder, shares))
    rows = x.rows if shares is None else session.layout.all_with(x.rows)
    stack = x.parts if shares is None else split_bias(session, x, shares)
    parts = stack.mul_(slope) if reuse or shares is not None else stack * slope
    if remainder is None:
        return parts, rows
    if session.layout.bias not in rows:
        parts, rows = insert_row(parts, rows, session.layout.bias, torch.zeros_like(parts[0]))
    parts[rows.index(session.layout.bias)] += remainder
    return parts, rows


Elementwise = Callable[[Tensor], Tensor]
ClosedForm = Callable[[Tensor], Tensor | None]


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
    slope = torch.where(near, within, y / torch.where(near, 1.0, x))
    return slope, torch.where(near, y - slope * x, 0.0)


def value_and_derivative(function: Elementwise, x: Tensor) -> tuple[Tensor, Tensor]:
    """f(x) and f'(x), any shape."""
    if x.is_inference() or torch.is_inference_mode_enabled():
        # There some releases of torch silently give no derivative.
        with torch.inference_mode(False), torch.no_grad():
            return value_and_derivative(function, x.clone())
    return torch.func.jvp(function, (x,), (torch.ones_like(x),))[:2]


def tangent(function: Elementwise, x: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 1: f'(x), and f(x) - f'(x) x for the bias; no slope where the derivative has a pole."""
    y, slope = value_and_derivative(function, x)
    slope = torch.where(torch.isfinite(slope), slope, 0.0)
    return slope, y - slope * x


def linear_map(
    session: Session, slope: ClosedForm | None, function: Elementwise, x: Tensor, steep: bool
) -> tuple[Tensor, Tensor | None]:
    """Slope and remainder under the variant's rule.

    Args:
        slope: the closed form of f(x) / x; ``None``, or a result of ``None``, if there is none.
        function: f, elementwise and out of place.
        x: the total.
        steep: as in :func:`guarded_secant`.
    """
    if session.variant.activation == "taylor":
        return tangent(function, x)
    closed = None if slope is None else slope(x)
    return guarded_secant(function, x, steep) if closed is None else (closed, None)


def activate(session: Session, func: Any, slope: Slope | None, x: Any, args: Any, kw: Any) -> Any:
    """Runs an activation: the slope at the total first, then the plain call, then the parts.

    Args:
        func: the torch function that was called, possibly in place.
        slope: its closed form, ``None`` for the guarded secant.
        x: the input; args, kw: the other arguments as they came.
    """
    options = _options(session, func, x, args, kw)
    if not isinstance(x, DecomposedTensor) or any(
        isinstance(value, DecomposedTensor) for value in options.values()
    ):
        raise session.refuse(func, "only the activation's input may carry parts")
    if x.total.is_complex():
        raise session.refuse(func, "of a complex tensor it has no slope; use .real and .imag")
    if options.get("training"):
        raise session.refuse(func, "its slope is random in training mode; call .eval()")
    inplace = func.__name__.endswith("_") or bool(options.pop("inplace", False))
    if inplace:
        session.own(x)
    closed = None if slope is None else partial(slope, **options)
    function, steep = partial(_out_of_place(func), **options), _bare_name(func) in STEEP
    factor, remainder = linear_map(session, closed, function, x.total, steep)
    reuse = inplace and not torch.is_grad_enabled()
    parts, rows = linearised(session, x, factor, remainder, reuse)
    total = func(x.total, *args, **kw)
    return session.assign(x, parts, rows) if inplace else session.make(total, parts, rows)


def _bare_name(func: Any) -> str:
    return func.__name__.removesuffix("_").removeprefix("special_")


def _out_of_place(func: Any) -> Any:
    if not func.__name__.endswith("_"):
        return func
    name = _bare_name(func)
    return getattr(torch, name, None) or getattr(F, name)


#: Names of the arguments after the input of activations that torch implements natively.
_NATIVE_ARGUMENTS = {
    "elu": ("alpha",),
    "leaky_relu": ("negative_slope",),
    "hardtanh": ("min_val", "max_val"),
    "prelu": ("weight",),
    "clamp": ("min", "max"),
    "clip": ("min", "max"),
    "clamp_min": ("min",),
    "clamp_max": ("max",),
    "hardshrink": ("lambd",),
    "softshrink": ("lambd",),
    "softplus": ("beta", "threshold"),
    "gelu": ("approximate",),
    "celu": ("alpha",),
    "rrelu": ("lower", "upper", "training"),
    "logit": ("eps",),
}


def _options(session: Session, func: Any, x: Any, args: Any, kw: Any) -> dict[str, Any]:
    """The arguments after the input, by name."""
    if inspect.isfunction(func):
        bound = inspect.signature(func).bind(x, *args, **kw).arguments
        return dict(list(bound.items())[1:])
    names = _NATIVE_ARGUMENTS.get(_bare_name(func), ())
    if len(args) > len(names):
        raise session.refuse(func, f"of its arguments only the input and {names} have a meaning")
    return {**dict(zip(names, args, strict=False)), **kw}


def _register(name: str, slope: Slope | None) -> None:
    def rule(session: Session, func: Any, input: Any, *args: Any, **kw: Any) -> Any:
        return activate(session, func, slope, input, args, kw)

    rule.__doc__ = f"{name}: eq. 9, in place or not."
    equation = "eq. 9, App. C" if slope else "eq. 9 (guarded)"
    register_rule(*aliases(name), kind="activation", equation=equation)(rule)
    register_rule(*inplace_aliases(name), kind="activation", equation=equation, inplace=True)(rule)


for _name, _slope in THROUGH_ORIGIN.items():
    _register(_name, _slope)
for _name in (*OFF_ORIGIN, *STEEP):
    _register(_name, None)


def threshold(
    session: Session, func: Any, input: Any, threshold: float, value: float, inplace: bool = False
) -> Any:
    """The input above the threshold, else a constant: slope 1 or 0, the constant to the bias."""
    writes = inplace or func.__name__.endswith("_")
    if writes:
        session.own(input)
    above = input.total > threshold
    slope = above.to(input.total.dtype)
    remainder = torch.where(above, torch.zeros_like(slope), value) if value else None
    parts, rows = linearised(session, input, slope, remainder)
    total = func(input.total, threshold, value, *((True,) if inplace else ()))
    return session.assign(input, parts, rows) if writes else session.make(total, parts, rows)


for _aliases, _inplace in ((aliases, False), (inplace_aliases, True)):
    register_rule(
        *_aliases("threshold"), kind="activation", equation="eq. 9, App. C", inplace=_inplace
    )(threshold)
