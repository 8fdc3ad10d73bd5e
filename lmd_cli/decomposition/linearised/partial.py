"""The network with only some kinds of its operations linearised at one operating point.

Table 1 compares networks in which only the activations, or only the normalisation layers, follow
their maps of the clean sample; everything else responds to the input as it is. Constants are part
of the network here: this is a function of whole inputs, not of a modality's part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.program import Output, Step
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.linearised.structure import kept_program, shares_constants
from lmd_cli.decomposition.linearised.values import Env, read, store
from lmd_cli.decomposition.maps import Affine, same
from lmd_cli.decomposition.memory import Place
from lmd_cli.decomposition.pytrees import leaves, map_tensors
from lmd_cli.decomposition.result import Decomposition

#: With the divisors of norms that a network writes itself.
NORMALISATIONS = frozenset({"normalisation", "statistic", "quotient"})
#: Every other operation that is not linear: slopes, attention weights, selected elements, and
#: comparisons and sampling locations, which decide as an activation's sign does.
ACTIVATIONS = frozenset({"activation", "softmax", "selection", "constant"})


class PartiallyLinear:
    """The function with chosen kinds of operations replaced by their maps at the operating point.

    At the operating point it gives what the function gives, to rounding. Products of two features
    run as they are.

    Args:
        decomposition: made with ``keep_frozen=True`` under a rule that gives all constants to the
            bias (identity rules for BatchNorm and activations; ``ratio`` or ``identity`` for the
            other norms).
        kinds: :data:`ACTIVATIONS`, :data:`NORMALISATIONS`, both or none.

    Raises:
        DecompositionError: no maps were kept, or constants are not all with the bias.
    """

    def __init__(self, decomposition: Decomposition, kinds: frozenset[str]):
        self._program = kept_program(decomposition)
        if shares_constants(self._program):
            raise DecompositionError(
                "the maps share constants out among the modalities; decompose with identity-ratio "
                "or identity-identity"
            )
        self._step = _Whole(kinds, Stream(None, decomposition.layout.uniform_share))

    def __call__(self, **inputs: Any) -> Any:
        """The output for inputs of the same structure; several as a batch go one after the other
        where the operating point is a batch of one."""
        program = self._program
        own = [place.shape for name in inputs for place in program.inputs[name]]
        shapes = [tuple(leaf.shape) for leaf in leaves(inputs)]
        counts = [n[0] for n, single in zip(shapes, own, strict=True) if n != single]
        with torch.no_grad():
            if not counts:
                return self._run(inputs)
            found = [self._run(map_tensors(_entry(i), inputs)) for i in range(max(counts))]
        columns = iter([torch.cat(column) for column in zip(*map(_tensors, found), strict=True)])
        return map_tensors(lambda _: next(columns), found[0])

    def _run(self, inputs: Any) -> Any:
        program = self._program
        found = program.collect(program.run(program.start_whole(inputs), self._step), 1, True)
        return map_tensors(lambda t: t[0], found)


def _entry(index: int) -> Any:
    """One input of a batch; a batch of one goes with all."""
    return lambda t: t[index : index + 1] if len(t) > 1 else t


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def run_as_it_is(step: Step, env: Env) -> None:
    """Takes whole inputs through a step that is not linearised."""
    results = step.results(lambda place: _value(env, place))
    for output in step.outputs:
        _put(env, step, output, results[output.index])


class _Whole:
    """Takes whole inputs through steps, some by their maps and the others as they are."""

    def __init__(self, kinds: frozenset[str], stream: Stream):
        self._kinds, self._stream = kinds, stream

    def __call__(self, step: Step, env: Env) -> None:
        if not self._by_map(step):
            run_as_it_is(step, env)
            return
        self._stream(step, env)
        for output in step.outputs:
            if output.map is None:
                _put(env, step, output, output.value)

    def _by_map(self, step: Step) -> bool:
        """Other kinds are linear: their maps differ from them in what they hold constant alone."""
        if all(isinstance(o.map, Affine) and o.map.run is same for o in step.outputs):
            return True  # made of operations that are steps of their own
        known = NORMALISATIONS | ACTIVATIONS
        return (step.kind if step.kind in known else "constant") in self._kinds


def _value(env: Env, place: Place) -> Tensor:
    """What lies at a place."""
    stack = read(env, place)
    if stack is None:
        raise DecompositionError("a value is read that nothing has written")
    return stack[0]


def _put(env: Env, step: Step, output: Output, value: Tensor | None) -> None:
    """Puts a value where it lies, in memory that is not written to."""
    assert value is not None
    place = output.place
    stack = value.to(place.dtype).expand(place.shape).unsqueeze(0)
    store(env, step, output, stack)
    env[place.key].shared = True
