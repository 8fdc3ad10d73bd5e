"""Softmax, which is not elementwise: three linearisations to choose from.

- ``frozen``: the weights are constants of the operating point (Ali et al., "XAI for Transformers",
  2022): all of them is bias, and a product with them is linear in the values.
- ``taylor``: eq. 1 at the operating point: J h for each part with J = diag(y) - y y^T, and the
  remainder y - J x to the bias (as AttnLRP does).
- ``secant``: eq. 9, output / logit, the paper's. It has a pole at every logit near zero, so below
  |logit| = :data:`SOFTMAX_GUARD` the diagonal of J takes its place, and the difference to the
  output goes to the bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenJacobian
from lmd_cli.decomposition.registry import aliases, register_rule
from lmd_cli.decomposition.rules.activation import linearised
from lmd_cli.decomposition.rules.linear import with_bias
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

#: Below this |logit| the secant slope output / logit is replaced.
SOFTMAX_GUARD = 0.1


def secant_slope(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Guarded slope and what it misses of the output, both of the logits' shape."""
    near = x.abs() < SOFTMAX_GUARD
    slope = torch.where(near, y * (1.0 - y), y / torch.where(near, 1.0, x))
    return slope, torch.where(near, y - slope * x, 0.0)


def without_masked(session: Session, x: DecomposedTensor) -> DecomposedTensor:
    """Logits of minus infinity (a mask) as zeros: their weight is 0, and 0 x inf is not."""
    masked = torch.isinf(x.total)
    if not masked.any():
        return x
    return session.make(x.total.masked_fill(masked, 0.0), x.parts.masked_fill(masked, 0.0), x.rows)


@register_rule(*aliases("softmax"), kind="softmax", equation="eq. 9, App. D.2")
def softmax(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    dim: int | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Softmax along one dimension, under the variant's rule."""
    if dim is None:
        raise session.refuse(func, "give the dimension: torch guesses it from the shape")
    total = func(input.total, dim, *args, **kwargs)
    rule = session.variant.softmax
    if rule != "frozen":
        input = without_masked(session, input)
    if rule == "secant":
        slope, missing = secant_slope(input.total.to(total.dtype), total)
        return session.make(total, *linearised(session, input, slope, missing))
    along = dim if dim < 0 else dim - input.total.dim()
    frozen = FrozenJacobian(total.clone(), along, rule == "frozen", input.total.clone())
    session.freeze(frozen)
    if rule == "frozen":
        session.hold_constant(func, "attention weights")
        return session.make(total, total.clone().unsqueeze(0), (session.layout.bias,))
    parts = frozen.jacobian(input.parts)
    return with_bias(session, total, parts, input.rows, frozen.remainder)
