"""Fused attention, taken apart into projections, products and a softmax that have rules.

The total stays what the fused operator computes, bit for bit; the parts are those of the single
operations, so they sum to it up to the rounding between the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.refusals import NESTED
from lmd_cli.decomposition.tracing.calls import Call, Result


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
    call: Call, query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0, **given: Any
) -> Result:
    """``softmax(q k^T scale + mask) v`` for (B, heads, L, E), (B, heads, S, E), (B, heads, S, Ev);
    fewer heads of keys and values serve several of the query each.

    Raises:
        NoRuleError: dropout is on.
    """
    if dropout_p > 0:
        raise call.refused("dropout is random; call .eval() on the network")
    mask, total = given.get("attn_bias", given.get("attn_mask")), call.plain()
    causal, scale = given.get("is_causal", False), given.get("scale")
    call.may_mask(mask)

    def made() -> Tensor:
        groups = query.shape[-3] // key.shape[-3]
        k, v = (x if groups == 1 else x.repeat_interleave(groups, -3) for x in (key, value))
        return _unless_hidden(masked_scores(query, k, mask, causal, scale)) @ v

    return total, [call.compose(made)]


# -- the fast paths of torch's modules ------------------------------------------------------------


@aten_rule("_native_multi_head_attention", kind="composite", equation="App. D.2")
def multi_head(
    call: Call, query: Tensor, key: Tensor, value: Tensor, num_head: int, **given: Any
) -> Result:
    """The fast path of ``nn.MultiheadAttention``, (B, L, E): attention output and weights."""
    total, mask = _fused(call, query, given)
    need_weights, averages = (given.get(k, True) for k in ("need_weights", "average_attn_weights"))
    apart = not need_weights and _runs_apart(call, total[0])
    inputs = (query, key, value)
    out, shares = call.compose(_multi_head, inputs, num_head, given, mask, apart)
    if not need_weights:
        return (out if apart else total[0], total[1]), [out]
    averaged = call.compose(lambda: shares.mean(1) if averages else shares)
    return total, [out, averaged]


@aten_rule("_transformer_encoder_layer_fwd", kind="composite", equation="App. D.2")
def encoder_layer(call: Call, src: Tensor, **given: Any) -> Result:
    """The fast path of ``nn.TransformerEncoderLayer``, (B, L, E)."""
    total, mask = _fused(call, src, given)
    apart = _runs_apart(call, total)
    gelu = partial(F.gelu, approximate="tanh" if src.is_cuda else "none")  # as its kernels do
    activation = gelu if given["use_gelu"] else F.relu

    def attended(x: Tensor) -> Tensor:
        return _multi_head((x, x, x), given["num_heads"], given, mask, apart)[0]

    def linear(x: Tensor, i: int) -> Tensor:
        return F.linear(x, given[f"ffn_weight_{i}"], given[f"ffn_bias_{i}"])

    def norm(x: Tensor, i: int) -> Tensor:
        weight, bias = given[f"norm_weight_{i}"], given[f"norm_bias_{i}"]
        return F.layer_norm(x, (given["embed_dim"],), weight, bias, given["eps"])

    def made() -> Tensor:
        if given["norm_first"]:
            x = src + attended(norm(src, 1))
            return x + linear(activation(linear(norm(x, 2), 1)), 2)
        x = norm(src + attended(src), 1)
        return norm(x + linear(activation(linear(x, 1)), 2), 2)

    out = call.compose(made)
    return (out if apart else total), out


def _fused(call: Call, x: Tensor, given: dict[str, Any]) -> tuple[Any, Tensor | None]:
    """The total, and the mask as one of (B, heads, L, S), True where attended; ``mask_type`` 0 is
    of (L, S), 1 of padding."""
    if x.is_nested:
        raise call.refused(NESTED)
    mask = given.get("mask")
    call.may_mask(mask)
    total = call.plain()
    if mask is None:
        return total, None
    if given.get("mask_type") == 1 and mask.dim() == 2:
        mask = mask[:, None, None, :]
    return total, ~mask if mask.dtype == torch.bool else mask == 0


def _runs_apart(call: Call, fused: Tensor) -> bool:
    """Whether the plain call gets numbers where the fused operator gives NaN (every key masked):
    it records gradients, and torch then runs the single operations."""
    return call.gradients and bool(torch.isnan(fused).any())


def _multi_head(
    inputs: Sequence[Tensor], heads: int, given: dict[str, Any], mask: Tensor | None, apart: bool
) -> tuple[Tensor, Tensor]:
    """Output (B, L, E) and weights (B, heads, L, S), as the single operations give them where
    every key is masked: 0 (``apart``), or as the fused one: NaN."""
    rows = zip(inputs, given["qkv_weight"].chunk(3), given["qkv_bias"].chunk(3), strict=True)
    q, k, v = (F.linear(x, w, b).unflatten(-1, (heads, -1)).transpose(1, 2) for x, w, b in rows)
    scores = masked_scores(q, k, mask, False, None)
    shares = _unless_hidden(scores) if apart else torch.softmax(scores, -1)
    mixed = (shares @ v).transpose(1, 2).flatten(2)
    return F.linear(mixed, given["proj_weight"], given["proj_bias"]), shares
