"""Powers: eq. 9 for positive exponents, a divisor for negative ones.

For an exponent of 1 or more the slope x^p / x has a closed form, x^(p - 1). Between 0 and 1 it has
a pole at 0 and is guarded as a square root is. A negative power is a reciprocal, and so a constant
of the operating point (:mod:`.quotient`), as is x^0. A decomposed exponent is an exponential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmd_cli.decomposition.registry import aliases, inplace_aliases, register_rule
from lmd_cli.decomposition.rules.activation import linear_map, linearised
from lmd_cli.decomposition.rules.quotient import statistic, statistic_
from lmd_cli.decomposition.tensor import DecomposedTensor, plain

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

_EQUATION = "eq. 9; a negative power as a divisor"


def _base_and_exponent(func: Any, input: Any, other: Any) -> tuple[Any, Any]:
    """``x.__rpow__(y)`` is y ** x."""
    return (other, input) if func is torch.Tensor.__rpow__ else (input, other)


def _parts(session: Session, func: Any, base: Any, exponent: Any) -> Any:
    """The stack and its rows; ``None`` where the power is a constant."""
    if isinstance(base, DecomposedTensor) and isinstance(exponent, DecomposedTensor):
        raise session.refuse(func, "both the base and the exponent carry parts")
    if isinstance(exponent, DecomposedTensor):
        x = exponent
        found = linear_map(session, None, lambda v: torch.pow(base, v), x.total, False)
    else:
        x, kind = base, _kind(session, func, exponent)
        if kind == "constant":
            return None
        closed = None if kind == "root" else (lambda v: torch.pow(v, exponent - 1))
        steep = kind == "root"
        found = linear_map(session, closed, lambda v: torch.pow(v, exponent), x.total, steep)
    if x.total.shape != found[0].shape:
        raise session.refuse(func, "the exponent broadcasts the base; expand the base first")
    return linearised(session, x, *found)


def _kind(session: Session, func: Any, exponent: Any) -> str:
    """``power``, ``root`` or ``constant``."""
    least, most = (
        (float(exponent.min()), float(exponent.max()))
        if isinstance(exponent, Tensor)
        else (exponent, exponent)
    )
    for kind, fits in (("constant", most <= 0), ("power", least >= 1), ("root", least > 0)):
        if fits and (kind != "root" or most < 1):
            return kind
    raise session.refuse(func, "its exponents lie on both sides of 0 or 1; split the tensor first")


@register_rule(
    *aliases("pow"),
    torch.Tensor.__pow__,
    torch.Tensor.__rpow__,
    kind="activation",
    equation=_EQUATION,
)
def power(session: Session, func: Any, input: Any, exponent: Any) -> Any:
    """base ** exponent, one of which carries parts."""
    total = func(plain(input), plain(exponent))
    made = _parts(session, func, *_base_and_exponent(func, input, exponent))
    return statistic(session, total) if made is None else session.make(total, *made)


@register_rule(
    *inplace_aliases("pow"),
    torch.Tensor.__ipow__,
    kind="activation",
    equation=_EQUATION,
    inplace=True,
)
def power_(session: Session, func: Any, input: DecomposedTensor, exponent: Any) -> Any:
    """base **= exponent."""
    session.own(input)
    made = _parts(session, func, input, exponent)
    func(input.total, exponent)
    return statistic_(session, input) if made is None else session.assign(input, *made)
