"""Operators whose results share memory with their arguments: views, and writes in place, which give
the parts of their functional form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.linearised.program import Step
from lmd_cli.decomposition.maps import Affine, Map
from lmd_cli.decomposition.memory import Place, is_continuous, overlaps
from lmd_cli.decomposition.registry import Rule
from lmd_cli.decomposition.tracing.calls import Call, holds_infinity
from lmd_cli.decomposition.tracing.carriers import tensors_in, whole_storage
from lmd_cli.decomposition.tracing.modes import DETACHING, OUTWARD, followed
from lmd_cli.decomposition.tracing.operators import Operator, operator
from lmd_cli.decomposition.tracing.results import Results
from lmd_cli.decomposition.tracing.run import CONSTANT

STRUCTURE = Rule(lambda *_: None, "structure", "eq. 13")


class Aliases(Results):
    """Follows views and writes, also into plain tensors."""

    # -- views -----------------------------------------------------------------------------

    def _view(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Results that share memory with their input have its parts already."""
        source = args[0] if args else kwargs["self"]
        result = op.function(*args, **kwargs)
        if op.name == "detach":
            return self._detached(source, result)
        if id(source) in self._plain:
            self.mark_plain(result)
        elif self.carries(source):
            if op.name == "view" and result.dtype != source.dtype:
                raise self.refused(op.function, "reading the bytes as another type is not linear")
            if op.name == "as_strided" and not self._covers(source, result):
                raise self.refused(op.function, "it reads memory that has no parts")
            self.met(STRUCTURE, op)
        return result

    def _covers(self, source: Tensor, view: Tensor) -> bool:
        """Whether the parts beside a tensor's storage are those of all of a view."""
        buffer, place = self.buffer_of(source), self.place_of(view)
        assert buffer is not None
        with self._with_gradients():
            buffer.read(self.place_of(source))  # joins what was concatenated
            data = buffer.data
        first = place.offset - buffer.start
        return data is not None and first >= 0 and first + place.extent <= data.shape[1]

    def _detached(self, source: Tensor, result: Tensor) -> Tensor:
        """What is detached is a constant; where nobody can tell it from what carries parts (torch
        makes another object of it), it is a copy.

        Raises:
            LeakError: no function was called: so does scripted code with what it is given, once it
                is compiled for gradients.
        """
        if not self.calls and self.carries(source):
            how = (
                "detaches a tensor that carries parts, as torch.nested.nested_tensor does, and all "
                "scripted code that has run with gradients (load or script that anew, and run it "
                "under torch.no_grad() only)"
            )
            raise self.leak(None, how)
        self.met(CONSTANT, None)
        if self.function in DETACHING or self.function in OUTWARD:
            return result
        clone = operator(torch.ops.aten.clone.default)
        copy = self._constant(clone, {"input": source}, source.clone())
        self._copies.add(self.place_of(copy).key)
        return copy

    # -- writes ----------------------------------------------------------------------------

    def adopt(self, t: Tensor, carries: bool = True) -> None:
        """A plain tensor that is about to be written to: if parts are, what it held is bias."""
        held, before = whole_storage(t), self.buffer_of(t)
        if carries:
            self.masked = self.masked or holds_infinity(held)
            buffer = self.give(held, held.clone().unsqueeze(0), (self.layout.bias,))
        else:
            buffer = self.track(held)
        if self.program is not None:
            value = held.clone()
            given = {} if before is None else {"input": Place(held, before.key)}

            def copied(values: dict[str, Any]) -> Any:
                return values.get("input", value).clone()

            step = Step("a plain tensor", "constant", copied, given)
            step.add_constant(Place(held, buffer.key), value)
            if carries:
                step.outputs[0].map = Affine(None, (), value)
            self.program.steps.append(step)

    def _write(self, op: Operator, rule: Rule | None, args: Any, kwargs: Any, carries: bool) -> Any:
        """An operator that writes to its arguments: the parts of its functional form, whose rule
        is given, in their place."""
        given = op.bind(args, kwargs)
        targets = list(tensors_in(given.get(name) for name in op.written))
        if any(map(self._is_detached, targets)):
            if rule is not None and rule.kind == "refused":
                raise self.refused(op.function, rule.equation)  # which knows better what to do
            how = (
                "writes through a detached view, past the parts of what it shares memory with; "
                "write to a .clone() instead"
            )
            raise self.leak(op.function, how)
        if not carries or not any(map(is_continuous, targets)):
            return self._write_constant(op, given, targets)
        if rule is None:
            raise self.no_rule(op.function)
        if len(targets) > 1:
            raise self.refused(op.function, "it writes to several tensors; use its other form")
        lazy = targets[0].is_neg() or targets[0].is_conj()
        if lazy and op.name in ("neg_", "conj_physical_"):  # which overlook it in a handler
            return followed(self, lambda: targets[0].copy_(op.functional.call(given)))  # type: ignore[union-attr]
        return self._write_parts(op, rule, given, targets[0])

    def _is_detached(self, t: Tensor) -> bool:
        buffer = self.buffer_of(t)
        plain = buffer is not None and bool(buffer.rows) and id(t) in self._plain
        return plain or (buffer is not None and buffer.key in self._copies)

    def _write_constant(self, op: Operator, given: dict[str, Any], targets: list[Tensor]) -> Any:
        self.met(CONSTANT, op)
        for t in targets:
            if not self.depends(t):
                self.adopt(t, carries=False)
        step = self._step(Call(self, op.function, CONSTANT, self._held(given), operator=op))
        result = op.call(given)
        if self.program is not None and step is not None:
            step.function, step.fresh = op.rewritten, False
            for index, t in enumerate(targets):
                step.add_constant(self.place_of(t), t, index)
                storage = t.untyped_storage()
                step.outputs[-1].whole = (0, storage.nbytes() // t.element_size(), t.dtype)
            self.program.steps.append(step)
        return result

    def _write_parts(self, op: Operator, rule: Rule, given: dict[str, Any], target: Tensor) -> Any:
        functional = op.functional
        assert functional is not None
        in_place = functional.name != op.name  # and no out= form, which may resize its target
        if in_place and not self.carries(target):
            self.adopt(target)
        values = self._held({k: v for k, v in given.items() if k in functional.names})
        carrying = [t for t in tensors_in(values.values()) if self.carries(t)]
        call = Call(self, functional.function, rule, values, carrying, functional)
        with self._with_gradients():
            total, raw = call.linearise(**values)
        if isinstance(raw, (list, tuple)):
            total, raw = total[0], raw[0]
        if raw is None or (in_place and total.shape != target.shape):
            op.call(given)  # for the last, torch raises an error
            return target
        if target.shape != total.shape:
            if self.carries(target) and target.numel() < total.numel():
                raise self.refused(op.function, "it makes a target larger that has parts")
            target.resize_(total.shape)
        if not self.carries(target):
            self.adopt(target)
        with self._with_gradients():
            linear_map = self._completed(call, raw, total)
            scaled = self._scales(linear_map, target)
            made = None if scaled else self._parts_through(linear_map, total)
        step = self._step(call)
        if step is not None:
            step.outputs.append(self._output(linear_map, None))
        self._put_total(op, given, target, total)
        buffer, place = self.buffer_of(target), self.place_of(target)
        assert buffer is not None
        if made is not None:
            with self._with_gradients():
                stack = made[0].to(target.dtype).expand(-1, *target.shape)
                buffer.write(stack, made[1], place)
            self._note_shared(buffer, stack, linear_map)
        self.met(rule, op)
        if self.program is not None and step is not None:
            assert buffer.data is not None
            output, step.fresh = step.outputs[0], False
            output.place, data = place, buffer.data
            output.whole = (buffer.start, data.shape[1], data.dtype)
            self.program.steps.append(step)
        return target

    def _scales(self, linear_map: Map, target: Tensor) -> bool:
        """Multiplies the target's parts where they lie, if the map does that and it can be."""
        if self._grad or not isinstance(linear_map, Affine):  # autograd may have kept the parts
            return False
        if [*map(id, linear_map.operands)] != [id(target)]:
            return False
        factor, buffer = linear_map.factor_alone(), self.buffer_of(target)
        assert buffer is not None
        return factor is not None and buffer.scale(self.place_of(target), factor)

    def _put_total(
        self, op: Operator, given: dict[str, Any], target: Tensor, total: Tensor
    ) -> None:
        """Writes a total; where elements overlap, or others are read in the same memory, torch
        does, and has to get the same."""
        memory = target.untyped_storage().data_ptr()
        read = tensors_in(v for k, v in given.items() if k not in op.written)
        dense = (t for t in read if t.layout is torch.strided)  # others have no such memory
        shared = any(t.untyped_storage().data_ptr() == memory for t in dense)
        if not shared and not overlaps(target.shape, target.stride()):
            target.copy_(total)
            return
        op.call(given)
        if not bool(((target == total) | (target.isnan() & total.isnan())).all()):
            why = "elements of its target overlap, or are read while it writes; use a .clone()"
            raise self.refused(op.function, why)
