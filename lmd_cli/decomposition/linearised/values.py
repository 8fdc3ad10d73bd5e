"""The values of a program that runs: a buffer for each storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmd_cli.decomposition.memory import Buffer, Place

if TYPE_CHECKING:
    from lmd_cli.decomposition.linearised.program import Output, Step

Env = dict[int, Buffer]


def read(env: Env, place: Place) -> Tensor | None:
    """A stack ``(rows, *shape)``, ``None`` where it is zero."""
    buffer = env.get(place.key)
    return None if buffer is None else buffer.read(place)


def store(env: Env, step: Step, output: Output, stack: Tensor | None) -> None:
    """Puts a result where it lies; ``None`` is zero."""
    place = output.place
    if stack is None and (step.fresh or place.key not in env):
        env.pop(place.key, None)
        return
    if stack is not None and step.fresh:
        keep(env, place, stack)
        return
    if place.key not in env:  # zero so far
        assert stack is not None
        start, n = output.whole
        zeros = stack.new_zeros((len(stack), n))
        env[place.key] = Buffer(place.key, tuple(range(len(stack))), zeros, start)
    buffer = env[place.key]
    if stack is None:
        stack = zeros_at(place, len(buffer.rows))
    buffer.write(stack, tuple(range(len(stack))), place)


def keep(env: Env, place: Place, stack: Tensor) -> Buffer:
    """Puts a stack ``(rows, *shape)`` as all that is in a storage."""
    buffer = env[place.key] = Buffer(place.key)
    buffer.put(stack, tuple(range(len(stack))), place)
    return buffer


def zeros_at(place: Place, rows: int) -> Tensor:
    """A stack of zeros."""
    return torch.zeros((rows, *place.shape), dtype=place.dtype, device=place.device)
