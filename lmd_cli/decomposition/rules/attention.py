"""Fused attention, taken apart into projections, products and a softmax that have rules.

The total stays what the fused operator computes, bit for bit; the parts are those of the single
operations, so they sum to it up to the rounding between the two.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.tracing.calls import Call

Result = tuple[Any, Any]
_NESTED = (
    "nested tensors have no rule; call torch.backends.mha.set_fastpath_enabled(False), or give the "
    "encoder enable_nested_tensor=False"
)


def masked_scores(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """Scores of all keys for all queries, (..., L, S), minus infinity where masked."""
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)  # (..., L, S)
    if causal:
        lower = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~lower, -torch.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return scores


def _unless_hidden(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, 0 where all of a row is masked."""
    hidden = (scores == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(hidden, 0.0), -1).masked_fill(hidden, 0.0)


@aten_rule(
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    "_scaled_dot_product_fused_attention_overrideable",
    kind="composite",
    equation="App. D.2",
)
def attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
    **reports: bool,
) -> Result:
    """``softmax(q k^T scale + mask) v`` for (B, heads, L, E), (B, heads, S, E), (B, heads, S, Ev);
    fewer heads of keys and values serve several of the query each.

    Raises:
        NoRuleError: dropout is on.
    """
    if dropout_p > 0:
        raise call.refused("dropout is random; call .eval() on the network")
    mask, total = attn_mask if attn_bias is None else attn_bias, call.plain()
    call.may_mask(mask)

    def made() -> Tensor:
        groups = query.shape[-3] // key.shape[-3]
        k, v = (x if groups == 1 else x.repeat_interleave(groups, -3) for x in (key, value))
        return _unless_hidden(masked_scores(query, k, mask, is_causal, scale)) @ v

    return total, [call.compose(made)]


@aten_rule("_native_multi_head_attention", kind="composite", equation="App. D.2")
def multi_head(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> Result:
    """The fast path of ``nn.MultiheadAttention``, (B, L, E): attention output and weights."""
    _refuse_nested(call, query)
    total, joint = call.plain(), _joint_mask(mask, mask_type, query, num_head)
    call.may_mask(mask)
    apart = not need_weights and _runs_apart(call, total[0])

    def made() -> tuple[Tensor, Tensor]:
        weights = (qkv_weight, qkv_bias, proj_weight, proj_bias)
        return _multi_head((query, key, value), num_head, *weights, joint, apart)

    out, shares = call.compose(made)
    if not need_weights:
        return (out if apart else total[0], total[1]), [out]
    averaged = call.compose(lambda: shares.mean(1) if average_attn_weights else shares)
    return total, [out, averaged]


def _multi_head(
    inputs: tuple[Tensor, Tensor, Tensor],
    heads: int,
    weight: Tensor,
    bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None,
    apart: bool,
) -> tuple[Tensor, Tensor]:
    """Output (B, L, E) and weights (B, heads, L, S), as the single operations give them where
    every key is masked: 0 (``apart``), or as the fused one: NaN."""
    rows = zip(inputs, weight.chunk(3), bias.chunk(3), strict=True)
    q, k, v = (F.linear(x, w, b).unflatten(-1, (heads, -1)).transpose(1, 2) for x, w, b in rows)
    scores = masked_scores(q, k, mask, False, None)
    shares = _unless_hidden(scores) if apart else torch.softmax(scores, -1)
    mixed = (shares @ v).transpose(1, 2).flatten(2)
    return F.linear(mixed, proj_weight, proj_bias), shares


def _runs_apart(call: Call, fused: Tensor) -> bool:
    """Whether the plain call gets numbers where the fused operator gives NaN (every key masked):
    it records gradients, and torch then runs the single operations."""
    return call.gradients and bool(torch.isnan(fused).any())


def _joint_mask(mask: Tensor | None, kind: int | None, x: Tensor, heads: int) -> Tensor | None:
    """The mask as one of (B, heads, L, S), True where attended; 0 is of (L, S), 1 of padding."""
    if mask is None:
        return None
    if kind == 1 and mask.dim() == 2:
        mask = mask[:, None, None, :]
    return ~mask if mask.dtype == torch.bool else mask == 0


def _refuse_nested(call: Call, x: Tensor) -> None:
    if x.is_nested:
        raise call.refused(_NESTED)


@aten_rule("_transformer_encoder_layer_fwd", kind="composite", equation="App. D.2")
def encoder_layer(
    call: Call,
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Result:
    """The fast path of ``nn.TransformerEncoderLayer``, (B, L, E)."""
    _refuse_nested(call, src)
    joint = _joint_mask(mask, mask_type, src, num_heads)
    gelu = partial(F.gelu, approximate="tanh" if src.is_cuda else "none")  # as its kernels do
    activation = gelu if use_gelu else F.relu
    call.may_mask(mask)
    total = call.plain()
    apart = _runs_apart(call, total)

    def attended(x: Tensor) -> Tensor:
        weights = (qkv_weight, qkv_bias, proj_weight, proj_bias)
        return _multi_head((x, x, x), num_heads, *weights, joint, apart)[0]

    def forward(x: Tensor) -> Tensor:
        inner = activation(F.linear(x, ffn_weight_1, ffn_bias_1))
        return F.linear(inner, ffn_weight_2, ffn_bias_2)

    def first(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    def made() -> Tensor:
        if norm_first:
            x = src + attended(first(src))
            return x + forward(second(x))
        x = first(src + attended(src))
        return second(x + forward(x))

    out = call.compose(made)
    return (out if apart else total), out


@aten_rule("_nested_tensor_from_mask", kind="refused", equation=_NESTED)
def nested(call: Call, **arguments: Any) -> Result:
    """Padded sequences as one nested tensor.

    Raises:
        NoRuleError: always.
    """
    raise call.refused(_NESTED)
