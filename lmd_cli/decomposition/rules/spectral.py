"""Fourier transforms and complex numbers: linear, part by part (eq. 13).

Activations have no slope at a complex number; sums, products, reshapes and complex weights have
the same rules as for real tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.common import jointly_linear
from lmd_cli.decomposition.rules.linear import along, leading, linear_operators
from lmd_cli.decomposition.tracing.calls import Call

linear_operators("_fft_r2c _fft_c2r _fft_c2c", along("dim"))
linear_operators("conj_physical _conj_physical", leading)


@aten_rule("complex", kind="sum", equation="eq. 6")
def complex_numbers(call: Call, real: Tensor, imag: Tensor) -> tuple[Tensor, Any]:
    """real + i imag."""
    return call.plain(), jointly_linear(call, torch.complex, (real, imag))
