"""Powers: eq. 9 for positive exponents, a divisor for negative ones.

For an exponent of 1 or more the slope x^p / x has a closed form, x^(p - 1). Between 0 and 1 it has
a pole at 0 and is guarded as a square root is. A negative power is a reciprocal, and so a constant
of the operating point (:mod:`.quotients`), as is x^0. An exponent that carries parts is an
exponential.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import Affine, constant
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.activation import linearised, sloped
from lmd_cli.decomposition.tracing.calls import Call


@aten_rule("pow", kind="activation", equation="eq. 9; a negative power as a divisor")
def power(call: Call, input: Any, exponent: Any) -> tuple[Tensor, Affine]:
    """base ** exponent, one of which carries parts."""
    total = call.plain()
    if call.carries(input) and call.carries(exponent):
        raise call.refused("both the base and the exponent carry parts")
    if call.carries(exponent):
        x = exponent.expand(total.shape)
        return total, linearised(call, x, total, lambda v: torch.pow(input, v))
    return total, _of_base(call, input.expand(total.shape), exponent, total)


def _of_base(call: Call, x: Tensor, exponent: Any, total: Tensor) -> Affine:
    """The map of x ** exponent."""
    if not isinstance(exponent, Tensor):
        if exponent <= 0:
            return constant(call.kept(total))
        return _with_slope(call, x, exponent, total, root=exponent < 1)
    if not bool((exponent > 0).any()):
        return constant(call.kept(total))
    whole, root = exponent >= 1, (exponent > 0) & (exponent < 1)
    if not bool((root | (exponent <= 0)).any()):
        return _with_slope(call, x, exponent, total, root=False)
    if bool(root.all()):
        return _with_slope(call, x, exponent, total, root=True)
    return _mixed(call, x, exponent, total, whole, root)


def _with_slope(call: Call, x: Tensor, exponent: Any, total: Tensor, root: bool) -> Affine:
    closed = None if root else (lambda v: torch.pow(v, exponent - 1))
    return linearised(call, x, total, lambda v: torch.pow(v, exponent), closed, steep=root)


def _mixed(
    call: Call, x: Tensor, exponent: Tensor, total: Tensor, whole: Tensor, root: Tensor
) -> Affine:
    """Exponents on both sides of 0 or 1: each element by its own."""
    made = [
        _with_slope(call, x, torch.where(chosen, exponent, other), total, is_root)
        for chosen, other, is_root in ((whole, 1.0, False), (root, 0.5, True))
    ]
    one = torch.ones((1, *total.shape), dtype=total.dtype, device=total.device)
    factors = [linear_map.run(one)[0] for linear_map in made]  # type: ignore[misc]
    rests = [0.0 if m.constant is None else m.constant for m in made]
    factor = torch.where(whole, factors[0], torch.where(root, factors[1], 0.0))
    rest = torch.where(whole, rests[0], torch.where(root, rests[1], total))
    return sloped(call, x, total, factor, rest, splits=made[0].splits)
