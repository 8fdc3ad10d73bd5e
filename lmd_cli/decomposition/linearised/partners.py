"""The linearised network as a function of one modality's input: what stands after eq. 12."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.heads import LinearHead, find_heads
from lmd_cli.decomposition.linearised.program import Step
from lmd_cli.decomposition.linearised.replay import as_rows, collected
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.linearised.structure import kept_program, splits_bias
from lmd_cli.decomposition.linearised.values import Env, keep, read
from lmd_cli.decomposition.maps import Origin
from lmd_cli.decomposition.result import Decomposition


class Linearised:
    """The network, linear, with the maps of one operating point.

    Any number of inputs of one modality can go through it, several at a time; each is a row of its
    own.

    Args:
        decomposition: made with ``keep_frozen=True`` at a batch of one.
        inputs: how many will go through in all: where there are many, :meth:`parts` takes a head
            as one map (:mod:`.heads`), which changes the last digits.
        waiting: bytes of inputs that are kept before a head, to go through it together.
    """

    def __init__(self, decomposition: Decomposition, inputs: int = 0, waiting: int = 2**28):
        self._layout, self._program = decomposition.layout, kept_program(decomposition)
        self._inputs, self._most = inputs, waiting

    def part(self, modality: str, x: Any) -> Any:
        """The part that ``x`` gives as that modality's.

        Args:
            modality: whose shares of constants and bias it takes.
            x: ``(n, ...)``, n inputs at the same operating point; of a decomposition that went on
                from an intermediate tensor, n parts of that tensor.
        """
        with torch.no_grad():
            return self._collected(self._pass(modality, x, ()))

    def parts(self, modality: str, inputs: Iterable[Any]) -> list[Any]:
        """:meth:`part` of each of many inputs."""
        parts: list[Any] = []
        stopped: list[_Pass] = []
        with torch.no_grad():
            heads = self._heads(modality)
            for x in inputs:
                stopped.append(self._pass(modality, x, heads))
                if sum(one.bytes for one in stopped) >= self._most:
                    parts += self._through_heads(heads, stopped)
                    stopped = []
            return parts + self._through_heads(heads, stopped)

    def _heads(self, modality: str) -> list[LinearHead]:
        """The heads that are one map of this modality's inputs."""
        stream = Stream(self._layout.modalities.index(modality), self._layout.uniform_share)
        heads = [LinearHead.of(h, stream, self._inputs) for h in find_heads(self._program)]
        return [head for head in heads if head is not None]

    def _pass(self, modality: str, x: Any, heads: Iterable[LinearHead]) -> _Pass:
        """One or several inputs through all but heads."""
        program, layout = self._program, self._layout
        name = modality if modality in program.inputs else next(iter(program.inputs))
        stacks, rows, batch = as_rows(program, name, x)
        stream = Stream(layout.modalities.index(modality), layout.uniform_share, rows=rows)
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

        return _Pass(program.run(program.start(name, stacks), through), rows, batch, before)

    def _through_heads(self, heads: Sequence[LinearHead], passes: Sequence[_Pass]) -> list[Any]:
        """The outputs of passes that stopped before the heads."""
        for head in heads:
            here = [one for one in passes if head in one.before]
            if here:
                made = head([h for one in here for h in one.before[head].flatten(0, 1)])
                for one, out in zip(here, made.split([one.rows for one in here]), strict=True):
                    keep(one.env, head.end, out.unsqueeze(1))
        return [self._collected(one) for one in passes]

    def _collected(self, one: _Pass) -> Any:
        return collected(self._program, one.env, one.rows, one.batch)


class _Pass(NamedTuple):
    """Some inputs on their way.

    Attributes:
        env: what is there at the end.
        rows: how many inputs.
        batch: whether these are a batch of inputs.
        before: what stands before each head, ``(rows, 1, channels, Z, X)``.
    """

    env: Env
    rows: int
    batch: bool
    before: dict[LinearHead, Tensor]

    @property
    def bytes(self) -> int:
        """Of what stands before heads."""
        return sum(h.nbytes for h in self.before.values())


def constants_alone(decomposition: Decomposition, origin: Origin) -> Any:
    """What the constants of one kind of norm (eq. 10) make by themselves: under ``uniform`` each
    modality gets its share of it, whatever its features are.

    Args:
        decomposition: made with ``keep_frozen=True``.
        origin: the kind of norm.

    Raises:
        DecompositionError: the constants do not go through alone: activation splits, or they reach
            a product of two features.
    """
    program = kept_program(decomposition)
    if splits_bias(program):
        raise DecompositionError("constants have no stream of their own through activation splits")
    with torch.no_grad():
        stream = Stream(None, decomposition.layout.uniform_share, origin)
        return collected(program, program.run({}, stream), 1, False)
