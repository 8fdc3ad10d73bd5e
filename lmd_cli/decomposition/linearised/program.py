"""The linearised network as a straight-line program: every map of one decomposition, in order.

Its values are buffers, one for each storage of the run, so views need no step, and writes in place
are steps that write where the network wrote. Nothing of the user's code runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.maps import Affine, Map
from lmd_cli.decomposition.memory import Buffer, Place
from lmd_cli.decomposition.pytrees import leaves, map_leaves

#: Buffers by the number of their storage; those that are not there are zero.
Env: TypeAlias = dict[int, Buffer]


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
        whole: where the storage that it is written into begins, how many elements it has, and of
            which type.
        index: which of the call's results it is.
        value: a constant of the operating point, as it was there.
    """

    map: Map | None
    reads: tuple[Place, ...]
    place: Place
    uniform: bool = False
    bias: tuple[Tensor | None, ...] = ()
    alone: tuple[bool, ...] = ()
    whole: tuple[int, int, torch.dtype | None] = (0, 0, None)
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
        operation: its name.
        kind: of its rule.
        function: what was called, as a function of its arguments by name.
        given: the arguments; a :class:`~.memory.Place` where one depends on the inputs.
        outputs: its results.
        fresh: whether these are new storages.
        operator: ATen's name of what was called, without writing to its arguments.
        where: the module that called it, for messages.
    """

    operation: str
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
        places = [place for output in self.outputs for place in (*output.reads, output.place)]
        return places + [v for v in pytree.tree_leaves(self.given) if isinstance(v, Place)]

    def results(self, value: Callable[[Place], Tensor]) -> list[Any]:
        """What the call gives for other values of its arguments, one by one."""
        given = pytree.tree_map(lambda v: value(v) if isinstance(v, Place) else v, self.given)
        return pytree.tree_leaves(self.function(given))

    def add_constant(self, place: Place, value: Tensor, index: int = 0) -> None:
        """Takes down a result that is a constant of the operating point."""
        self.outputs.append(Output(None, (), place, index=index, value=value.clone()))


class Program:
    """The maps of one decomposition.

    Attributes:
        steps: in order of execution.
        inputs: for each modality the places of its tensors.
        output: the function's output, with places where it carries parts.
        edges: whether a modality goes along the edges of coalitions (:mod:`.coalitions`).
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.inputs: dict[str, list[Place]] = {}
        self.output: Any = None
        self.edges = False

    def __deepcopy__(self, memo: Any) -> Program:
        return self  # nothing changes it once it is recorded

    def __reduce__(self) -> Any:
        return type(None), ()  # its maps are functions, which cannot be pickled

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
        dropped: list[set[int]] = []
        for step in reversed(self.steps):
            keys = {place.key for place in step.places} - used
            used |= keys
            dropped.insert(0, keys)
        return dropped

    def batch_of(self, name: str, tree: Any) -> int | None:
        """How many inputs a modality's tensors are, where what was decomposed is a batch of one;
        ``None`` for one input, shaped as that."""
        shapes = [tuple(leaf.shape) for leaf in leaves(tree)]
        same = shapes == [place.shape for place in self.inputs[name]]
        return None if same else max(shape[0] for shape in shapes)

    def start(self, inputs: Mapping[str, Any], batch: int | None = None) -> Env:
        """Buffers of inputs by modality, or of a batch of them.

        Raises:
            DecompositionError: they are not shaped as the tensors that were decomposed.
        """
        env: Env = {}
        for name, tree in inputs.items():
            for leaf, place in zip(leaves(tree), self.inputs[name], strict=True):
                stack = leaf.unsqueeze(0 if batch is None else 1)  # (rows, *place.shape)
                if tuple(stack.shape[1:]) != place.shape:
                    raise DecompositionError(
                        f"{name!r} was decomposed at shape {place.shape}; got "
                        f"{tuple(stack.shape[1:])}"
                    )
                keep(env, place, stack).shared = True  # the caller's memory
        return env

    def collect(self, env: Env, bias: bool, batch: int | None = None) -> Any:
        """The function's output, or a batch of them; a constant belongs to the bias."""
        rows = 1 if batch is None else batch

        def leaf(value: Any) -> Any:
            if isinstance(value, Place):
                made = read(env, value)
                stack = zeros_at(value, rows) if made is None else made
            elif isinstance(value, Tensor):
                stack = (value if bias else torch.zeros_like(value)).expand(rows, *value.shape)
            else:
                return value
            if batch is None:
                return stack[0]
            return stack.flatten(0, 1) if stack.dim() > 1 else stack

        return map_leaves(leaf, self.output)


# -- what a program is made of: where features are multiplied, what is shared out ----------------


def outputs_of(program: Program) -> Iterator[Output]:
    """Every result of every step, in order."""
    return (output for step in program.steps for output in step.outputs)


def products_of(program: Program) -> list[bool]:
    """For each product of two factors that carry parts, whether both depend on the inputs."""
    products = (o for o in outputs_of(program) if o.map is not None)
    return [o.varies for o in products if not isinstance(o.map, Affine)]


def products_of_features(program: Program) -> int:
    """How many products are met up to the last whose factors both depend on the inputs."""
    varying = [i for i, varies in enumerate(products_of(program), start=1) if varies]
    return varying[-1] if varying else 0


def splits_bias(program: Program) -> bool:
    """Whether a map depends on the bias part: Appendix C, slopes from it, or between coalitions."""
    maps = (output.map for output in outputs_of(program))
    affine = [m for m in maps if isinstance(m, Affine)]
    return any(m.shares is not None or m.slopes is not None or m.edges is not None for m in affine)


def shares_constants(program: Program) -> bool:
    """Whether any constant goes to a modality: shared out (eq. 10), or by Appendix C."""
    return splits_bias(program) or any(output.uniform for output in outputs_of(program))


def shared_alike(program: Program) -> bool:
    """Whether variants that differ only in where constants go have parts that differ by constants.

    They do where features are multiplied with each other before any constant can be shared out.
    """
    outputs = list(outputs_of(program))
    last = max((i for i, output in enumerate(outputs) if output.varies), default=0)
    affine = [output.map for output in outputs[:last] if isinstance(output.map, Affine)]
    return not any(m.origin is not None or m.splits for m in affine)


# -- the values of a program that runs ------------------------------------------------------------


def read(env: Env, place: Place) -> Tensor | None:
    """A stack ``(rows, *shape)``, ``None`` where it is zero."""
    buffer = env.get(place.key)
    return None if buffer is None else buffer.read(place)


def store(env: Env, step: Step, output: Output, stack: Tensor | None) -> None:
    """Puts a result where it lies; ``None`` is zero."""
    place = output.place
    if stack is None:
        buffer = None if step.fresh else env.get(place.key)
        if buffer is None:
            env.pop(place.key, None)
            return
        stack = zeros_at(place, len(buffer.rows))
    if not step.fresh:
        rows = tuple(range(len(stack)))
        if place.key not in env:  # zero so far
            start, n, dtype = output.whole
            data = stack.new_zeros((len(stack), n), dtype=dtype)
            env[place.key] = Buffer(place.key, rows, data, start)
        env[place.key].write(stack, rows, place)
    else:
        keep(env, place, stack)
    storage = stack.untyped_storage()  # of a map that moves elements, an operand's or a constant's
    for key in (place.key, *(read.key for read in output.reads)):
        if key in env and env[key].lies_in(storage):
            env[key].shared = True


def keep(env: Env, place: Place, stack: Tensor) -> Buffer:
    """Puts a stack ``(rows, *shape)`` as all that is in a storage."""
    buffer = env[place.key] = Buffer(place.key)
    buffer.put(stack, tuple(range(len(stack))), place)
    return buffer


def zeros_at(place: Place, rows: int) -> Tensor:
    """A stack of zeros."""
    return torch.zeros((rows, *place.shape), dtype=place.dtype, device=place.device)
