"""Fused attention, taken apart into projections, products and a softmax that have rules.

The total stays what the fused function computes, bit for bit; the parts are those of the single
operations, so they sum to it up to the rounding between the two.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import register_rule
from lmd_cli.decomposition.rules.composite import COMPOSED, composite
from lmd_cli.decomposition.tensor import plain

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

#: Stands for minus infinity in masked logits: its softmax is 0, and 0 times it is 0.
MASKED = -1e4


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(q k^T scale + mask) v`` for (..., L, E), (..., S, E), (..., S, Ev)."""
    if enable_gqa:  # (..., key heads, S, E): each serves several heads of the query
        groups = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(groups, -3) for x in (key, value))
    return attention_weights(query, key, attn_mask, is_causal, scale) @ value


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """The softmax of the masked scores, (..., L, S)."""
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)  # (..., L, S)
    if causal and mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, MASKED)
    elif mask is not None:
        scores = scores + mask.clamp(min=MASKED)
    return torch.softmax(scores, -1)


def multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What ``nn.MultiheadAttention`` computes, for (L, B, E) or unbatched (L, E) tensors."""
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    weights = separate if in_proj_weight is None else in_proj_weight.chunk(3)
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    unbatched = query.dim() == 2
    heads = [
        _heads(F.linear(x.unsqueeze(1) if unbatched else x, weight, bias), num_heads)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        if weight is not None
    ]  # (B, heads, L, E / heads)
    mask = _joint_mask(attn_mask, key_padding_mask, num_heads, heads[0])
    shares = attention_weights(heads[0], heads[1], mask, False, None)  # (B, heads, L, S)
    mixed = (shares @ heads[2]).permute(2, 0, 1, 3).flatten(2)  # (L, B, E)
    out = F.linear(mixed, out_proj_weight, out_proj_bias)
    shown = shares.mean(1) if average_attn_weights else shares
    if unbatched:
        out, shown = out.squeeze(1), shown.squeeze(0)
    return out, shown if need_weights else None


def _heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).permute(1, 2, 0, 3)  # (L, B, E) -> (B, heads, L, E / heads)


def _joint_mask(
    mask: Tensor | None, padding: Tensor | None, heads: int, like: Tensor
) -> Tensor | None:
    """Both masks as one that is added to (B, heads, L, S) scores; True means left out."""
    joint = None
    if mask is not None:
        joint = _additive(mask, like)
        joint = joint.unflatten(0, (-1, heads)) if joint.dim() == 3 else joint
    if padding is not None:
        column = _additive(padding, like)[..., None, None, :]
        joint = column if joint is None else (joint + column)
    return joint


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(
            mask, MASKED
        )
    return mask.clamp(min=MASKED)


_FUSED: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention,
    F.multi_head_attention_forward: multi_head,
}
COMPOSED.update(_FUSED)


@register_rule(*_FUSED, kind="composite", equation="App. D.2")
def fused(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """Fused attention: the plain call for the total, its single operations for the parts.

    Raises:
        NoRuleError: an option that changes what is computed and that has no rule (dropout,
            added keys, static keys).
    """
    _refuse_options(session, func, args, kwargs)
    return composite(session, func, *args, **kwargs)


def _refuse_options(session: Session, func: Any, args: Any, kwargs: Any) -> None:
    names = inspect.signature(_FUSED[func]).bind(*args, **kwargs).arguments
    dropout = names.get("dropout_p", 0.0) > 0 and names.get("training", True)
    if dropout:
        raise session.refuse(func, "dropout is random; call .eval() on the network")
    absent = ("bias_k", "bias_v", "add_zero_attn", "static_k", "static_v")
    for name in absent:
        value = plain(names.get(name))
        if value is not None and value is not False:
            raise session.refuse(func, f"{name} has no rule")
