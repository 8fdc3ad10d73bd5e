"""A Triton kernel inside a custom autograd function. Import it where there is a GPU."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _double(x, out, n, block: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(out + at, 2.0 * tl.load(x + at, mask=at < n), mask=at < n)


def double(x: Tensor) -> Tensor:
    """2 x."""
    x, out = x.contiguous(), torch.empty_like(x)
    _double[(triton.cdiv(x.numel(), 256),)](x, out, x.numel(), block=256)
    return out


class Doubled(torch.autograd.Function):
    """2 x, by the kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return double(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return double(gradient)
