"""Eq. 14 taken literally: the linearised network, run for each modality alone.

A decomposition that kept its maps (``keep_frozen=True``) is a straight line of linear maps with
constants. Here it runs on one modality's input, all others zero. Nothing of the user's code runs
again, and nothing but that modality enters: agreement with the parts shows that they are what the
linearised network gives for that sensor alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.linearised.structure import kept_program
from lmd_cli.decomposition.linearised.values import Env
from lmd_cli.decomposition.pytrees import leaves, map_tensors
from lmd_cli.decomposition.result import Decomposition


def replay(
    decomposition: Decomposition, inputs: Mapping[str, Any], only: Iterable[str] | None = None
) -> dict[str, Any]:
    """Every part by the linearised network.

    Args:
        decomposition: made with ``keep_frozen=True``.
        inputs: what it was decomposed at, or other values for some modalities (perturbed inputs at
            the same operating point), of the same shapes; of an operating point that is a batch of
            one, any number of inputs ``(n, ...)``.
        only: the modalities that are wanted; all, and the bias, if not given.

    Returns:
        For each modality, and ``bias`` (without the interaction, which no modality alone makes),
        the output with the function's structure.

    Raises:
        DecompositionError: no maps were kept, or the inputs are of other shapes.
    """
    program, layout = kept_program(decomposition), decomposition.layout
    parts: dict[str, Any] = {}
    with torch.no_grad():
        for name in layout.modalities if only is None else only:
            stacks, rows, batch = as_rows(program, name, inputs[name])
            stream = Stream(layout.modalities.index(name), layout.uniform_share, rows=rows)
            env = program.run(program.start(name, stacks), stream)
            parts[name] = collected(program, env, rows, batch)
        if only is None:
            env = program.run({}, Stream(None, layout.uniform_share))
            parts[BIAS] = map_tensors(lambda t: t[0], program.collect(env, 1, True))
    return parts


def collected(program: Program, env: Env, rows: int, batch: bool) -> Any:
    """A modality's output out of what a pass left there; of a batch of inputs, as a batch."""

    def joined(stack: Tensor) -> Tensor:
        if not batch:
            return stack[0]
        return stack.flatten(0, 1) if stack.dim() > 1 else stack

    return map_tensors(joined, program.collect(env, rows, False))


def as_rows(program: Program, name: str, tree: Any) -> tuple[Any, int, bool]:
    """A modality's tensors as stacks ``(rows, *shape)``, how many rows they have, and whether these
    are a batch of inputs at an operating point that is a batch of one."""
    shapes = [place.shape for place in program.inputs[name]]
    if [tuple(leaf.shape) for leaf in leaves(tree)] == shapes:
        return map_tensors(lambda t: t.unsqueeze(0), tree), 1, False
    return map_tensors(lambda t: t.unsqueeze(1), tree), len(leaves(tree)[0]), True


def replay_deviation(replayed: Mapping[str, Any], decomposition: Decomposition) -> float:
    """Largest deviation of replayed parts from the parts, over the largest |part|; NaN if any of
    them holds NaN."""
    parts = {**decomposition.parts, BIAS: decomposition.own_bias}
    return deviation({name: (replayed[name], tree) for name, tree in parts.items()})


def deviation(pairs: Mapping[str, tuple[Any, Any]]) -> float:
    """max |found - wanted| / max |wanted| over pairs of trees; NaN if any of them holds NaN."""
    worst, scale = [0.0], [0.0]
    for found, wanted in pairs.values():
        for a, b in zip(leaves(found), leaves(wanted), strict=True):
            if not isinstance(b, Tensor) or b.numel() == 0 or not _is_continuous(b):
                continue  # indices are the same in every part
            worst.append(float(torch.where(a == b, 0.0, (a - b).abs()).max()))  # equal infinities
            scale.append(float(b.abs().nan_to_num(0.0, 0.0).max()))
    most, size = largest(worst), largest(scale)
    return most / size if size else most


def largest(values: Iterable[float]) -> float:
    """The maximum; NaN if one of them is NaN, which ``max`` would pass over."""
    found = list(values)
    return math.nan if any(map(math.isnan, found)) else max(found)


def _is_continuous(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()
