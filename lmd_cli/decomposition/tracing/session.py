"""One run of the user's function, with its parts beside it.

The function runs on plain tensors and calls torch's own kernels, so its totals are what the plain
network computes. Below autograd every operator passes :meth:`Session.dispatch`, which looks up the
affine map of those that meet parts; the parts lie in buffers beside the totals' storages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils.weak import WeakIdKeyDictionary

from lmd_cli.decomposition.errors import DecompositionError, LeakError, NoRuleError
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.decomposition.module_rules import VariantByModule, plain_modules_of
from lmd_cli.decomposition.registry import Rule, find_rule
from lmd_cli.decomposition.tracing.aliases import Aliases
from lmd_cli.decomposition.tracing.autograd_functions import custom_functions
from lmd_cli.decomposition.tracing.calls import Call
from lmd_cli.decomposition.tracing.carriers import tensors_in
from lmd_cli.decomposition.tracing.fused_layers import fused_layers
from lmd_cli.decomposition.tracing.higher_order import as_operators
from lmd_cli.decomposition.tracing.modes import Functions, Operators, uncompiled
from lmd_cli.decomposition.tracing.modules import ModuleTracker, known_modules
from lmd_cli.decomposition.tracing.notes import Notes
from lmd_cli.decomposition.tracing.operators import Operator, operator
from lmd_cli.decomposition.tracing.outside import HOLLOW
from lmd_cli.decomposition.tracing.results import CONSTANT

#: What an operator may meet: values that depend on the inputs, and among them some with parts.
_DEPENDS, _CARRIES = 1, 2
NUMBER = (int, float)


class Session(Aliases):
    """State of one decomposition.

    Args:
        layout: rows of the stacks.
        variants: linearisation rules, by module.
        root: module whose qualified names are used in errors and records.
        notes: takes down what was called, by whom, and how well parts summed to totals.
        program: takes the maps down, in order.
        plain_modules: names of modules that may turn parts into constants.
        grad: let gradients flow through the parts.
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
        self._variants, self.program = variants, program
        self.tracker = ModuleTracker(root)
        names = known_modules(plain_modules, root, "plain_modules") | plain_modules_of(root)
        self.notes = Notes(self, audit, on_layer, names)
        self.failure: DecompositionError | None = None
        self.gradients = torch.is_grad_enabled()  # the plain call would record them
        self._grad, self._above = grad, False
        self._paused, self._copies = 0, set()
        self.copied = WeakIdKeyDictionary()
        self.masked = False

    @contextmanager
    def open(self) -> Iterator[Session]:
        """Follows the operators of this thread until the end of the block.

        Raises:
            DecompositionError: the first that was raised, even if the function went on.
        """
        with ExitStack() as stack:
            stack.enter_context(
                self.tracker.active(self.notes.module_done, self.failed, self.any_carries)
            )
            stack.enter_context(custom_functions(self.custom))
            stack.enter_context(
                torch.jit.optimized_execution(False)
            )  # fused kernels hide operators
            stack.enter_context(uncompiled())
            stack.enter_context(fused_layers(self.tracker))
            stack.enter_context(Functions(self))
            stack.enter_context(Operators(self))
            try:
                yield self
            except DecompositionError as error:
                self.failure = self.failure or error
            except Exception as error:
                if self.failure is None:
                    raise
                raise self.failure from error
            if self.failure is not None:
                raise self.failure

    def close(self) -> None:
        """Lets go of what it holds: it is part of circles, which no tensor must wait in."""
        self._buffers.clear()
        self._plain.clear()
        self.copied, self.program = WeakIdKeyDictionary(), None
        self.notes.close()

    def failed(self, error: DecompositionError) -> None:
        """Notes the first error of ours."""
        self.failure = self.failure or error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Operators run as they are until the end of the block."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    # -- what must not happen ------------------------------------------------------------

    def dropped(self, name: str, module: nn.Module, output: Any, error: LeakError) -> None:
        """A module dropped parts: an error, except where gaps are being listed."""
        self.failed(error)
        raise error

    def outward(self, function: Any, args: Any, kwargs: Any) -> None:
        """A function is about to hand values to code that knows nothing of parts.

        Raises:
            LeakError: its arguments carry parts.
        """
        if self.any_carries(args, kwargs):
            error = LeakError(self.notes.leaving(function))
            self.failed(error)
            raise error
        self.shown(args, kwargs)

    def printed(self, args: Any) -> None:
        """Values are turned into text: constants."""
        if self.any_carries(args):
            self.notes.met(CONSTANT, None)

    def no_rule(self, function: Any) -> NoRuleError:
        """The error for an operation without a rule."""
        return NoRuleError(self.notes.no_rule(function))

    def _require_fixed(self, op: Operator, args: Sequence[Any]) -> None:
        """What torch draws inside a function of features (dropout) is no constant of the network.

        Raises:
            NoRuleError: the operator draws random numbers there.
        """
        asked, given = self.notes.asked_for(op)
        hidden = not asked and self.any_carries(given)
        unseen = given is None and any(self.outside.like_features(t) for t in tensors_in(args))
        if hidden or unseen:
            raise self.refused(op.function, "it is random; call .eval() on the network")

    def _require_written(self, op: Operator, args: Any, kwargs: Any) -> None:
        """Memory is read that an operator has written to.

        Raises:
            LeakError: something else has.
        """
        given = op.bind(args, kwargs)
        if self.outside.read(op, given) is not None:
            raise LeakError(self.notes.unseen())

    # -- operators -----------------------------------------------------------------------

    def dispatch(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator of the function that runs.

        Raises:
            DecompositionError: the operator meets parts and has no rule, or would drop them.
        """
        if self._paused:
            return function(*args, **kwargs)
        try:
            if isinstance(function, HigherOrderOperator):
                return as_operators(self, function, args, kwargs)
            met = self._met(args)
            if kwargs:
                met = max(met, self._met(kwargs.values()))
            op = operator(function)
            if op.draws and met != _CARRIES:  # else its rule knows
                self._require_fixed(op, args)
            if self.outside.hollow:
                self._require_written(op, args, kwargs)
            if met:
                return self._follow(op, args, kwargs, met == _CARRIES)
        except DecompositionError as error:
            self.failed(error)
            raise
        result = function(*args, **kwargs)
        if op.name in HOLLOW:
            self.outside.made(result)
        return result

    def _met(self, values: Iterable[Any]) -> int:
        """What is among the arguments: tensors that carry parts, or that depend on the inputs.

        Raises:
            LeakError: one lies over memory that carries parts, and carries none.
        """
        met, buffers = 0, self._buffers
        for value in values:
            if isinstance(value, Tensor):
                try:
                    storage = value.untyped_storage()
                    buffer = buffers.get(id(storage))
                    if buffer is None:
                        if self.outside.is_alias(storage):
                            raise LeakError(self.notes.aliased())
                    elif met < _CARRIES:
                        met = _CARRIES if buffer.rows and id(value) not in self._plain else _DEPENDS
                except (NotImplementedError, RuntimeError):
                    continue
            elif (
                isinstance(value, (list, tuple))
                and value
                and not isinstance(value[0], (int, float))
            ):
                met = max(met, self._met(value))
        return met

    def _follow(
        self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], carries: bool
    ) -> Any:
        if op.metadata_write or op.factory:
            result = op.function(*args, **kwargs)
            if op.name in HOLLOW:
                self.outside.made(result, like_features=carries)
            return result
        if op.written:
            return self._write(op, args, kwargs, carries)
        rule = find_rule(op.function)
        if rule is None and op.view:
            if op.composite:  # ``reshape`` copies where it has to
                return self._decomposed(op, args, kwargs)
            return self._view(op, args, kwargs)
        given = self._held(op.bind(args, kwargs))
        if not carries and not op.name.startswith("_nested_tensor_from"):  # made of copies
            return self._constant(op, given, op.function(*args, **kwargs))
        if rule is None:
            return self._without_rule(op, given, args, kwargs)
        total, maps = self._linearise(op, rule, given)
        self._register(op, rule, given, total, maps)
        return total

    def _without_rule(
        self, op: Operator, given: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if op.composite:
            return self._decomposed(op, args, kwargs)
        if op.gives_numbers:
            return self._number(op, args, kwargs)
        result = op.function(*args, **kwargs) if op.gives_tensors else None
        if result is None or any(
            t.is_floating_point() or t.is_complex() for t in tensors_in([result])
        ):
            raise self.no_rule(op.function)
        return self._constant(op, given, result)

    def _number(self, op: Operator, args: Any, kwargs: Any) -> Any:
        """What leaves torch as a number is a constant, if the user asked for it.

        Raises:
            LeakError: a function takes a number out of a tensor on its own.
        """
        unasked = op.name == "_local_scalar_dense" and not self.notes.asks_for_number
        if unasked and any(map(_is_float, tensors_in(args))):
            raise LeakError(self.notes.leaving(self.notes.function or op.function))
        self.notes.met(CONSTANT, op)
        return op.function(*args, **kwargs)

    def _decomposed(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator as those that it is made of."""
        with Operators(self):
            return op.function.decompose(*args, **kwargs)

    # -- functions that are no operators -------------------------------------------------

    def by_function(self, function: Any, rule: Rule, args: Any, kwargs: Any) -> Any:
        """A Python function or custom autograd function that has a rule of its own."""
        given = {str(i): value for i, value in enumerate(args)} | kwargs
        call = Call(self, function, rule, given)
        try:
            with self.paused():
                total, maps = call.linearise(args, kwargs)
            self._register(None, rule, given, total, maps, _replayed(call, len(args), kwargs))
        except DecompositionError as error:
            self.failed(error)
            raise
        return total

    def custom(self, function: Any, run: Any, args: Any, kwargs: Any) -> Any:
        """A custom autograd function: by its rule, or by the operators that it calls.

        Raises:
            NoRuleError: it has no rule, and its result does not come from torch's operators.
        """
        with torch._C.DisableTorchFunction():  # what is asked here is no call of the user's
            carries = not self._paused and self.any_carries(args, kwargs)
            rule = find_rule(function) if carries else None
            if rule is not None:
                with self.notes.calling(function) as call:
                    call.result = self.by_function(function, rule, args, kwargs)
                return call.result
            if carries:
                self._require_no_gradients(function, args)
        earlier = self.failure
        try:
            result = run(*args, **kwargs)
        except LeakError as error:
            if not carries:
                raise
            self.failure = earlier or NoRuleError(self.notes.no_rule(function))
            raise self.failure from error
        if carries:
            with torch._C.DisableTorchFunction():
                self.require_seen(function, result)
        return result

    def require_seen(self, function: Any, result: Any) -> None:
        """What a function of the user's makes of parts comes from torch's operators.

        Raises:
            NoRuleError: it does not.
        """
        if any(t.is_floating_point() and not self.depends(t) for t in tensors_in([result])):
            error = NoRuleError(self.notes.no_rule(function))
            self.failed(error)
            raise error

    def _require_no_gradients(self, function: Any, args: Any) -> None:
        recorded = self._grad and torch.is_grad_enabled()
        if recorded and any(self.parts(t)[0].requires_grad for t in tensors_in(args)):
            raise self.refused(
                function, "gradients do not go through a custom function without a rule"
            )


def _is_float(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def _replayed(call: Call, count: int, kwargs: Any) -> Any:
    """The function as one of its arguments by name."""

    def run(values: dict[str, Any]) -> Any:
        args = [values[str(i)] for i in range(count)]
        return call.function(*args, **{name: values[name] for name in kwargs})

    return run
