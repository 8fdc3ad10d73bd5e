"""Softmax, which is not elementwise: three linearisations to choose from.

- ``frozen``: the weights are constants of the operating point (Ali et al., "XAI for Transformers",
  2022): all of them is bias, and a product with them is linear in the values.
- ``taylor``: eq. 1 at the operating point: J h for each part with J = diag(y) - y y^T, and the
  remainder y - J x to the bias (as AttnLRP does).
- ``secant``: eq. 9, output / logit, the paper's. It has a pole at every logit near zero, so below
  |logit| = :data:`SOFTMAX_GUARD` the diagonal of J takes its place, and the difference to the
  output goes to the bias.

A logit of minus infinity (a mask) has weight 0 and passes nothing on. For the logarithm of a sum of
exponentials eq. 9 has no form (many inputs, one output), so ``secant`` takes J = softmax(x) too;
``log_softmax`` is x minus this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition import secants
from lmd_cli.decomposition.maps import Affine, constant
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.activation import guarded
from lmd_cli.decomposition.rules.common import behind_rows
from lmd_cli.decomposition.tracing.calls import Call, Result

#: Below this |logit| the secant slope output / logit is replaced.
SOFTMAX_GUARD = 0.1


@aten_rule("_softmax", "_safe_softmax", kind="softmax", equation="eq. 9, App. D.2")
def softmax(call: Call, input: Tensor, dim: int, *options: Any, **named: Any) -> Result:
    """Softmax along one dimension, under the variant's rule."""
    total = call.plain()
    if call.variant.softmax == "frozen":
        call.hold("attention weights")
        secant = secants.softmax(input, behind_rows(dim, input.dim()))
        return total, replace(constant(call.kept(total)), secant=secant)
    return total, weights_map(call, input, dim, total)


def weights_map(call: Call, input: Tensor, dim: int, total: Tensor) -> Affine:
    """``taylor`` and ``secant``."""
    masked, y = torch.isinf(input), call.kept(total)
    x = input.to(total.dtype).masked_fill(masked, 0.0)
    if call.variant.softmax == "secant":
        slope, missing = guarded(y, x, y * (1.0 - y), SOFTMAX_GUARD)
        return Affine(lambda h: h.masked_fill(masked, 0.0) * slope, (input,), missing, splits=True)

    def jacobian(h: Tensor) -> Tensor:
        weighted = y * h.masked_fill(masked, 0.0)
        if not y.dim():
            return weighted - y * weighted
        return weighted - y * weighted.sum(behind_rows(dim, y.dim()), keepdim=True)

    return Affine(jacobian, (input,), y - jacobian(x.unsqueeze(0))[0])


@aten_rule("logsumexp", kind="softmax", equation="eq. 1, App. D.2")
def logsumexp(call: Call, input: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Result:
    """log(sum(exp(x))) over some dimensions: a constant where attention weights are."""
    total, ndim = call.plain(), input.dim()
    dims = tuple([dim] if isinstance(dim, int) else dim) or tuple(range(ndim))
    if call.variant.softmax == "frozen":
        over = tuple(behind_rows(d, ndim) for d in dims)
        secant = secants.logsumexp(input, over, keepdim)
        return total, replace(constant(call.kept(total)), secant=secant)
    weights = torch.exp(input - torch.logsumexp(input, dims, keepdim=True)).nan_to_num(0.0)
    over = tuple(behind_rows(d, ndim) for d in dims) if ndim else ()

    def weighted(h: Tensor) -> Tensor:
        terms = torch.where(weights == 0, 0.0, weights * h)
        return terms.sum(over, keepdim=keepdim) if over else terms

    return total, Affine(weighted, (input,), total - weighted(input.unsqueeze(0))[0])


@aten_rule("_log_softmax", kind="composite", equation="eq. 6, App. D.2")
def log_softmax(call: Call, input: Tensor, dim: int, half_to_float: bool) -> Result:
    """x - logsumexp(x)."""

    def made() -> Tensor:
        x = input.float() if half_to_float else input
        return x - torch.logsumexp(x, dim, keepdim=True)

    return call.plain(), call.compose(made)
