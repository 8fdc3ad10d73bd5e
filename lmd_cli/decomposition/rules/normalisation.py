"""BatchNorm (eq. 10) and the norms that use statistics of their own input (eq. 11).

With the scale g = gamma / sqrt(variance + eps):

- eq. 10 (BatchNorm, ``identity``, ``uniform``): f(h_m) = g h_m, and the constant beta - g mean;
- eq. 11 (``ratio``): f(h_m) = g (h_m - E[h_m]), and the constant beta.

Statistics are those of the clean total and frozen; only the total is ever used for them. For half
precision they are worked out in float32, as torch's kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition import secants
from lmd_cli.decomposition.maps import Affine, Origin
from lmd_cli.decomposition.memory import times
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.tracing.calls import Call, Result

Mean = Callable[[Tensor], Tensor]
_HALF = (torch.float16, torch.bfloat16)


def own_statistics(
    call: Call, x: Tensor, mean: Mean, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Result:
    """A norm that uses the statistics of its own input, under the variant's rule.

    Args:
        mean: takes ``(..., *x.shape)`` to its mean over the normalised elements, broadcastable.
        weight, bias: gamma and beta, broadcastable to the input.
    """
    centre = mean(x)
    scale = _scale(mean((x - centre).square()), weight, eps)
    if call.variant.norm != "ratio":
        return rescaled(call, x, centre, scale, bias, "norm")

    def run(h: Tensor) -> Tensor:
        return times(h - mean(h), scale)  # each part is centred by its own mean

    secant = secants.normalised(x, mean, weight, eps)
    made = Affine(run, (x,), call.kept(bias), factor=scale, centred=True, secant=secant)
    return call.plain(), [made]


def rescaled(
    call: Call, x: Tensor, mean: Tensor, scale: Tensor, bias: Tensor | None, origin: Origin
) -> Result:
    """Eq. 10."""
    constant = -mean * scale if bias is None else bias - mean * scale
    made = Affine(lambda h: h * scale, (x,), constant, origin=origin, factor=scale)
    return call.plain(), [made]  # the other results are statistics


def _scale(variance: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    scale = torch.rsqrt(variance + eps)
    return scale if weight is None else scale * weight


def _per_channel(value: Tensor | None, ndim: int) -> Any:
    return None if value is None else value.reshape(-1, *(1,) * (ndim - 2))  # (C, 1, ...)


def _means_over(dims: Sequence[int]) -> Mean:
    return lambda h: _wide(h).mean(tuple(dims), keepdim=True)


def _wide(h: Tensor) -> Tensor:
    return h.float() if h.dtype in _HALF else h


def _require_plain(call: Call) -> None:
    """Refuses parts in parameters."""
    for name, value in call.given.items():
        if name != "input" and call.carries(value):
            raise call.refused(f"its {name} carries parts; it has a rule for its input only")


@aten_rule(
    *("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit"),
    *("_native_batch_norm_legit_functional", "_native_batch_norm_legit_no_training"),
    *("_batch_norm_with_update", "_batch_norm_with_update_functional", "_batch_norm_no_update"),
    kind="normalisation",
    equation="eq. 10",
)
def batch_norm(
    call: Call, input: Tensor, eps: float = 0.0, epsilon: float = 0.0, **given: Any
) -> Result:
    """BatchNorm in evaluation mode: a constant affine map. Without running statistics it is a norm
    with those of its own input, in either mode.

    Raises:
        NoRuleError: it is in training mode (it would use the batch and change the model).
    """
    training = given.get("training", "_with_update" in str(call.function))
    if training and given.get("running_mean") is not None:
        raise call.refused("BatchNorm uses batch statistics; call .eval() on the network")
    _require_plain(call)
    ndim = input.dim()
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (_per_channel(given.get(name), ndim) for name in names)
    if mean is None or variance is None:
        over = _means_over([d - ndim for d in range(ndim) if d != 1])
        return own_statistics(call, input, over, gamma, beta, eps or epsilon)
    scale = _scale(_wide(variance), gamma, eps or epsilon)
    return rescaled(call, input, _wide(mean), scale, beta, "batch_norm")


@aten_rule("native_layer_norm", kind="normalisation", equation="eq. 11")
def layer_norm(call: Call, input: Tensor, normalized_shape: Sequence[int], **given: Any) -> Result:
    """LayerNorm over its normalised dimensions."""
    _require_plain(call)
    return own_statistics(call, input, _means_over(range(-len(normalized_shape), 0)), **given)


@aten_rule("native_group_norm", kind="normalisation", equation="eq. 11")
def group_norm(call: Call, input: Tensor, C: int, group: int, eps: float, **given: Any) -> Result:
    """GroupNorm: statistics per group of channels."""
    _require_plain(call)
    ndim = input.dim()

    def mean(h: Tensor) -> Tensor:
        groups = _wide(h).unflatten(1 - ndim, (group, C // group))  # (..., G, C / G, spatial)
        means = groups.mean(tuple(range(1 - ndim, 0)), keepdim=True).squeeze(1 - ndim)
        return means.repeat_interleave(C // group, 1 - ndim)  # (..., C, 1, ...)

    gamma, beta = (_per_channel(given.get(name), ndim) for name in ("weight", "bias"))
    return own_statistics(call, input, mean, gamma, beta, eps)


@aten_rule("_fused_rms_norm", kind="normalisation", equation="eq. 11 without centring")
def rms_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Any, eps: float | None
) -> Result:
    """RMSNorm has no centring step and no constant: one scale for all parts."""
    _require_plain(call)
    mean = _means_over(range(-len(normalized_shape), 0))
    floor = torch.finfo(input.dtype).eps if eps is None else eps
    scale = _scale(mean(_wide(input).square()), weight, floor)
    secant = secants.normalised(input, mean, weight, floor, centred=False)
    return call.plain(), [Affine(lambda h: h * scale, (input,), secant=secant)]
