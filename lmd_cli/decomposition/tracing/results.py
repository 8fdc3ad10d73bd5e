"""Parts of what an operator makes, from the map that its rule gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from lmd_cli.decomposition.errors import DecompositionError, LeakError, NoRuleError
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.linearised.program import Program, Step, place_of
from lmd_cli.decomposition.maps import (
    Affine,
    Map,
    Stack,
    affine_parts,
    bilinear_parts,
    same,
    with_constant,
    with_shares,
    with_slopes,
)
from lmd_cli.decomposition.memory import Buffer, Piece, Place
from lmd_cli.decomposition.module_rules import VariantByModule, plain_modules_of
from lmd_cli.decomposition.pytrees import leaves, map_leaves
from lmd_cli.decomposition.registry import function_name
from lmd_cli.decomposition.tracing.calls import Call
from lmd_cli.decomposition.tracing.carriers import Carriers
from lmd_cli.decomposition.tracing.modes import above_dispatch
from lmd_cli.decomposition.tracing.modules import ModuleTracker, known_modules
from lmd_cli.decomposition.tracing.notes import CONSTANT, Notes
from lmd_cli.decomposition.tracing.operators import Operator, operator
from lmd_cli.decomposition.tracing.patches import is_custom, setting
from lmd_cli.decomposition.variant import Variant


class Results(Carriers):
    """Gives parts to what operators make, and takes the maps down.

    Args:
        layout: rows of the stacks.
        variants: linearisation rules, by module.
        root: module whose qualified names are used in errors and records.
        audit, on_layer, plain_modules: of :class:`.Notes`.
        program: takes the maps down, in order.
        grad: let gradients flow through the parts.

    Attributes:
        gradients: whether the plain call would record gradients.
        copied: for constants that a program keeps as copies, where the original lies.
        masked: whether totals may hold infinities (masked logits).
    """

    def __init__(
        self,
        layout: Layout,
        variants: VariantByModule,
        *,
        root: nn.Module | None = None,
        audit: bool | Literal["raise"] = False,
        program: Program | None = None,
        on_layer: Any = None,
        plain_modules: Iterable[str] = (),
        grad: bool = False,
    ):
        super().__init__(layout)
        self._variants, self.program, self._grad = variants, program, grad
        self._with_gradients = above_dispatch if grad else nullcontext  # of the parts
        self.tracker = ModuleTracker(root)
        names = known_modules(plain_modules, root, "plain_modules") | plain_modules_of(root)
        self.notes = Notes(self, audit, on_layer, names)
        self.failure: DecompositionError | None = None
        self.gradients = torch.is_grad_enabled()
        self.copied = WeakIdKeyDictionary()
        self._copies: set[int] = set()  # numbers of the storages that stand for detached tensors
        self.masked = self._paused = False

    @property
    def variant(self) -> Variant:
        """The linearisation rules that hold in the running module."""
        variants = self._variants
        return variants.at(self.tracker.named_path) if variants else variants.base

    def dispatch(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator of the function that runs."""
        raise NotImplementedError

    def paused(self, paused: bool = True) -> AbstractContextManager[None]:
        """Operators run as they are until the end of the block."""
        return setting(self, _paused=paused)

    # -- errors -------------------------------------------------------------------------------

    def failed(self, error: DecompositionError) -> None:
        """Notes the first error of ours, which the network may catch."""
        self.failure = self.failure or error

    def fail(self, error: DecompositionError) -> NoReturn:
        """Raises an error that is noted."""
        self.failed(error)
        raise error

    def dropped(self, name: str, module: nn.Module, output: Any, error: LeakError) -> None:
        """A module dropped parts: an error, except where gaps are being listed."""
        self.fail(error)

    def refused(self, function: Any, why: str) -> NoRuleError:
        """The error for a call that a rule cannot handle."""
        return NoRuleError(f"{self.notes.called_as(function)} {self.tracker.describe()}: {why}")

    def leak(self, function: Any, how: str) -> LeakError:
        """The error for a call that would drop parts."""
        return LeakError(f"{self.notes.called_as(function)} {self.tracker.describe()} {how}")

    def no_rule(self, function: Any) -> NoRuleError:
        """The error for a function without a rule, which says what would help."""
        if isinstance(function, torch._ops.OpOverload):
            function = (operator(function).functional or operator(function)).function
        name, caller = function_name(function), self.notes.called_as(function)
        what = name if caller == name else f"{name}, called by {caller}"
        if is_custom(function):
            what = f"the custom autograd function {name}"
        elif caller.rpartition(".")[2].strip("_") == name.rpartition(".")[2]:
            what = caller
        return NoRuleError(
            f"no rule for {what} {self.tracker.describe()}; register one with "
            f"@register_rule({name}) (see lmd_cli.decomposition.registry.register_rule)"
        )

    # -- what a rule is given, and what it gives ----------------------------------------------

    def _held(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments as a program may keep them: constants that the network could go on to
        write to are copied."""
        if self.program is None:
            return given
        return map_leaves(self._copied, dict(given))

    def _copied(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or self.carries(value):
            return value
        copy = value.clone()
        if self.depends(value):
            self.copied[copy] = place_of(self, value)
        return copy

    def _step(self, call: Call, live: Any = None) -> Step | None:
        """A step of the program, if one is kept, whose results are still to come."""
        if self.program is None:
            return None
        return self.program.begin(self, call.operator, call.rule, call.given, live)

    def _apart(self, total: Any, maps: Any) -> Any:
        """Results of a rule, those copied that lie in an argument's memory: its parts are there."""
        if isinstance(total, Tensor):
            shared = total is not maps and self.depends(total)
            return total.clone() if shared else total
        if isinstance(total, (list, tuple)) and any(map(self.depends, total)):
            listed = zip_longest(total, maps if isinstance(maps, (list, tuple)) else [maps])
            return type(total)([self._apart(t, raw) for t, raw in listed])
        return total

    def _register(self, call: Call, total: Any, maps: Any, live: Any = None) -> None:
        """Parts of what was just made."""
        step = self._step(call, live)
        if isinstance(total, Tensor):
            self._register_one(call, total, maps, step, 0)
        elif isinstance(total, (list, tuple)):
            listed = list(maps) if isinstance(maps, (list, tuple)) else [maps]
            listed += [None] * (len(total) - len(listed))
            for index, (t, raw) in enumerate(zip(total, listed, strict=True)):
                if isinstance(t, Tensor):
                    self._register_one(call, t, raw, step, index)
        self.notes.met(call.rule, call.operator)
        if self.program is not None and step is not None and step.outputs:
            self.program.add(step)

    def _register_one(self, call: Call, t: Tensor, raw: Any, step: Step | None, index: int) -> None:
        if raw is t:  # made of other operations, which the program has
            return
        if raw is not None:
            linear_map = self._give_parts(call, t, raw)
            if step is not None:
                step.add(self, linear_map, place_of(self, t), index)
        elif not self.depends(t) and t.layout is torch.strided:
            buffer = self.track(t)
            if step is not None:
                step.add_constant(Place(t, buffer.key), t, index)

    def _constant(self, op: Operator, given: dict[str, Any], result: Any) -> Any:
        """Computed from totals alone: constants of the operating point."""
        call = Call(self, op.function, CONSTANT, given, operator=op)
        self._register(call, leaves(result), None)
        return result

    # -- maps ---------------------------------------------------------------------------------

    def _give_parts(self, call: Call, total: Tensor, raw: Any) -> Map:
        """The parts of a result, and its map."""
        with self._with_gradients():
            linear_map = self._completed(call, raw, total)
            if not self._kept_apart(linear_map, total):
                stack, rows = self._parts_through(linear_map, total)
                self._note_shared(self.give(total, stack, rows), stack, linear_map)
        return linear_map

    def _completed(self, call: Call, raw: Any, total: Tensor) -> Map:
        """A map with its operands and what the variant makes of their clean parts.

        A tensor that was made of other operations stands for its own parts.
        """
        if isinstance(raw, Tensor):
            return Affine(same, (raw,))
        if isinstance(raw, Affine) and raw.run is not None and not raw.operands:
            if len({id(t) for t in call.carrying}) != 1:
                raise call.refused("several arguments carry parts; it has a rule for one only")
            raw = replace(raw, operands=(call.carrying[0],))
        activation = self.variant.activation
        if isinstance(raw, Affine) and raw.curve is not None:
            return with_slopes(raw, self.parts(raw.operands[0]), total, self.layout, activation)
        if isinstance(raw, Affine) and raw.splits and activation in ("sum", "ratio"):
            raw = with_shares(raw, self.parts(raw.operands[0]), self.layout, self.variant)
        return raw

    def _parts_through(self, linear_map: Map, total: Tensor) -> Stack:
        """The parts of a result, in its shape."""
        stack, rows = self._through(linear_map, total)
        if stack.shape[1:] != total.shape or len(stack) != len(rows):
            raise DecompositionError(
                f"a rule gave parts of shape {tuple(stack.shape)} for a total of shape "
                f"{tuple(total.shape)} and rows {rows} {self.tracker.describe()}; parts are "
                "(len(rows), *total.shape)"
            )
        return stack, rows

    def _through(self, linear_map: Map, total: Tensor) -> Stack:
        if not isinstance(linear_map, Affine):
            a, b = (self.parts(t) for t in linear_map.operands)
            return bilinear_parts(linear_map, a, b, total, self.layout)
        pieces = self.pieces(linear_map.operands[0]) if linear_map.channels else ()
        if pieces:
            return self._by_channels(linear_map, pieces)
        stacks = [self.parts(t) for t in linear_map.operands]
        return affine_parts(linear_map, stacks, total, self.layout, self.variant)

    def _by_channels(self, linear_map: Affine, pieces: Sequence[Piece]) -> Stack:
        """Parts that fill some channels meet the weights of those only."""
        assert linear_map.channels is not None
        stack = torch.cat([linear_map.channels(p.stack, p.start) for p in pieces])
        rows = [row for piece in pieces for row in piece.rows]
        order = sorted(range(len(rows)), key=rows.__getitem__)
        if order != list(range(len(rows))):
            stack = torch.stack([stack[i] for i in order])
        if linear_map.constant is None:
            return stack, tuple(sorted(rows))
        return with_constant(linear_map, stack, tuple(sorted(rows)), self.layout, self.variant)

    def _kept_apart(self, linear_map: Map, total: Tensor) -> bool:
        """A concatenation along channels whose parts meet in no row is joined when it is read."""
        if not isinstance(linear_map, Affine) or not linear_map.starts:
            return False
        stacks = [self.parts(t) for t in linear_map.operands]
        rows = [row for _, own in stacks for row in own]
        if len(set(rows)) < len(rows):
            return False
        for source in map(self.buffer_of, linear_map.operands):
            assert source is not None
            source.shared = True
        buffer = self.track(total)
        pieces = [
            Piece(start, stack.shape[2], own, stack)
            for start, (stack, own) in zip(linear_map.starts, stacks, strict=True)
        ]
        buffer.put_pieces(pieces, Place(total, buffer.key))
        return True

    def _note_shared(self, buffer: Buffer, stack: Tensor, linear_map: Map) -> None:
        """Maps that only move elements may give their operand's own memory back."""
        storage = stack.untyped_storage()
        for t in linear_map.operands:
            source = self.buffer_of(t)
            if source is not None and source.lies_in(storage):
                source.shared = buffer.shared = True
