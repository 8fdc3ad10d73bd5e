"""Activations: an elementwise slope at the total (eq. 9), with Appendix C's bias splitting.

Where f(0) != 0 (sigmoid, exp, softplus) the secant output / input has a pole at 0. Below
|x| = :data:`SECANT_GUARD` the derivative takes its place, and what is missing to the total,
f(x) - slope * x, goes to the bias, so that eq. 8 holds to rounding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
}

#: Activations with f(0) != 0.
OFF_ORIGIN = ("sigmoid", "expit", "exp", "softplus", "hardsigmoid", "logsigmoid", "cos")


def bias_shares(session: Session, x: DecomposedTensor) -> Tensor | None:
    """Appendix C's shares ``(M, *shape)`` for the clean parts of ``x``, or ``None``."""
    split, layout = session.variant.activation, session.layout
    if split == "identity" or layout.bias not in x.rows:
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


def guarded_secant(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and remainder of a function with f(0) != 0.

    Args:
        function: elementwise.
        x: the total, any shape.

    Returns:
        f(x) / x, or f'(x) where |x| < :data:`SECANT_GUARD`; and f(x) - slope * x there, else 0.
    """
    y, derivative = torch.func.jvp(function, (x,), (torch.ones_like(x),))[:2]
    near = x.abs() < SECANT_GUARD
    slope = torch.where(near, derivative, y / torch.where(near, 1.0, x))
    return slope, torch.where(near, y - slope * x, 0.0)


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
    if options.get("training"):
        raise session.refuse(func, "its slope is random in training mode; call .eval()")
    inplace = func.__name__.endswith("_") or bool(options.pop("inplace", False))
    if inplace:
        session.own(x)
    closed, remainder = _slope_at(func, slope, x.total, options)
    reuse = inplace and not torch.is_grad_enabled()
    parts, rows = linearised(session, x, closed, remainder, reuse)
    total = func(x.total, *args, **kw)
    return session.assign(x, parts, rows) if inplace else session.make(total, parts, rows)


def _slope_at(
    func: Any, slope: Slope | None, x: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    closed = None if slope is None else slope(x, **options)
    if closed is not None:
        return closed, None
    twin = _out_of_place(func)
    return guarded_secant(lambda v: twin(v, **options), x)


def _out_of_place(func: Any) -> Any:
    if not func.__name__.endswith("_"):
        return func
    name = func.__name__.removesuffix("_")
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
}


def _options(session: Session, func: Any, x: Any, args: Any, kw: Any) -> dict[str, Any]:
    """The arguments after the input, by name."""
    if inspect.isfunction(func):
        bound = inspect.signature(func).bind(x, *args, **kw).arguments
        return dict(list(bound.items())[1:])
    names = _NATIVE_ARGUMENTS.get(func.__name__.removesuffix("_"), ())
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
for _name in OFF_ORIGIN:
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
