"""Parts of what an operator makes, from the map that its rule gives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.program import Output, Step
from lmd_cli.decomposition.maps import (
    Affine,
    Bilinear,
    Map,
    Stack,
    affine_parts,
    bilinear_parts,
    same,
    shared_out,
    with_constant,
    with_shares,
    with_slopes,
)
from lmd_cli.decomposition.memory import Buffer, Piece, Place
from lmd_cli.decomposition.pytrees import leaves, map_leaves
from lmd_cli.decomposition.tracing.calls import Call
from lmd_cli.decomposition.tracing.modes import above_dispatch
from lmd_cli.decomposition.tracing.operators import Operator
from lmd_cli.decomposition.tracing.run import CONSTANT, Run

_NOTHING = nullcontext()


class Results(Run):
    """Gives parts to what operators make, and takes the maps down."""

    # -- what a rule is given, and what it gives ----------------------------------------------

    def _with_gradients(self) -> AbstractContextManager[None]:
        """Gradients of the parts are recorded until the end of the block, if they are wanted."""
        return above_dispatch() if self._grad else _NOTHING

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
            self.copied[copy] = self.place_of(value)
        return copy

    def _step(self, call: Call, live: Any = None) -> Step | None:
        """A step of the program, if one is kept, whose results are still to come."""
        if self.program is None:
            return None

        def template(value: Any) -> Any:
            if self.depends(value):
                return self.place_of(value)
            return self.copied.get(value, value) if isinstance(value, Tensor) else value

        op = call.operator
        return Step(
            self.called_as(call.function),
            call.rule.kind,
            live if op is None else op.call,
            pytree.tree_map(template, dict(call.given)),
            operator="" if op is None else op.name,
            where=self.tracker.describe(),
        )

    def _output(self, linear_map: Map, place: Place | None, index: int = 0) -> Output:
        """One result of a step, before anything is written."""
        operands, bias = linear_map.operands, self.layout.bias
        reads = tuple(map(self.place_of, operands))
        output = Output(self._kept_map(linear_map), reads, place, index=index)  # type: ignore[arg-type]
        if isinstance(linear_map, Affine):
            output.uniform = shared_out(linear_map.origin, self.variant)
            if linear_map.shares is not None:
                output.bias = (self._bias_of(operands[0]),)
        else:
            output.alone = tuple(self.parts(t)[1] == (bias,) for t in operands)
            output.bias = tuple(map(self._bias_of, operands))
        return output

    def _kept_map(self, linear_map: Map) -> Map:
        """The map alone, with nothing in it that the network may write to."""
        if not isinstance(linear_map, Affine):
            return Bilinear(linear_map.product, ())  # type: ignore[arg-type]
        constant = linear_map.constant
        if constant is not None and self.depends(constant):
            constant = constant.clone()
        return replace(linear_map, operands=(), constant=constant, secant=None, curve=None)

    def _bias_of(self, t: Tensor) -> Tensor | None:
        (stack, rows), bias = self.parts(t), self.layout.bias
        return stack[rows.index(bias)].unsqueeze(0).clone() if bias in rows else None

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
            listed = maps if isinstance(maps, (list, tuple)) else [maps]
            for index, (t, raw) in enumerate(zip_longest(total, listed)):
                if isinstance(t, Tensor):
                    self._register_one(call, t, raw, step, index)
        self.met(call.rule, call.operator)
        if self.program is not None and step is not None and step.outputs:
            self.program.steps.append(step)

    def _register_one(self, call: Call, t: Tensor, raw: Any, step: Step | None, index: int) -> None:
        if raw is t:  # made of other operations, which the program has
            return
        if raw is not None:
            linear_map = self._give_parts(call, t, raw)
            if step is not None:
                step.outputs.append(self._output(linear_map, self.place_of(t), index))
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
        if not isinstance(raw, Affine) or (raw.curve is None and not raw.splits):
            return raw
        activation, (x, *_) = self.variant.activation, raw.operands
        if raw.curve is not None:
            return with_slopes(raw, self.parts(x), total, self.layout, activation)
        if activation in ("sum", "ratio"):
            return with_shares(raw, self.parts(x), self.layout, self.variant)
        return raw

    def _parts_through(self, linear_map: Map, total: Tensor) -> Stack:
        """The parts of a result, in its shape."""
        stack, rows = self._through(linear_map, total)
        if stack.shape[1:] != total.shape or stack.shape[0] != len(rows):
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
            stack, rows = stack[order], sorted(rows)
        if linear_map.constant is None:
            return stack, tuple(rows)
        return with_constant(linear_map, stack, tuple(rows), self.layout, self.variant)

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
        pieces = [Piece(start, *own) for start, own in zip(linear_map.starts, stacks, strict=True)]
        buffer.put_pieces(pieces, Place(total, buffer.key))
        return True

    def _note_shared(self, buffer: Buffer, stack: Tensor, linear_map: Map) -> None:
        """Maps that only move elements may give their operand's own memory back."""
        storage = stack.untyped_storage()
        for t in linear_map.operands:
            source = self.buffer_of(t)
            if source is not None and source.lies_in(storage):
                source.shared = buffer.shared = True
