"""The linearised network as a straight-line program: every map of one decomposition, in order.

Its values are buffers, one for each storage of the run, so views need no step, and writes in place
are steps that write where the network wrote. Nothing of the user's code runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.values import Env, keep, read, zeros_at
from lmd_cli.decomposition.maps import Affine, Map
from lmd_cli.decomposition.memory import Buffer, Place
from lmd_cli.decomposition.pytrees import leaves, map_leaves, map_tensors


@dataclass(eq=False)
class Output:
    """One result of a step.

    Attributes:
        map: ``None`` for a constant of the operating point.
        reads: places of the map's operands.
        place: where the result lies.
        uniform: the map's constant is shared out.
        bias: the clean bias part of each operand, ``(1, *shape)``, where the map needs it.
        alone: which factor of a product has no part but that.
        whole: where the storage that it is written into begins and how many elements it has.
        index: which of the call's results it is.
        value: a constant of the operating point, as it was there.
    """

    map: Map | None
    reads: tuple[Place, ...]
    place: Place
    uniform: bool = False
    bias: tuple[Tensor | None, ...] = ()
    alone: tuple[bool, ...] = ()
    whole: tuple[int, int] = (0, 0)
    index: int = 0
    value: Tensor | None = None

    @property
    def varies(self) -> bool:
        """Whether two factors that both depend on the inputs are multiplied."""
        return self.map is not None and not isinstance(self.map, Affine) and not any(self.alone)


@dataclass(eq=False)
class Step:
    """One call.

    Attributes:
        operation, module: its names.
        kind: of its rule.
        function: what was called, as a function of its arguments by name.
        given: the arguments; a :class:`~.memory.Place` where one depends on the inputs.
        outputs: its results.
        fresh: whether these are new storages.
        operator: ATen's name of what was called, without writing to its arguments.
        where: the module that called it, for messages.
    """

    operation: str
    module: str
    kind: str
    function: Callable[[dict[str, Any]], Any]
    given: dict[str, Any]
    outputs: list[Output] = field(default_factory=list)
    fresh: bool = True
    operator: str = ""
    where: str = ""

    @property
    def places(self) -> list[Place]:
        """What it reads or writes."""
        found = [place for output in self.outputs for place in (*output.reads, output.place)]
        return found + [v for v in pytree.tree_leaves(self.given) if isinstance(v, Place)]

    def results(self, value: Callable[[Place], Tensor]) -> list[Any]:
        """What the call gives for other values of its arguments, one by one."""
        given = pytree.tree_map(lambda v: value(v) if isinstance(v, Place) else v, self.given)
        return pytree.tree_leaves(self.function(given))

    def add_constant(self, place: Place, value: Tensor, index: int = 0) -> None:
        """Takes down a result that is a constant of the operating point."""
        self.outputs.append(Output(None, (), place, index=index, value=value.clone()))

    def written_at(self, place: Place, buffer: Buffer) -> None:
        """The result is written into a storage that exists."""
        assert buffer.data is not None
        self.outputs[0].place, self.fresh = place, False
        self.outputs[0].whole = (buffer.start, buffer.data.shape[1])


def _no_program() -> None:
    """What a pickled program comes back as."""


class Program:
    """The maps of one decomposition.

    Attributes:
        steps: in order of execution.
        inputs: for each modality the places of its tensors.
        output: the function's output, with places where it carries parts.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.inputs: dict[str, list[Place]] = {}
        self.output: Any = None

    def __deepcopy__(self, memo: Any) -> Program:
        return self  # nothing changes it once it is recorded

    def __reduce__(self) -> Any:
        return _no_program, ()  # its maps are functions, which cannot be pickled

    # -- recording ------------------------------------------------------------------------

    def constant(
        self, place: Place, value: Tensor, source: Place | None = None, carries: bool = True
    ) -> None:
        """A plain tensor that is about to be written to.

        Args:
            source: where it lay, if it depends on the inputs.
            carries: parts are written into it, so that what it holds is bias.
        """
        given = {} if source is None else {"input": source}

        def run(values: dict[str, Any]) -> Tensor:
            held: Tensor = values.get("input", value)
            return held.clone()

        step = Step("a plain tensor", "", "constant", run, given)
        step.add_constant(place, value)
        if carries:
            step.outputs[0].map = Affine(None, (), value)
        self.steps.append(step)

    # -- running --------------------------------------------------------------------------

    def run(self, starts: Env, through: Callable[[Step, Env], None]) -> Env:
        """Every step in turn; what no later step reads is dropped.

        Args:
            starts: buffers of the inputs.
            through: works out a step's results.
        """
        env = dict(starts)
        for step, keys in zip(self.steps, self._last_uses, strict=True):
            through(step, env)
            for key in keys:
                env.pop(key, None)
        return env

    @cached_property
    def _last_uses(self) -> list[set[int]]:
        """For each step the storages that neither a later one nor the output uses."""
        used = {leaf.key for leaf in leaves(self.output) if isinstance(leaf, Place)}
        found: list[set[int]] = []
        for step in reversed(self.steps):
            keys = {place.key for place in step.places} - used
            used |= keys
            found.insert(0, keys)
        return found

    def start(self, modality: str, tree: Any) -> Env:
        """Buffers of one modality's tensors ``(rows, *shape)``.

        Raises:
            DecompositionError: they are not shaped as the tensors that were decomposed.
        """
        found: Env = {}
        for leaf, place in zip(leaves(tree), self.inputs[modality], strict=True):
            if tuple(leaf.shape[1:]) != place.shape:
                raise DecompositionError(
                    f"{modality!r} was decomposed at shape {place.shape}; got "
                    f"{tuple(leaf.shape[1:])}"
                )
            keep(found, place, leaf).shared = True  # the caller's memory
        return found

    def start_whole(self, inputs: Mapping[str, Any]) -> Env:
        """Buffers of all inputs, shaped as those that were decomposed."""
        found: Env = {}
        for name, tree in inputs.items():
            found |= self.start(name, map_tensors(lambda t: t.unsqueeze(0), tree))
        return found

    def collect(self, env: Env, rows: int, bias: bool) -> Any:
        """The output as stacks ``(rows, *shape)``; a constant belongs to the bias."""

        def leaf(value: Any) -> Any:
            if isinstance(value, Place):
                stack = read(env, value)
                return zeros_at(value, rows) if stack is None else stack
            if isinstance(value, Tensor):
                return (value if bias else torch.zeros_like(value)).expand(rows, *value.shape)
            return value

        return map_leaves(leaf, self.output)
