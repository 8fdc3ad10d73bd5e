"""Eq. 14 taken literally: the linearised network, run once for each modality on plain tensors.

A decomposition that kept its maps (``keep_frozen=True``) knows every slope, statistic and share
of the clean pass. Here the function runs again, on one modality's input with all others zero, and
each nonlinear operation is replaced by its kept map. Nothing of the parts' arithmetic is used, so
agreement with the parts shows that they are what the linearised network gives for that sensor
alone: they cannot depend on any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.frozen import FrozenMap, Origin, Stream, needs_bias
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.marks import is_continuous
from lmd_cli.decomposition.result import Decomposition
from lmd_cli.decomposition.runner import Runner
from lmd_cli.decomposition.tree import leaves, map_tensors
from lmd_cli.decomposition.waiting import Heads


def replay(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    decomposition: Decomposition,
    *,
    constants: Mapping[str, Any] | None = None,
    only: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Every part by literal replay.

    Args:
        function: the function that was decomposed.
        inputs: what it was decomposed at, or other values of the same shapes for some modalities
            (perturbed inputs at the same operating point).
        decomposition: made with ``keep_frozen=True``.
        constants: as in ``decompose``.
        only: the modalities that are wanted; all, and the bias, if not given.

    Returns:
        For each modality, and ``bias`` (without the interaction, which no modality alone makes),
        the output with the function's structure.

    Raises:
        DecompositionError: no maps were kept, or the function does not run the same way again.
    """
    layout, tape = decomposition.layout, _tape(decomposition)
    zeros = {name: map_tensors(torch.zeros_like, tree) for name, tree in inputs.items()}
    bias = Stream(None, layout.uniform_share, {})
    run = Runner(function, tape, dict(constants or {}))
    outputs = {BIAS: run(zeros, bias)} if only is None or needs_bias(tape) else {}
    wanted = layout.modalities if only is None else tuple(only)
    for name in wanted:
        stream = Stream(layout.modalities.index(name), layout.uniform_share, bias.bias_inputs)
        outputs[name] = run({**zeros, name: inputs[name]}, stream)
    return {name: outputs[name] for name in (*wanted, *((BIAS,) if only is None else ()))}


def _tape(decomposition: Decomposition) -> list[FrozenMap]:
    if decomposition.tape is None:
        raise DecompositionError("nothing to replay: decompose with keep_frozen=True")
    return decomposition.tape


class Linearised:
    """What stands after eq. 12: the network, linear, with the maps of one operating point.

    Any number of inputs of one modality can go through it as plain tensors, several as a batch.

    Args:
        function: the function that was decomposed, taking one tensor.
        decomposition: made with ``keep_frozen=True`` at a batch of one.
        bias: the bias part of its input, zero if not given (activation splits need it).
        inputs: how many will go through in all: where there are many, :meth:`parts` takes a head
            as one map (:mod:`.heads`), which changes the last digits.
        waiting: bytes of inputs that wait before a head.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        decomposition: Decomposition,
        bias: Tensor | None = None,
        inputs: int = 0,
        waiting: int = 2**28,
    ):
        self._layout, tape = decomposition.layout, _tape(decomposition)
        self._run = Runner(lambda x: function(x), tape, {})
        self._heads = Heads(tape, inputs, waiting)
        self._bias = bias
        self._needs_bias = needs_bias(tape)
        self._bias_inputs: dict[int, Tensor] = {}

    def part(self, modality: str, x: Tensor) -> Any:
        """The part that ``x`` gives as that modality's.

        Args:
            modality: whose shares of constants and bias it takes.
            x: ``(n, ...)``, n inputs at the same operating point.
        """
        return self._part(modality, x, None)

    def parts(self, modality: str, inputs: Iterable[Tensor]) -> list[Any]:
        """:meth:`part` of each of many inputs."""
        inputs, found, heads = list(inputs), [], self._heads
        heads.spoilt = False
        for x in inputs:
            found.append(self._part(modality, x, heads))
            if heads.full:
                heads.settle()
        heads.settle()
        return self.parts(modality, inputs) if heads.spoilt else found

    def _part(self, modality: str, x: Tensor, heads: Heads | None) -> Any:
        if self._needs_bias and not self._bias_inputs:
            bias = torch.zeros_like(x[:1]) if self._bias is None else self._bias
            self._run({"x": bias}, Stream(None, self._layout.uniform_share, self._bias_inputs))
        index = self._layout.modalities.index(modality)
        stream = Stream(index, self._layout.uniform_share, self._bias_inputs)
        return self._run({"x": x}, stream, heads)


def constants_alone(
    function: Callable[..., Any],
    like: Mapping[str, Any],
    decomposition: Decomposition,
    origin: Origin,
) -> Any:
    """What the constants of one kind of norm (eq. 10) make by themselves: under ``uniform`` each
    modality gets its share of it, whatever its features are.

    Args:
        function, decomposition: as in :func:`replay`.
        like: inputs, for their shapes.
        origin: the kind of norm.

    Raises:
        DecompositionError: the constants do not go through alone: activation splits, or they reach
            a product of two features.
    """
    tape = _tape(decomposition)
    if any(getattr(m, "shares", None) is not None for m in tape):
        raise DecompositionError("constants have no stream of their own through activation splits")
    zeros = {name: map_tensors(torch.zeros_like, tree) for name, tree in like.items()}
    stream = Stream(None, decomposition.layout.uniform_share, {}, keep=False, origin=origin)
    return Runner(function, tape, {})(zeros, stream)


def replay_deviation(replayed: Mapping[str, Any], decomposition: Decomposition) -> float:
    """Largest deviation of replayed parts from the parts, over the largest |part|."""
    parts = {**decomposition.parts, BIAS: decomposition.own_bias}
    worst = scale = 0.0
    for name, tree in parts.items():
        for a, b in zip(leaves(tree), leaves(replayed[name]), strict=True):
            if a.numel() == 0 or not is_continuous(a):
                continue  # indices are the same in every part
            worst = max(worst, float((a - b).abs().max()))
            scale = max(scale, float(a.abs().max()))
    return worst / scale if scale else worst
