"""The linearised network on one modality's input, all others zero: eq. 14 taken literally, and what
stands after eq. 12 as a function of other samples.

A decomposition that kept its maps (``keep_maps=True``) is a straight line of linear maps with
constants. Nothing of the user's code runs again, and nothing but one modality enters: agreement
with the parts shows that they are what the linearised network gives for that sensor alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import mul
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmd_cli.decomposition.coalitions import coalitions_without, edge_weight
from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.linearised.heads import LinearHead, find_heads
from lmd_cli.decomposition.linearised.program import Env, Step, keep, read, splits_bias
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.maps import Origin
from lmd_cli.decomposition.memory import is_continuous
from lmd_cli.decomposition.pytrees import leaves, map_leaves
from lmd_cli.decomposition.result import Decomposition, kept_program


class Linearised:
    """The network, linear, with the maps of one operating point.

    Any number of inputs of one modality can go through it, several at a time; each is a row of its
    own.

    Args:
        decomposition: made with ``keep_maps=True``.
        inputs: how many will go through in all: where there are many, :meth:`parts` takes a head
            as one map (:mod:`.heads`), which changes the last digits.
        head_batch: bytes of inputs that are kept before a head, to go through it together.
    """

    def __init__(self, decomposition: Decomposition, inputs: int = 0, head_batch: int = 2**28):
        self._layout, self._program = decomposition.layout, kept_program(decomposition)
        self._inputs, self._most = inputs, head_batch

    def part(self, modality: str, x: Any) -> Any:
        """The part that ``x`` gives as that modality's.

        Args:
            modality: whose shares of constants and bias it takes.
            x: shaped as what was decomposed; or, of a batch of one, n inputs ``(n, ...)``; of a
                decomposition that went on from an intermediate tensor, parts of that tensor.
        """
        with torch.no_grad():
            streams = self._streams(modality)
            return _mean([(w, self._collected(self._pass(x, s, ()))) for w, s in streams])

    def parts(self, modality: str, inputs: Iterable[Any]) -> list[Any]:
        """:meth:`part` of each of many inputs."""
        inputs = list(inputs)
        with torch.no_grad():
            made = [[(w, y) for y in self._along(s, inputs)] for w, s in self._streams(modality)]
        return [_mean(column) for column in zip(*made, strict=True)]

    def _along(self, stream: Stream, inputs: Sequence[Any]) -> list[Any]:
        """Many inputs as one stream."""
        outputs: list[Any] = []
        stopped: list[_Pass] = []
        heads = self._heads(stream)
        for x in inputs:
            stopped.append(self._pass(x, stream, heads))
            if sum(h.nbytes for one in stopped for h in one.before.values()) >= self._most:
                outputs += self._through_heads(heads, stopped)
                stopped = []
        return outputs + self._through_heads(heads, stopped)

    def constants(self, origin: Origin | None = None) -> Any:
        """The bias part; or what the constants of one kind of norm (eq. 10) make by themselves:
        under ``uniform`` each modality gets its share of it, whatever its features are.

        Raises:
            DecompositionError: they do not go through alone: activation splits, or they reach a
                product of two features.
        """
        if origin is not None and splits_bias(self._program):
            raise DecompositionError("activation splits leave constants no stream of their own")
        stream = Stream(None, self._layout.uniform_share, origin)
        with torch.no_grad():
            return self._program.collect(self._program.run({}, stream), origin is None)

    def _streams(self, modality: str) -> list[tuple[float, Stream]]:
        """What a modality's input goes through the program as, with weights."""
        names, share = self._layout.modalities, self._layout.uniform_share
        index, count = names.index(modality), len(names)
        if not self._program.edges:
            return [(1.0, Stream(index, share))]
        edges = coalitions_without(index, count)
        return [(edge_weight(s, count), Stream(index, share, edge=s)) for s in edges]

    def _heads(self, stream: Stream) -> list[LinearHead]:
        """The heads that are one map of this stream."""
        heads = [LinearHead.of(h, stream, self._inputs) for h in find_heads(self._program)]
        return [head for head in heads if head is not None]

    def _pass(self, x: Any, stream: Stream, heads: Iterable[LinearHead]) -> _Pass:
        """One or several inputs through all but heads."""
        assert stream.modality is not None
        program, modality = self._program, self._layout.modalities[stream.modality]
        name = modality if modality in program.inputs else next(iter(program.inputs))
        batch = program.batch_of(name, x)
        stream = replace(stream, rows=1 if batch is None else batch)
        head_of = {step: head for head in heads for step in head.steps}
        before: dict[LinearHead, Tensor] = {}

        def through(step: Step, env: Env) -> None:
            head = head_of.get(step)
            if head is None:
                stream(step, env)
            elif step is head.steps[0]:
                h = read(env, head.start)
                if h is not None:
                    env[head.start.key].shared = True  # nobody writes to it
                    before[head] = h

        return _Pass(program.run(program.start({name: x}, batch), through), batch, before)

    def _through_heads(self, heads: Sequence[LinearHead], passes: Sequence[_Pass]) -> list[Any]:
        """The outputs of passes that stopped before the heads."""
        for head in heads:
            here = [one for one in passes if head in one.before]
            if here:
                stacks = [one.before[head] for one in here]
                made = head([h for stack in stacks for h in stack.flatten(0, 1)])
                for one, out in zip(here, made.split([len(h) for h in stacks]), strict=True):
                    keep(one.env, head.end, out.unsqueeze(1))
        return [self._collected(one) for one in passes]

    def _collected(self, one: _Pass) -> Any:
        return self._program.collect(one.env, False, one.batch)


def _mean(weighted: Sequence[tuple[float, Any]]) -> Any:
    """Outputs summed with weights; one by itself as it is."""
    trees, weights = [tree for _, tree in weighted], [weight for weight, _ in weighted]
    if len(trees) == 1:
        return trees[0]
    columns = zip(*map(leaves, trees), strict=True)
    sums = (
        sum(map(mul, weights, column)) if is_continuous(column[0]) else column[0]
        for column in columns  # indices are the same in every part
    )
    return map_leaves(lambda _: next(sums), trees[0])


class _Pass(NamedTuple):
    """Some inputs on their way."""

    env: Env
    batch: int | None
    before: dict[LinearHead, Tensor]  # what stands before each head, (rows, 1, channels, Z, X)


def replay(
    decomposition: Decomposition, inputs: Mapping[str, Any], only: Iterable[str] | None = None
) -> dict[str, Any]:
    """Every part by the linearised network.

    Args:
        decomposition: made with ``keep_maps=True``.
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
    linear = Linearised(decomposition)
    names = decomposition.layout.modalities if only is None else only
    parts = {name: linear.part(name, inputs[name]) for name in names}
    return {**parts, BIAS: linear.constants()} if only is None else parts


def replay_deviation(replayed: Mapping[str, Any], decomposition: Decomposition) -> float:
    """Largest deviation of replayed parts from the parts, over the largest |part|; NaN if any of
    them holds NaN."""
    parts = {**decomposition.parts, BIAS: decomposition.own_bias}
    return deviation({name: (replayed[name], tree) for name, tree in parts.items()})


def deviation(pairs: Mapping[str, tuple[Any, Any]]) -> float:
    """max |actual - expected| / max |expected| over pairs of trees; NaN if any holds NaN."""
    worst, scale = [0.0], [0.0]
    for actual, expected in pairs.values():
        for a, b in zip(leaves(actual), leaves(expected), strict=True):
            if not is_continuous(b) or b.numel() == 0:
                continue  # indices are the same in every part
            worst.append(float(torch.where(a == b, 0.0, (a - b).abs()).max()))  # equal infinities
            scale.append(float(b.abs().nan_to_num(0.0, 0.0).max()))
    most, size = largest(worst), largest(scale)
    return most / size if size else most


def largest(values: Iterable[float]) -> float:
    """The maximum; NaN if one of them is NaN, which ``max`` would pass over."""
    numbers = list(values)
    return math.nan if any(map(math.isnan, numbers)) else max(numbers)
