"""PyTorch's fused transformer modules in evaluation mode, whose plain result is not that of their
single operations.

``nn.MultiheadAttention``, ``nn.TransformerEncoderLayer`` and ``nn.TransformerEncoder`` run one
fused kernel for plain tensors and single operations for tensor subclasses, and the two round
differently. The total must be what the plain network computes, bit for bit; so the plain module
runs too, and its result takes the place of the total.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lmd_cli.decomposition.errors import LeakError
from lmd_cli.decomposition.tensor import DecomposedTensor
from lmd_cli.decomposition.tree import plain_tree

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)

#: Largest difference between the two ways, relative to the largest value.
_ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-3}


def may_be_fused(module: nn.Module) -> bool:
    """Whether a plain call of the module could take the fused kernel."""
    return isinstance(module, FUSED) and not module.training and _enabled() and not _hooked(module)


def _enabled() -> bool:
    return bool(torch.backends.mha.get_fastpath_enabled())


def _hooked(module: nn.Module) -> bool:
    """Hooks keep torch from fusing, and must not run twice."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def plain_result(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """What the module gives for plain tensors, without the door (which keeps torch from fusing)."""
    with torch._C.DisableTorchFunction():
        return module.forward(*plain_tree(args), **plain_tree(kwargs))


def with_fused_totals(made: Any, fused: Any, where: str) -> list[tuple[DecomposedTensor, Tensor]]:
    """Decomposed outputs, each with the total that the fused kernel gives.

    Raises:
        LeakError: the kernel computes something else (zeros for padding, say).
    """
    outputs, totals = (x if isinstance(x, tuple) else (x,) for x in (made, fused))
    pairs = [
        (x, total)
        for x, total in zip(outputs, totals, strict=True)
        if isinstance(x, DecomposedTensor)
    ]
    for x, total in pairs:
        scale = max(float(x.total.abs().max()), 1e-30) if x.total.numel() else 1.0
        same = x.total.shape == total.shape
        far = not same or float((x.total - total).abs().max()) / scale > _tolerance(total)
        if x.total.numel() and far:
            raise LeakError(
                f"{where}: torch's fused kernel gives other values than its single operations (for "
                "padded positions, say); call torch.backends.mha.set_fastpath_enabled(False)"
            )
    return pairs


def _tolerance(total: Tensor) -> float:
    return _ROUNDING.get(total.dtype, 0.1)
