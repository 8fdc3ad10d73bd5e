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
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.custom import caller, custom_functions
from lmd_cli.decomposition.errors import DecompositionError, NoRuleError
from lmd_cli.decomposition.frozen import (
    FrozenMap,
    FrozenProduct,
    FrozenSelection,
    FrozenSlope,
    Origin,
    Stream,
)
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.marks import (
    MarkedTensor,
    count_marked,
    is_continuous,
    mark,
    marked,
    unmark,
    unmark_tensor,
)
from lmd_cli.decomposition.registry import Rule, canonical, find_rule, function_name
from lmd_cli.decomposition.result import Decomposition
from lmd_cli.decomposition.rules.arithmetic import add_
from lmd_cli.decomposition.rules.composite import COMPOSED, is_composed
from lmd_cli.decomposition.rules.linear import convolution, grid_sample, linear, pad
from lmd_cli.decomposition.rules.quotient import fraction
from lmd_cli.decomposition.tree import leaves, map_tensors

_FROZEN_KINDS = ("activation", "softmax", "normalisation", "selection", "statistic")
#: Kinds of operations whose result at the operating point the maps know.
LINEARISED_KINDS = frozenset((*_FROZEN_KINDS, "constant", "quotient"))


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


def needs_bias(tape: list[FrozenMap]) -> bool:
    """Whether a modality's stream meets the bias's: in activation splits, and in products."""
    return any(isinstance(m, FrozenProduct) or getattr(m, "shares", None) is not None for m in tape)


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
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        decomposition: Decomposition,
        bias: Tensor | None = None,
    ):
        self._layout, tape = decomposition.layout, _tape(decomposition)
        self._run = Runner(lambda x: function(x), tape, {})
        self._bias = bias
        self._needs_bias = needs_bias(tape)
        self._bias_inputs: dict[int, Tensor] = {}

    def part(self, modality: str, x: Tensor) -> Any:
        """The part that ``x`` gives as that modality's.

        Args:
            modality: whose shares of constants and bias it takes.
            x: ``(n, ...)``, n inputs at the same operating point.
        """
        if self._needs_bias and not self._bias_inputs:
            bias = torch.zeros_like(x[:1]) if self._bias is None else self._bias
            self._run({"x": bias}, Stream(None, self._layout.uniform_share, self._bias_inputs))
        index = self._layout.modalities.index(modality)
        stream = Stream(index, self._layout.uniform_share, self._bias_inputs)
        return self._run({"x": x}, stream)

    def constants(self, like: Tensor, origin: Origin) -> Any:
        """What the constants of one kind of norm (eq. 10) make by themselves: under ``uniform``
        each modality gets its share of it, whatever its features are.

        Args:
            like: an input, (1, ...), for its shape.

        Raises:
            DecompositionError: maps that are not affine in each part by itself (activation splits,
                products).
        """
        if self._needs_bias:
            raise DecompositionError("constants have no stream of their own through these maps")
        stream = Stream(None, self._layout.uniform_share, {}, keep=False, origin=origin)
        return self._run({"x": torch.zeros_like(like)}, stream)


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


class Runner:
    """Runs the function on one stream's inputs.

    Args:
        function, constants: as in :func:`replay`.
        tape: the maps of the operating point, in order.
        kinds: which kinds of operations are replaced by their maps; the others run as they are.
    """

    def __init__(
        self,
        function: Any,
        tape: list[FrozenMap],
        constants: dict[str, Any],
        kinds: frozenset[str] = LINEARISED_KINDS,
    ):
        self._function, self._tape, self._constants = function, tape, constants
        self._kinds = kinds

    def __call__(self, inputs: Mapping[str, Any], stream: Stream) -> Any:
        streams = {
            name: map_tensors(lambda t: t.clone().as_subclass(MarkedTensor), tree)
            for name, tree in inputs.items()
        }
        mode = _ReplayMode(self._tape, stream, self._kinds)
        with torch.no_grad(), mode, custom_functions(mode.custom):
            output = self._function(**streams, **self._constants)
        if mode.position != len(self._tape):
            raise DecompositionError(
                f"the replay met {mode.position} nonlinear operations, the clean pass "
                f"{len(self._tape)}: the function does not run the same way on other inputs"
            )
        return map_tensors(
            lambda t: unmark_tensor(t) if _belongs(t, stream) else torch.zeros_like(t), output
        )


def _belongs(t: Tensor, stream: Stream) -> bool:
    """Whether a stream carries an output: those that are constants are the bias's."""
    return stream.is_bias or isinstance(t, MarkedTensor) or not is_continuous(t)


class _ReplayMode(TorchFunctionMode):
    """Replaces nonlinear operations by their maps, and withholds constants from modalities."""

    def __init__(self, tape: list[FrozenMap], stream: Stream, kinds: frozenset[str]):
        super().__init__()
        self._tape, self._stream, self._kinds = tape, stream, kinds
        self.position = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not count_marked(args, kwargs):
            return func(*args, **kwargs)
        rule = find_rule(func)
        if rule is None:
            raise NoRuleError(f"replay: no rule for {function_name(func)}")
        func = canonical(func)
        if is_composed(func, rule.kind, args, kwargs):
            return self._composite(func, rule, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            replaced = self._replaced(func, rule, args, kwargs)
            if replaced is not NotImplemented:
                return replaced
            if rule.apply is grid_sample:
                args, kwargs = self._kept_grid(args, kwargs)
            if not self._stream.is_bias:
                args, kwargs = _without_constants(func, rule, args, kwargs)
            result = caller(func)(*unmark(args), **unmark(kwargs))
        if rule.kind == "metadata" or result is None:
            return result
        if rule.kind == "constant" or not _has_floats(result):
            return self._kept(result)
        return mark(result)

    def custom(self, function: Any, args: Any, kwargs: Any) -> Any:
        """A custom autograd function, which the mode does not see."""
        if not count_marked(args, kwargs):
            return NotImplemented
        return self.__torch_function__(function, (), args, kwargs)

    def _composite(self, func: Any, rule: Rule, args: Any, kwargs: Any) -> Any:
        """What the function is made of, one after the other."""
        with self:
            out = COMPOSED[func](*args, **kwargs)
        if not rule.inplace:
            return out
        with torch._C.DisableTorchFunctionSubclass():
            args[0].copy_(unmark_tensor(out))
        return args[0]

    def _replaced(self, func: Any, rule: Rule, args: Any, kwargs: Any) -> Any:
        """What the kept map gives, if the call is one that has a map."""
        if rule.kind == "product" and count_marked(args, kwargs) == 2:
            return self._product(rule, args, kwargs)
        if rule.kind == "quotient":
            return self._quotient(func, rule, args, kwargs)
        if rule.kind not in _FROZEN_KINDS:
            return NotImplemented
        if rule.kind in self._kinds:
            return self._frozen(rule, args, kwargs)
        return self._live(func, args, kwargs)

    def _next(self) -> FrozenMap:
        """The next kept map.

        Raises:
            DecompositionError: there is none left.
        """
        if self.position >= len(self._tape):
            raise DecompositionError("the replay met more nonlinear operations than the clean pass")
        self.position += 1
        return self._tape[self.position - 1]

    def _kept(self, value: Any) -> Any:
        """What a constant was at the operating point, or what it is here if constants run live."""
        kept = self._next()
        return kept(value, self._stream, 0) if "constant" in self._kinds else value

    def _live(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A nonlinear operation that runs as it is."""
        self._next()
        return mark(caller(func)(*unmark(args), **unmark(kwargs)))

    def _quotient(self, func: Any, rule: Rule, args: Any, kwargs: Any) -> Any:
        """Divisors that depend on the inputs are those of the clean pass."""
        numerator, divisor = fraction(func, args, kwargs)
        if isinstance(divisor, MarkedTensor):
            kept, live = self._next(), unmark_tensor(divisor)
            divisor = kept(live, self._stream, 0) if "quotient" in self._kinds else live
        constant = not isinstance(numerator, MarkedTensor)
        out = torch.div(unmark_tensor(numerator), divisor)
        out = torch.zeros_like(out) if constant and not self._stream.is_bias else out
        if rule.inplace:
            args[0].copy_(out)
            return args[0]
        return out.as_subclass(MarkedTensor)

    def _kept_grid(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Sampling locations that depend on the inputs are those of the clean pass."""
        grid = kwargs.get("grid", args[1] if len(args) > 1 else None)
        if not isinstance(grid, MarkedTensor):
            return args, kwargs
        kept = self._kept(unmark_tensor(grid))
        image = args[0] if args else kwargs["input"]
        if not isinstance(image, MarkedTensor) and not self._stream.is_bias:
            image = torch.zeros_like(image)
        rest = {k: v for k, v in kwargs.items() if k not in ("input", "grid")}
        return (image, kept, *args[2:]), rest

    def _product(self, rule: Rule, args: Any, kwargs: Any) -> Any:
        linear_map, index = self._next(), self.position - 1
        pair = [unmark_tensor(x) for x in marked(args, kwargs)]
        if self._stream.is_bias:
            self._stream.remember(index, lambda: (pair[0].clone(), pair[1].clone()))
        out = linear_map(pair, self._stream, index)  # type: ignore[arg-type]
        if rule.inplace:
            args[0].copy_(out)
            return args[0]
        return out.as_subclass(MarkedTensor)

    def _frozen(self, rule: Rule, args: Any, kwargs: Any) -> Any:
        linear_map, index = self._next(), self.position - 1
        h = unmark_tensor(marked(args, kwargs)[0])
        if self._stream.is_bias:
            self._stream.remember(index, h.clone)
        overwrite = rule.inplace or bool(kwargs.get("inplace"))
        if overwrite and isinstance(linear_map, FrozenSlope) and linear_map.plain:
            h.mul_(linear_map.slope)
            return args[0]
        out = linear_map(h, self._stream, index)
        if overwrite:
            h.copy_(out)
            return args[0]
        out = out.as_subclass(MarkedTensor)
        return linear_map.finish(out) if isinstance(linear_map, FrozenSelection) else out


def _has_floats(tree: Any) -> bool:
    return any(isinstance(x, Tensor) and is_continuous(x) for x in pytree.tree_leaves(tree))


def _without_constants(func: Any, rule: Rule, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The call with every plain constant that it would add replaced by zero."""
    if rule.apply in (convolution, linear):
        args = (*args[:2], None, *args[3:]) if len(args) > 2 else args
        return args, {**kwargs, "bias": None} if "bias" in kwargs else kwargs
    if rule.apply is pad:
        return (*args[:3], *(0.0 for _ in args[3:])), {
            k: 0.0 if k == "value" and v is not None else v for k, v in kwargs.items()
        }
    if rule.kind != "sum":
        return args, kwargs
    at = _VALUES.get(func.__name__, len(args))
    args = (*args[:at], *(_zeroed(value, True) for value in args[at:]))
    kwargs = {**kwargs, "value": _zeroed(kwargs["value"], True)} if "value" in kwargs else kwargs
    numbers = rule.apply.__module__ == add_.__module__
    factors = {name: value for name, value in kwargs.items() if name == "alpha"}
    return _zeroed(args, numbers), {**_zeroed(kwargs, False), **factors}


#: Where functions take a number that they write, as opposed to a dimension or a size.
_VALUES = {"__setitem__": 2, "masked_fill": 2, "masked_fill_": 2, "scatter": 3, "scatter_": 3}


def _zeroed(tree: Any, numbers: bool) -> Any:
    def zero(value: Any) -> Any:
        if isinstance(value, MarkedTensor):
            return value
        if isinstance(value, Tensor) and is_continuous(value):
            return torch.zeros_like(value)
        if isinstance(value, float) or (numbers and isinstance(value, int)):
            return 0.0
        return value

    return pytree.tree_map(zero, tree)
