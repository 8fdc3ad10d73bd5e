"""Where the linearised network goes wrong: every step at the operating point, by its map and as the
network computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.linearised.partial import run_as_it_is
from lmd_cli.decomposition.linearised.program import Output, Step
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.linearised.structure import kept_program
from lmd_cli.decomposition.linearised.values import Env, read
from lmd_cli.decomposition.result import Decomposition


def first_deviation(
    decomposition: Decomposition, inputs: Mapping[str, Any], limit: float
) -> Step | None:
    """The first step whose map, at what the step was given, differs from what it computed.

    Args:
        decomposition: made with ``keep_frozen=True``.
        inputs: what it was decomposed at.
        limit: largest difference over the largest value that counts as rounding.
    """
    program = kept_program(decomposition)
    stream = Stream(None, decomposition.layout.uniform_share)
    deviating: list[Step] = []

    def compare(step: Step, env: Env) -> None:
        by_map = [_by_map(stream, output, env) for output in step.outputs]
        run_as_it_is(step, env)
        computed = [read(env, output.place) for output in step.outputs]
        if any(_differ(a, b, limit) for a, b in zip(by_map, computed, strict=True)):
            deviating.append(step)

    with torch.no_grad():
        program.run(program.start_whole(inputs), compare)
    return next(iter(deviating), None)


def _by_map(stream: Stream, output: Output, env: Env) -> Tensor | None:
    """The whole of a result: all parts together, whoever's they are."""
    made = None if output.map is None else stream.whole(output, env)
    return None if made is None else made.expand(1, *output.place.shape)


def _differ(by_map: Tensor | None, computed: Tensor | None, limit: float) -> bool:
    if by_map is None or computed is None:
        return False
    finite = torch.isfinite(computed) | computed.isnan()
    if not bool(finite.any()):
        return False
    difference = torch.where(by_map == computed, 0.0, (by_map - computed).abs())[finite].max()
    scale = torch.maximum(computed.abs()[finite].max(), by_map.abs()[finite].max())
    return not bool(difference <= limit * scale)
