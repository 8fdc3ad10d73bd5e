"""What of an output can be looked at: a map, or a row of numbers."""

from __future__ import annotations

from torch import Tensor

from lmd_cli.errors import ContractError


def shown(output: Tensor, channel: int, name: str) -> Tensor:
    """One sample's output, or a part of it, as it is drawn.

    Args:
        output: (1, C, H, W), (1, C, D, H, W), (1, C), (1, N, C), or (1,).
        channel: which of the C; a vector (1, C) is shown whole.
        name: of the output, for messages.

    Returns:
        a map (H, W), of a volume its middle slice; or numbers (C,) or (N,). Parts that sum to the
        output before do so afterwards, for it only selects.

    Raises:
        ContractError: no such channel, a batch of several, or another shape.
    """
    shape = tuple(output.shape)
    if output.ndim == 0 or output.ndim > 5 or shape[0] != 1:
        raise ContractError(
            f"output {name} has the shape {shape}; expected (1, C), (1, N, C), (1, C, H, W) or "
            "(1, C, D, H, W), with a batch of 1 first"
        )
    one = output[0]
    if one.ndim < 2:
        return one.reshape(-1)
    axis = 1 if one.ndim == 2 else 0
    if channel >= one.shape[axis]:
        raise ContractError(
            f"model.channel is {channel}; output {name} of shape {shape} has the channels 0 to "
            f"{one.shape[axis] - 1}"
        )
    picked = one.select(axis, channel)  # (N,), (H, W) or (D, H, W)
    return picked[picked.shape[0] // 2] if picked.ndim == 3 else picked
