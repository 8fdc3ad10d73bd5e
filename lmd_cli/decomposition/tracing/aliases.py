"""Operators whose results share memory with their arguments: views, and writes in place, which give
the parts of their functional form."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import LeakError, NoRuleError
from lmd_cli.decomposition.linearised.program import place_of
from lmd_cli.decomposition.memory import Buffer, Place
from lmd_cli.decomposition.registry import Rule, find_rule
from lmd_cli.decomposition.tracing.calls import holds_infinity
from lmd_cli.decomposition.tracing.carriers import tensors_in, whole_storage
from lmd_cli.decomposition.tracing.operators import Operator, operator
from lmd_cli.decomposition.tracing.results import CONSTANT, Results

STRUCTURE = Rule(lambda *_: None, "structure", "eq. 13")


class Aliases(Results):
    """Follows views and writes, also into plain tensors.

    Attributes:
        _copies: numbers of the storages that stand for detached tensors.
    """

    _copies: set[int]

    def no_rule(self, function: Any) -> NoRuleError:
        """The error for an operation without a rule."""
        raise NotImplementedError

    def _decomposed(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator as those that it is made of."""
        raise NotImplementedError

    # -- views -----------------------------------------------------------------------------

    def _view(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Results that share memory with their input have its parts already."""
        source = args[0] if args else kwargs["self"]
        result = op.function(*args, **kwargs)
        if op.name == "detach":
            return self._detached(source, result)
        views = result if isinstance(result, (list, tuple)) else (result,)
        if id(source) in self._plain:
            self.mark_plain(views)
            return result
        buffer = self.buffer_of(source)
        if buffer is not None and buffer.rows:
            self._check_views(op, source, buffer, views)
            self.notes.met(STRUCTURE, op)
        return result

    def _check_views(
        self, op: Operator, source: Tensor, buffer: Buffer, views: Sequence[Tensor]
    ) -> None:
        if op.name == "view" and views[0].dtype != source.dtype:
            raise self.refused(op.function, "reading the bytes as another type is not linear")
        if op.name != "as_strided":
            return
        with self._with_gradients() if self._grad else nullcontext():
            buffer.read(Place(source, buffer.key))
            data = buffer.data
        assert data is not None
        end = views[0].storage_offset() - buffer.start + Place(views[0], 0).extent
        if end > data.shape[1] or views[0].storage_offset() < buffer.start:
            raise self.refused(op.function, "it reads memory that has no parts")

    def _detached(self, source: Tensor, result: Tensor) -> Tensor:
        """What is detached is a constant; where nobody can tell it from what carries parts (torch
        makes another object of it), it is a copy."""
        self.notes.met(CONSTANT, None)
        if self.notes.detaching:
            return result
        clone = operator(torch.ops.aten.clone.default)
        copy = self._constant(clone, {"input": source}, source.clone())
        self._copies.add(self.buffer_of(copy).key)  # type: ignore[union-attr]
        return copy

    # -- writes ----------------------------------------------------------------------------

    def adopt(self, t: Tensor) -> Buffer:
        """A plain tensor that is about to receive parts: what it held is bias."""
        held, before = whole_storage(t), self.buffer_of(t)
        self.masked = self.masked or holds_infinity(held)
        buffer = self.give(held, held.clone().unsqueeze(0), (self.layout.bias,))
        if self.program is not None:
            source = None if before is None else Place(held, before.key)
            self.program.constant(Place(held, buffer.key), held.clone(), source)
        return buffer

    def _write(
        self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], carries: bool
    ) -> Any:
        """An operator that writes to its arguments: its functional twin's parts, in their place."""
        given = op.bind(args, kwargs)
        targets = [t for name in op.written for t in tensors_in([given.get(name)])]
        for t in targets:
            buffer = self.buffer_of(t)
            if buffer is None:
                continue
            if (buffer.rows and id(t) in self._plain) or buffer.key in self._copies:
                raise LeakError(
                    f"{self.notes.called_as(op.function)} {self.tracker.describe()} writes through "
                    "a detached view, past the parts of what it shares memory with; write to a "
                    ".clone() instead"
                )
        if not carries:
            return self._write_constant(op, given, targets, args, kwargs)
        twin = op.functional
        rule = find_rule(twin.function) if twin is not None else None
        if twin is None or rule is None:
            if op.composite:
                return self._decomposed(op, args, kwargs)
            raise self.no_rule(op.function)
        return self._write_parts(op, twin, rule, given, targets)

    def _write_constant(
        self, op: Operator, given: dict[str, Any], targets: list[Tensor], args: Any, kwargs: Any
    ) -> Any:
        self.notes.met(CONSTANT, op)
        for t in targets:
            if not self.depends(t):
                self._track_constant(t)
        if self.program is None:
            return op.function(*args, **kwargs)
        step = self.program.begin(self, op, CONSTANT, self._held(given))
        result = op.function(*args, **kwargs)
        step.writes_constants(op, [(place_of(self, t), t) for t in targets])
        self.program.add(step)
        return result

    def _track_constant(self, t: Tensor) -> None:
        """A plain tensor that constants of the operating point are about to be written into."""
        held = whole_storage(t)
        buffer = self.track(held)
        if self.program is not None:
            self.program.constant(Place(held, buffer.key), held.clone(), carries=False)

    def _write_parts(
        self,
        op: Operator,
        twin: Operator,
        rule: Rule,
        given: dict[str, Any],
        targets: list[Tensor],
    ) -> Any:
        target = targets[0]
        if len(targets) > 1:
            raise self.refused(op.function, "it writes to several tensors; use its other form")
        floating = target.is_floating_point() or target.is_complex()
        if floating and not self.carries(target):
            self.adopt(target)
        values = self._held({k: v for k, v in given.items() if k in twin.names})
        total, found = self._linearise(twin, rule, values)
        if isinstance(found, (list, tuple)):
            total, found = total[0], found[0]
        in_place = twin.name != op.name  # and no out= form, which may resize its target
        if not floating or found is None or (in_place and total.shape != target.shape):
            op.function(*_ordered(op, given))  # the last is an error of torch's
            return target
        with self._with_gradients() if self._grad else nullcontext():
            linear_map = self._completed(rule, values, found)
            stack, rows = self._through(linear_map, total)
        self._require_shape(stack, rows, total)
        step = None if self.program is None else self.program.begin(self, twin, rule, values)
        if step is not None:
            step.add(self, linear_map, None)
        if target.shape != total.shape:
            target.resize_(total.shape)
        target.copy_(total)
        buffer = self.buffer_of(target)
        assert buffer is not None
        place = Place(target, buffer.key)
        with self._with_gradients() if self._grad else nullcontext():
            stack = stack.to(target.dtype).expand(-1, *target.shape)
            buffer.write(stack, rows, place)
        self._note_shared(buffer, stack, linear_map)
        self.notes.met(rule, op)
        if step is not None:
            step.written_at(place, buffer)
            self.program.add(step)  # type: ignore[union-attr]
        return target


def _ordered(op: Operator, given: dict[str, Any]) -> list[Any]:
    return [given[name] for name in op.names if name in given]
