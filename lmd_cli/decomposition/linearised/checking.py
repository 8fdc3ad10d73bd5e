"""Where the linearised network goes wrong: every step at the operating point, by its map and as the
network computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.linearised.partial import LiveSteps
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
    check = _Check(decomposition.layout, limit)
    with torch.no_grad():
        program.run(program.start_whole(inputs), check)
    return check.first


class _Check:
    """Runs steps as they are, and compares."""

    def __init__(self, layout: Layout, limit: float):
        self._stream, self._live = Stream(None, layout.uniform_share), LiveSteps()
        self._limit = limit
        self.first: Step | None = None

    def __call__(self, step: Step, env: Env) -> None:
        expected = [self._by_map(output, env) for output in step.outputs]
        self._live(step, env)
        for output, by_map in zip(step.outputs, expected, strict=True):
            found = read(env, output.place)
            if by_map is not None and found is not None and self._differ(by_map, found):
                self.first = self.first or step

    def _by_map(self, output: Output, env: Env) -> Tensor | None:
        """The whole of a result: all parts together, whoever's they are."""
        if output.map is None:
            return None
        made = self._stream.whole(output, env)
        return None if made is None else made.expand(1, *output.place.shape)

    def _differ(self, by_map: Tensor, found: Tensor) -> bool:
        finite = torch.isfinite(found) | found.isnan()
        if not bool(finite.any()):
            return False
        difference = torch.where(by_map == found, 0.0, (by_map - found).abs())[finite].max()
        scale = torch.maximum(found.abs()[finite].max(), by_map.abs()[finite].max())
        return not bool(difference <= self._limit * scale)
