"""Powers: eq. 9 for positive exponents, a divisor for negative ones.

For an exponent p of 1 or more the slope is a^(p - 1). Between 0 and 1 it has a pole at 0 and is
guarded as a square root is. A negative power is a reciprocal, and so a constant of the operating
point (:mod:`.quotients`), as is a^0. An exponent that carries parts is an exponential.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import constant
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.activation import linearised
from lmd_cli.decomposition.tracing.calls import Call


@aten_rule("pow", kind="activation", equation="eq. 9; a negative power as a divisor")
def power(call: Call, input: Any, exponent: Any) -> tuple[Tensor, Any]:
    """base ** exponent, one of which carries parts."""
    total = call.plain()
    if call.carries(input) and call.carries(exponent):
        raise call.refused("both the base and the exponent carry parts")
    if call.carries(exponent):
        x = exponent.expand(total.shape)
        return total, linearised(call, x, total, lambda v: torch.pow(input, v))
    x = input.expand(total.shape)
    if _all(exponent <= 0):
        return total, constant(call.kept(total))
    whole, root = _all(exponent >= 1), _all((exponent > 0) & (exponent < 1))
    if not (whole or root):
        return total, call.compose(_by_exponent, input, exponent)
    secant = (lambda v, y: torch.pow(v, exponent - 1)) if whole else None
    return total, linearised(call, x, total, lambda v: torch.pow(v, exponent), secant, steep=root)


def _all(condition: Any) -> bool:
    return bool(condition.all()) if isinstance(condition, Tensor) else condition


def _by_exponent(x: Tensor, p: Tensor) -> Tensor:
    """Exponents on both sides of 0 or 1: each element by its own."""
    made = torch.pow(x.detach(), p)
    for chosen, other in ((p >= 1, 1.0), ((p > 0) & (p < 1), 0.5)):
        power = torch.pow(torch.where(chosen, x, 1.0), torch.where(chosen, p, other))
        made = torch.where(chosen, power, made)
    return made
