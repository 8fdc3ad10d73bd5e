"""One pass of the linearised network on plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.custom import caller, custom_functions
from lmd_cli.decomposition.errors import DecompositionError, NoRuleError
from lmd_cli.decomposition.frozen import FrozenMap, FrozenSelection, FrozenSlope, Stream
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
from lmd_cli.decomposition.rules.composite import COMPOSED, is_composed
from lmd_cli.decomposition.rules.linear import grid_sample
from lmd_cli.decomposition.rules.quotient import fraction
from lmd_cli.decomposition.tree import map_tensors
from lmd_cli.decomposition.waiting import HeadPass, Heads
from lmd_cli.decomposition.withheld import without_constants

_FROZEN_KINDS = ("activation", "softmax", "normalisation", "selection", "statistic")
#: Kinds of operations whose result at the operating point the maps know.
LINEARISED_KINDS = frozenset((*_FROZEN_KINDS, "constant", "quotient"))


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

    def __call__(
        self, inputs: Mapping[str, Any], stream: Stream, heads: Heads | None = None
    ) -> Any:
        """Takes a stream through.

        Args:
            inputs: its tensors.
            stream: whose they are.
            heads: where the ends of the network may wait; their outputs are then empty until that
                is settled.

        Raises:
            DecompositionError: the function does not run the same way as in the clean pass.
        """
        streams = {
            name: map_tensors(lambda t: t.clone().as_subclass(MarkedTensor), tree)
            for name, tree in inputs.items()
        }
        head_pass = None if heads is None else HeadPass(heads, stream)
        mode = _ReplayMode(self._tape, stream, self._kinds, head_pass)
        watching = nullcontext() if head_pass is None else head_pass.watching()
        with torch.no_grad(), watching, mode, custom_functions(mode.custom):
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

    def __init__(
        self,
        tape: list[FrozenMap],
        stream: Stream,
        kinds: frozenset[str],
        heads: HeadPass | None,
    ):
        super().__init__()
        self._tape, self._stream, self._kinds, self._heads = tape, stream, kinds, heads
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
            met = self._heads and self._heads.meet(func, rule, args, kwargs, self.position)
            if met:
                self.position += met[1]
                return met[0]
            replaced = self._replaced(func, rule, args, kwargs)
            if replaced is not NotImplemented:
                return replaced
            if rule.apply is grid_sample:
                args, kwargs = self._kept_grid(args, kwargs)
            if not self._stream.is_bias:
                args, kwargs = without_constants(func, rule, args, kwargs)
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
