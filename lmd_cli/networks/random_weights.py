"""Seeded random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def random_weights(module: nn.Module, seed: int = 0) -> None:
    """Give ``module`` seeded random weights whose predictions are not degenerate.

    The values depend on the seed and on the order and shapes of the parameters, and on nothing
    else: the global random state is neither read nor changed. Convolutions keep the variance of
    their input, and BatchNorm gets statistics near 0 and 1, so that a deep network stays in range
    in evaluation mode.

    Args:
        module: changed in place.
        seed: any integer.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(random_value(name, value.shape, generator))
            else:
                value.zero_()


def random_value(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Random value of one entry of a state dict; see :func:`random_weights`."""
    noise = torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        return noise * shape[1:].numel() ** -0.5
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.1 * noise
    return 0.1 * noise
