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
    return None if buffer is None or buffer.data is None else buffer.read(place)


def store(env: Env, step: Step, output: Output, stack: Tensor | None) -> None:
    """Puts a result where it lies; ``None`` is zero."""
    place = output.place
    buffer = env.get(place.key)
    if stack is None and (step.fresh or buffer is None):
        env.pop(place.key, None)
        return
    if buffer is None or step.fresh:
        buffer = env[place.key] = Buffer(place.key)
    if stack is None:
        assert buffer.data is not None
        stack = buffer.data.new_zeros((len(buffer.rows), *place.shape))
    rows = tuple(range(len(stack)))
    if step.fresh:
        put(buffer, stack, rows, place)
    elif buffer.data is None:
        _into_zeros(buffer, stack, rows, output)
    else:
        buffer.write(stack, rows, place)


def keep(env: Env, place: Place, stack: Tensor) -> None:
    """Puts a stack ``(rows, *shape)`` as all that is in a storage."""
    buffer = env[place.key] = Buffer(place.key)
    buffer.put(stack, tuple(range(len(stack))), place)


def put(buffer: Buffer, stack: Tensor, rows: tuple[int, ...], place: Place) -> None:
    """Puts a stack at a place of a storage that may be empty so far."""
    if buffer.data is None:
        buffer.put(stack, rows, place)
    else:
        buffer.write(stack, rows, place)


def _into_zeros(buffer: Buffer, stack: Tensor, rows: tuple[int, ...], output: Output) -> None:
    """A write into a storage that has been zero so far."""
    start, n = output.whole
    buffer.rows, buffer.data, buffer.start = rows, stack.new_zeros((len(rows), n)), start
    buffer.write(stack, rows, output.place)


def zeros_at(place: Place, rows: int, like: Tensor) -> Tensor:
    """A stack of zeros."""
    return torch.zeros((rows, *place.shape), dtype=place.dtype, device=like.device)
