"""BatchNorm (eq. 10) and the norms that use statistics of their own input (eq. 11).

Statistics are those of the clean total and frozen; only the total is ever used for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.frozen import FrozenAffine, FrozenCentred, Origin
from lmd_cli.decomposition.registry import aliases, register_rule
from lmd_cli.decomposition.rules.common import require_plain
from lmd_cli.decomposition.rules.linear import with_bias
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

Mean = Callable[[Tensor], Tensor]


def affine(
    session: Session,
    x: DecomposedTensor,
    total: Tensor,
    scale: Tensor,
    constant: Tensor,
    split: str,
    origin: Origin,
) -> DecomposedTensor:
    """Eq. 10: ``scale * part`` for each, the constant to the bias or to all in equal shares.

    Args:
        scale: gamma / sqrt(var + eps), broadcastable to the total.
        constant: beta - mean * scale, broadcastable to the total.
        split: ``identity`` or ``uniform``.
        origin: which kind of norm the constant is of.
    """
    session.freeze(FrozenAffine(scale, constant, split, origin))
    layout = session.layout
    if split == "identity":
        return with_bias(session, total, x.parts * scale, x.rows, constant)
    rows = layout.all_with(x.rows)
    parts = x.expand_rows(rows) * scale
    parts[: layout.bias + 1] += layout.uniform_share * constant
    return session.make(total, parts, rows)


def centred(
    session: Session,
    x: DecomposedTensor,
    total: Tensor,
    mean: Mean,
    scale: Tensor,
    shift: Tensor | None,
) -> DecomposedTensor:
    """Eq. 11: each part is centred by its own mean and scaled by the clean deviation.

    Args:
        mean: takes ``(..., *total.shape)`` to its mean over the normalised elements, broadcastable.
        scale: gamma / sqrt(var + eps), broadcastable to the total.
        shift: beta, for the bias part.
    """
    session.freeze(FrozenCentred(scale, shift, mean))
    parts = torch.sub(x.parts, mean(x.parts))
    parts = parts.mul(scale) if torch.is_grad_enabled() else parts.mul_(scale)
    return with_bias(session, total, parts, x.rows, shift)


def own_statistics(
    session: Session,
    x: DecomposedTensor,
    total: Tensor,
    mean: Mean,
    affine_parameters: tuple[Tensor | None, Tensor | None],
    eps: float,
) -> DecomposedTensor:
    """A norm that uses the statistics of its own input, under the variant's rule."""
    weight, bias = affine_parameters
    centre = mean(x.total)
    variance = mean((x.total - centre).square())
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    if session.variant.norm == "ratio":
        return centred(session, x, total, mean, scale, bias)
    constant = -centre * scale if bias is None else bias - centre * scale
    return affine(session, x, total, scale, constant, session.variant.norm, "norm")


def _per_channel(value: Tensor | None, ndim: int) -> Tensor | None:
    return None if value is None else value.reshape(-1, *(1,) * (ndim - 2))  # (C, 1, ...)


def _means_over(dims: Sequence[int]) -> Mean:
    return lambda h: h.mean(tuple(dims), keepdim=True)


@register_rule(F.batch_norm, kind="normalisation", equation="eq. 10")
def batch_norm(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """BatchNorm in evaluation mode: a constant affine map.

    Raises:
        NoRuleError: it is in training mode (it would use the batch and change the model). Without
            running statistics it is a norm with those of its own input, in either mode.
    """
    if training and running_mean is not None:
        raise session.refuse(func, "BatchNorm uses batch statistics; call .eval() on the network")
    require_plain(session, func, weight=weight, bias=bias)
    total = func(input.total, running_mean, running_var, weight, bias, training, momentum, eps)
    if running_mean is None or running_var is None:
        return _batch_statistics(session, input, total, (weight, bias), eps)
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    constant = -running_mean * scale if bias is None else bias - running_mean * scale
    shape = (-1, *(1,) * (input.total.dim() - 2))
    return affine(
        session,
        input,
        total,
        scale.reshape(shape),
        constant.reshape(shape),
        session.variant.batch_norm,
        "batch_norm",
    )


def _batch_statistics(
    session: Session, x: DecomposedTensor, total: Tensor, parameters: Any, eps: float
) -> Any:
    """BatchNorm that keeps no running statistics: those of its own input, in evaluation too."""
    ndim = x.total.dim()
    over = tuple(d - ndim for d in range(ndim) if d != 1)
    weight, bias = (_per_channel(value, ndim) for value in parameters)
    return own_statistics(session, x, total, _means_over(over), (weight, bias), eps)


@register_rule(F.instance_norm, kind="normalisation", equation="eq. 11")
def instance_norm(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """InstanceNorm; with running statistics in evaluation mode it is a BatchNorm."""
    if not use_input_stats:
        return batch_norm(
            session,
            F.batch_norm,
            input,
            running_mean,
            running_var,
            weight,
            bias,
            False,
            momentum,
            eps,
        )
    if running_mean is not None:
        raise session.refuse(func, "InstanceNorm updates running statistics; call .eval()")
    require_plain(session, func, weight=weight, bias=bias)
    ndim = input.total.dim()
    total = func(input.total, weight=weight, bias=bias, momentum=momentum, eps=eps)
    mean = _means_over(range(2 - ndim, 0))
    parameters = (_per_channel(weight, ndim), _per_channel(bias, ndim))
    return own_statistics(session, input, total, mean, parameters, eps)


@register_rule(*aliases("layer_norm"), kind="normalisation", equation="eq. 11")
def layer_norm(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *cudnn: bool,
) -> Any:
    """LayerNorm over its normalised dimensions."""
    require_plain(session, func, weight=weight, bias=bias)
    total = func(input.total, normalized_shape, weight, bias, eps)
    mean = _means_over(range(-len(tuple(normalized_shape)), 0))
    return own_statistics(session, input, total, mean, (weight, bias), eps)


@register_rule(*aliases("group_norm"), kind="normalisation", equation="eq. 11")
def group_norm(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *cudnn: bool,
) -> Any:
    """GroupNorm: statistics per group of channels."""
    require_plain(session, func, weight=weight, bias=bias)
    total = func(input.total, num_groups, weight, bias, eps)
    ndim = input.total.dim()

    def mean(h: Tensor) -> Tensor:
        groups = h.unflatten(1 - ndim, (num_groups, -1))  # (..., G, C / G, spatial)
        value = groups.mean(tuple(range(-(ndim - 1), 0)), keepdim=True).expand(
            *(-1,) * (groups.dim() - ndim + 1), groups.shape[1 - ndim], *(-1,) * (ndim - 2)
        )
        return value.flatten(-ndim, 1 - ndim)  # (..., C, 1, ...)

    parameters = (_per_channel(weight, ndim), _per_channel(bias, ndim))
    return own_statistics(session, input, total, mean, parameters, eps)


@register_rule(*aliases("rms_norm"), kind="normalisation", equation="eq. 11 without centring")
def rms_norm(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    """RMSNorm has no centring step and no constant: one scale for all parts."""
    require_plain(session, func, weight=weight)
    total = func(input.total, normalized_shape, weight, eps)
    dims = tuple(range(-len(tuple(normalized_shape)), 0))
    floor = torch.finfo(input.total.dtype).eps if eps is None else eps
    scale = torch.rsqrt(input.total.square().mean(dims, keepdim=True) + floor)
    scale = scale if weight is None else scale * weight
    session.freeze(FrozenAffine(scale, torch.zeros_like(scale), "identity"))
    return session.make(total, input.parts * scale, input.rows)


@register_rule(F.normalize, kind="normalisation", equation="eq. 11 without centring")
def normalize(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
    out: Tensor | None = None,
) -> Any:
    """Division by the norm of the total, a frozen statistic."""
    total = func(input.total, p, dim, eps)
    scale = 1.0 / torch.linalg.vector_norm(input.total, p, dim, keepdim=True).clamp_min(eps)
    session.freeze(FrozenAffine(scale, torch.zeros_like(scale), "identity"))
    return session.make(total, input.parts * scale, input.rows)


@register_rule(F.local_response_norm, kind="normalisation", equation="eq. 11 without centring")
def local_response_norm(
    session: Session,
    func: Any,
    input: DecomposedTensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Any:
    """Division by a power of the neighbouring channels' mean square, a frozen statistic."""
    total = func(input.total, size, alpha, beta, k)
    squares = input.total.square().transpose(1, -1)  # (B, ..., C): channels last
    padded = F.pad(squares, (size // 2, (size - 1) // 2)).unfold(-1, size, 1).mean(-1)
    scale = (k + alpha * padded.transpose(1, -1)) ** -beta
    session.freeze(FrozenAffine(scale, torch.zeros_like(scale), "identity"))
    return session.make(total, input.parts * scale, input.rows)
