"""BatchNorm (eq. 10) and the norms that use statistics of their own input (eq. 11).

Statistics are those of the clean total and frozen; only the total is ever used for them. For half
precision they are worked out in float32, as torch's kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.maps import Affine
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.tracing.calls import Call

Mean = Callable[[Tensor], Tensor]
Parameters = tuple[Tensor | None, Tensor | None]
Result = tuple[Any, Any]
_HALF = (torch.float16, torch.bfloat16)


def own_statistics(call: Call, x: Tensor, mean: Mean, parameters: Parameters, eps: float) -> Affine:
    """A norm that uses the statistics of its own input, under the variant's rule.

    Args:
        mean: takes ``(..., *x.shape)`` to its mean over the normalised elements, broadcastable.
        parameters: gamma and beta, broadcastable to the input.
    """
    x_ = x.float() if x.dtype in _HALF else x
    weight, bias = parameters
    centre = mean(x_)
    scale = torch.rsqrt(mean((x_ - centre).square()) + eps)
    scale = scale if weight is None else scale * weight
    if call.variant.norm == "ratio":  # each part is centred by its own mean
        return Affine(
            lambda h: (h - mean(h)) * scale, (x,), call.kept(bias), factor=scale, centred=True
        )
    constant = -centre * scale if bias is None else bias - centre * scale
    return Affine(lambda h: h * scale, (x,), constant, origin="norm", factor=scale)


def _per_channel(value: Tensor | None, ndim: int) -> Tensor | None:
    return None if value is None else value.reshape(-1, *(1,) * (ndim - 2))  # (C, 1, ...)


def _means_over(dims: Sequence[int]) -> Mean:
    return lambda h: _wide(h).mean(tuple(dims), keepdim=True)


def _wide(h: Tensor) -> Tensor:
    return h.float() if h.dtype in _HALF else h


def _require_plain(call: Call, **arguments: Any) -> None:
    """Refuses parts in parameters.

    Raises:
        NoRuleError: one of them carries parts.
    """
    for name, value in arguments.items():
        if call.carries(value):
            raise call.refused(f"its {name} carries parts; it has a rule for its input only")


def _listed(call: Call, linear_map: Affine) -> Result:
    """The results, of which the first is the output and the others are statistics."""
    return call.plain(), [linear_map]


@aten_rule(
    *("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit"),
    *("_native_batch_norm_legit_functional", "_native_batch_norm_legit_no_training"),
    *("_batch_norm_with_update", "_batch_norm_with_update_functional", "_batch_norm_no_update"),
    kind="normalisation",
    equation="eq. 10",
)
def batch_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool | None = None,
    momentum: float = 0.0,
    eps: float = 0.0,
    epsilon: float = 0.0,
    **averaging: float,
) -> Result:
    """BatchNorm in evaluation mode: a constant affine map. Without running statistics it is a norm
    with those of its own input, in either mode.

    Raises:
        NoRuleError: it is in training mode (it would use the batch and change the model).
    """
    training = "_with_update" in str(call.function) if training is None else training
    if training and running_mean is not None:
        raise call.refused("BatchNorm uses batch statistics; call .eval() on the network")
    _require_plain(
        call, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var
    )
    eps, ndim = eps or epsilon, input.dim()
    gamma, beta = _per_channel(weight, ndim), _per_channel(bias, ndim)
    if running_mean is None or running_var is None:
        over = tuple(d - ndim for d in range(ndim) if d != 1)
        return _listed(call, own_statistics(call, input, _means_over(over), (gamma, beta), eps))
    mean, variance = (_wide(_per_channel(v, ndim)) for v in (running_mean, running_var))  # type: ignore[arg-type]
    scale = torch.rsqrt(variance + eps)
    scale = scale if gamma is None else scale * gamma
    constant = -mean * scale if beta is None else beta - mean * scale
    made = Affine(lambda h: h * scale, (input,), constant, origin="batch_norm", factor=scale)
    return _listed(call, made)


@aten_rule("native_layer_norm", kind="normalisation", equation="eq. 11")
def layer_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Result:
    """LayerNorm over its normalised dimensions."""
    _require_plain(call, weight=weight, bias=bias)
    mean = _means_over(range(-len(tuple(normalized_shape)), 0))
    return _listed(call, own_statistics(call, input, mean, (weight, bias), eps))


@aten_rule("native_group_norm", kind="normalisation", equation="eq. 11")
def group_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    eps: float,
) -> Result:
    """GroupNorm: statistics per group of channels."""
    _require_plain(call, weight=weight, bias=bias)
    ndim = input.dim()

    def mean(h: Tensor) -> Tensor:
        groups = _wide(h).unflatten(1 - ndim, (group, -1))  # (..., G, C / G, spatial)
        value = groups.mean(tuple(range(-(ndim - 1), 0)), keepdim=True).expand(
            *(-1,) * (groups.dim() - ndim + 1), groups.shape[1 - ndim], *(-1,) * (ndim - 2)
        )
        return value.flatten(-ndim, 1 - ndim)  # (..., C, 1, ...)

    parameters = (_per_channel(weight, ndim), _per_channel(bias, ndim))
    return _listed(call, own_statistics(call, input, mean, parameters, eps))


@aten_rule("_fused_rms_norm", kind="normalisation", equation="eq. 11 without centring")
def rms_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    eps: float | None,
) -> Result:
    """RMSNorm has no centring step and no constant: one scale for all parts."""
    _require_plain(call, weight=weight)
    dims = tuple(range(-len(tuple(normalized_shape)), 0))
    floor = torch.finfo(input.dtype).eps if eps is None else eps
    scale = torch.rsqrt(_wide(input).square().mean(dims, keepdim=True) + floor)
    scale = scale if weight is None else scale * weight
    return _listed(call, Affine(lambda h: h * scale, (input,)))
