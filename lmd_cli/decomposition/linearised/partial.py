"""The network with only some kinds of its operations linearised at one operating point.

Table 1 compares networks in which only the activations, or only the normalisation layers, follow
their maps of the clean sample; everything else responds to the input as it is. Constants are part
of the network here: this is a function of whole inputs, not of a modality's part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.program import (
    Env,
    Output,
    Step,
    read,
    shares_constants,
    store,
)
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.maps import Affine, same
from lmd_cli.decomposition.memory import Place
from lmd_cli.decomposition.pytrees import leaves, map_tensors
from lmd_cli.decomposition.result import Decomposition, kept_program
from lmd_cli.decomposition.tracing.audit import residual_tensor

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
        decomposition: made with ``keep_maps=True`` under a rule that gives all constants to the
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
        self._kinds, self._stream = kinds, Stream(None, decomposition.layout.uniform_share)

    def __call__(self, **inputs: Any) -> Any:
        """The output for inputs of the same structure; several as a batch go one after the other
        where the operating point is a batch of one."""
        program = self._program
        batches = [program.batch_of(name, tree) for name, tree in inputs.items()]
        with torch.no_grad():
            if not any(batches):
                return self._run(inputs)
            count = max(n for n in batches if n is not None)
            outputs = [self._run(map_tensors(_entry(i), inputs)) for i in range(count)]
        columns = iter([torch.cat(column) for column in zip(*map(_tensors, outputs), strict=True)])
        return map_tensors(lambda _: next(columns), outputs[0])

    def _run(self, inputs: Any) -> Any:
        program = self._program
        return program.collect(program.run(program.start(inputs), self._through), True)

    def _through(self, step: Step, env: Env) -> None:
        """Takes whole inputs through a step by its map or as it is."""
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


def _value(env: Env, place: Place) -> Tensor:
    """What lies at a place."""
    stack = read(env, place)
    if stack is None:
        raise DecompositionError("a value is read that nothing has written")
    return stack[0]


def _put(env: Env, step: Step, output: Output, value: Tensor | None) -> None:
    """Puts a value where it lies."""
    assert value is not None
    place = output.place
    store(env, step, output, value.to(place.dtype).expand(place.shape).unsqueeze(0))


# -- where the linearised network goes wrong ------------------------------------------------------


def first_deviation(
    decomposition: Decomposition, inputs: Mapping[str, Any], limit: float
) -> Step | None:
    """The first step whose map, at what the step was given, differs from what it computed.

    Args:
        decomposition: made with ``keep_maps=True``.
        inputs: what it was decomposed at.
        limit: largest difference over the largest value that counts as rounding.
    """
    program = kept_program(decomposition)
    stream = Stream(None, decomposition.layout.uniform_share)
    deviating: list[Step] = []

    def compare(step: Step, env: Env) -> None:
        by_map = [None if o.map is None else stream.whole(o, env) for o in step.outputs]
        run_as_it_is(step, env)
        computed = [_value(env, output.place) for output in step.outputs]
        if any(_differ(a, b, limit) for a, b in zip(by_map, computed, strict=True)):
            deviating.append(step)

    with torch.no_grad():
        program.run(program.start(inputs), compare)
    return next(iter(deviating), None)


def _differ(by_map: Tensor | None, computed: Tensor, limit: float) -> bool:
    if by_map is None:
        return False
    return not bool(residual_tensor(computed, by_map.expand(1, *computed.shape)) <= limit)
