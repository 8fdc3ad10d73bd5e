"""Parts of what an operator makes, from the map that its rule gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from lmd_cli.decomposition.errors import DecompositionError, NoRuleError
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
)
from lmd_cli.decomposition.memory import Buffer, Piece, Place
from lmd_cli.decomposition.module_rules import VariantByModule
from lmd_cli.decomposition.registry import Rule
from lmd_cli.decomposition.tracing.calls import Call
from lmd_cli.decomposition.tracing.carriers import Carriers, tensors_in
from lmd_cli.decomposition.tracing.modes import above_dispatch
from lmd_cli.decomposition.tracing.modules import ModuleTracker
from lmd_cli.decomposition.tracing.operators import Operator
from lmd_cli.decomposition.variant import Variant

if TYPE_CHECKING:
    from lmd_cli.decomposition.tracing.notes import Notes

CONSTANT = Rule(lambda *_: None, "constant", "operating point")


class Results(Carriers):
    """Gives parts to what operators make, and takes the maps down.

    Attributes:
        program: takes the maps down, in order.
        tracker: knows the module that runs.
        notes: takes down what was called.
        copied: for constants that a program keeps as copies, where the original lies.
        gradients: whether the plain call would record gradients.
    """

    program: Program | None
    tracker: ModuleTracker
    notes: Notes
    copied: WeakIdKeyDictionary
    masked: bool
    gradients: bool
    _variants: VariantByModule
    _grad: bool
    _above: bool

    @property
    def variant(self) -> Variant:
        """The linearisation rules that hold in the running module."""
        variants = self._variants
        return variants.at(self.tracker.named_path) if variants else variants.base

    def refused(self, function: Any, why: str) -> NoRuleError:
        """The error for a call that a rule cannot handle."""
        return NoRuleError(f"{self.notes.called_as(function)} {self.tracker.describe()}: {why}")

    def dispatch(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator of the function that runs."""
        raise NotImplementedError

    # -- what a rule is given, and what it gives ----------------------------------------------

    def _linearise(self, op: Operator, rule: Rule, given: dict[str, Any]) -> tuple[Any, Any]:
        """The total and its map or maps."""
        call = Call(self, op.function, rule, given, op)
        if not self._grad:
            return call.linearise()
        with above_dispatch():
            return call.linearise()

    def _held(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments as a program may keep them: constants that the network could go on to
        write to are copied."""
        if self.program is None:
            return given
        return {name: self._copied(value) for name, value in given.items()}

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if isinstance(value, nn.Parameter) or self.carries(value):
                return value
            copy = value.clone()
            if self.depends(value):
                self.copied[copy] = place_of(self, value)
            return copy
        if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
            return type(value)(map(self._copied, value))
        return value

    def _register(
        self,
        op: Operator | None,
        rule: Rule,
        given: dict[str, Any],
        total: Any,
        maps: Any,
        live: Any = None,
    ) -> None:
        """Parts of what was just made."""
        if self.program is None and isinstance(total, Tensor):
            self._make(rule, given, total, maps, None)
            self.notes.met(rule, op)
            return
        several = isinstance(total, (list, tuple))
        totals = list(total) if several else [total]
        listed = list(maps) if several and isinstance(maps, (list, tuple)) else [maps]
        listed += [None] * (len(totals) - len(listed))
        step = None if self.program is None else self.program.begin(self, op, rule, given, live)
        for index, (t, linear_map) in enumerate(zip(totals, listed, strict=True)):
            if isinstance(t, Tensor):
                self._make(rule, given, t, linear_map, step, index)
        self.notes.met(rule, op)
        if step is not None:
            self.program.add(step)  # type: ignore[union-attr]

    def _make(
        self,
        rule: Rule,
        given: dict[str, Any],
        total: Tensor,
        found: Any,
        step: Step | None,
        index: int = 0,
    ) -> None:
        if found is None:
            if not self.depends(total):
                buffer = self.track(total)
                if step is not None:
                    step.add_constant(Place(total, buffer.key), total, index)
            return
        linear_map = self._give_parts(rule, given, total, found)
        if step is not None:
            step.add(self, linear_map, place_of(self, total), index)

    def _constant(self, op: Operator, given: dict[str, Any], result: Any) -> Any:
        """Computed from totals alone: constants of the operating point."""
        self.notes.met(CONSTANT, op)
        step = None if self.program is None else self.program.begin(self, op, CONSTANT, given)
        for index, t in enumerate(tensors_in([result])):
            if not self.depends(t) and t.layout is torch.strided:
                buffer = self.track(t)
                if step is not None:
                    step.add_constant(Place(t, buffer.key), t, index)
        if step is not None and step.outputs:
            self.program.add(step)  # type: ignore[union-attr]
        return result

    # -- maps ---------------------------------------------------------------------------------

    def _give_parts(self, rule: Rule, given: dict[str, Any], total: Tensor, found: Any) -> Map:
        """The parts of a result, and its map."""
        if self._grad and not self._above:
            with self._with_gradients():
                return self._give_parts(rule, given, total, found)
        linear_map = self._completed(rule, given, found)
        if not self._apart(linear_map, total):
            stack, rows = self._through(linear_map, total)
            self._require_shape(stack, rows, total)
            self._note_shared(self.give(total, stack, rows), stack, linear_map)
        return linear_map

    @contextmanager
    def _with_gradients(self) -> Iterator[None]:
        """Gradients of the parts are recorded until the end of the block."""
        self._above = True
        try:
            with above_dispatch():
                yield
        finally:
            self._above = False

    def _completed(self, rule: Rule, given: dict[str, Any], found: Any) -> Map:
        """A map with its operands and Appendix C's shares; a tensor that was made of other
        operations stands for its own parts."""
        if isinstance(found, Tensor):
            return Affine(same, (found,))
        if isinstance(found, Affine):
            if found.run is not None and not found.operands:
                found = replace(found, operands=(self._only(given),))
            if found.splits and self.variant.activation in ("sum", "ratio"):
                found = with_shares(found, self.parts(found.operands[0]), self.layout, self.variant)
        return found

    def _only(self, given: dict[str, Any]) -> Tensor:
        """The only argument that carries parts.

        Raises:
            NoRuleError: there are several.
        """
        found = [t for t in tensors_in(given.values()) if self.carries(t)]
        if len({id(t) for t in found}) != 1:
            raise NoRuleError(
                f"{self.notes.called_as(None)} {self.tracker.describe()}: several arguments carry "
                "parts; it has a rule for one only"
            )
        return found[0]

    def _through(self, linear_map: Map, total: Tensor) -> Stack:
        """The parts of a result."""
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

    def _apart(self, linear_map: Map, total: Tensor) -> bool:
        """A concatenation along channels whose parts meet in no row waits until it is read."""
        if not isinstance(linear_map, Affine) or not linear_map.starts:
            return False
        stacks = [self.parts(t) for t in linear_map.operands]
        rows = [row for _, own in stacks for row in own]
        if len(set(rows)) < len(rows):
            return False
        for t in linear_map.operands:
            buffer = self.buffer_of(t)
            assert buffer is not None
            buffer.shared = True
        pieces = [
            Piece(start, stack.shape[2], own, stack)
            for start, (stack, own) in zip(linear_map.starts, stacks, strict=True)
        ]
        buffer = self.track(total)
        buffer.put_pieces(pieces, Place(total, buffer.key))
        return True

    def _note_shared(self, buffer: Buffer, stack: Tensor, linear_map: Map) -> None:
        """Maps that only move elements may give their operand's own memory back."""
        storage = stack.untyped_storage()
        for t in linear_map.operands:
            source = self.buffer_of(t)
            if source is not None and source.lies_in(storage):
                source.shared = buffer.shared = True

    def _require_shape(self, stack: Tensor, rows: Any, total: Tensor) -> None:
        if stack.shape[1:] != total.shape or len(stack) != len(rows):
            raise DecompositionError(
                f"a rule gave parts of shape {tuple(stack.shape)} for a total of shape "
                f"{tuple(total.shape)} and rows {rows} {self.tracker.describe()}; parts are "
                "(len(rows), *total.shape)"
            )
