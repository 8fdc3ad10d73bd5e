"""One run of the user's function, with its parts beside it.

The function runs on plain tensors and calls torch's own kernels, so its totals are what the plain
network computes. Below autograd every operator passes :meth:`Session.dispatch`, which looks up the
affine map of those that meet parts; the parts lie in buffers beside the totals' storages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils.weak import WeakIdKeyDictionary

from lmd_cli.decomposition.errors import DecompositionError, LeakError
from lmd_cli.decomposition.memory import is_continuous
from lmd_cli.decomposition.registry import Rule, find_rule
from lmd_cli.decomposition.tracing.aliases import Aliases
from lmd_cli.decomposition.tracing.calls import Call, called
from lmd_cli.decomposition.tracing.carriers import tensors_in
from lmd_cli.decomposition.tracing.modes import (
    Elsewhere,
    Functions,
    Operators,
    followed,
    uncompiled,
)
from lmd_cli.decomposition.tracing.operators import Operator, operator
from lmd_cli.decomposition.tracing.patches import (
    custom_functions,
    fused_layers,
    is_custom,
    started_threads,
    submitted_calls,
)
from lmd_cli.decomposition.tracing.run import CONSTANT, LEAVES, CalledFunction

#: Torch's functions whose result is a number of Python's, or text.
NUMBERS = {
    *("item", "__bool__", "__int__", "__float__", "__index__", "__complex__", "is_nonzero"),
    *("equal", "allclose", "__contains__", "__format__", "__repr__", "__str__"),
}


class Session(Aliases):
    """One decomposition while it runs; its arguments are those of :class:`.Run`."""

    @contextmanager
    def open(self) -> Iterator[Session]:
        """Follows the operators of this thread until the end of the block.

        Raises:
            DecompositionError: the first that was raised, even if the function went on.
        """
        with (
            self.tracker.active(self),
            custom_functions.active(self.custom),
            torch.jit.optimized_execution(False),  # fused kernels hide operators
            uncompiled(),
            fused_layers.active(self.tracker),
            started_threads.active(self.elsewhere),
            submitted_calls.active(self.elsewhere),
            Functions(self),
            Operators(self),
        ):
            try:
                yield self
            except DecompositionError as error:
                self.failed(error)
            except Exception as error:
                if self.failure is None:
                    raise
                raise self.failure from error
            if self.failure is not None:
                raise self.failure

    def elsewhere(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs a function in another thread, where no operator may meet parts."""
        with Elsewhere(self):
            return function(*args, **kwargs)

    def close(self) -> None:
        """Lets go of what it holds: it is part of circles, which no tensor must wait in."""
        self._buffers.clear()
        self._plain.clear()
        self.copied, self.program = WeakIdKeyDictionary(), None
        self.on_layer = None

    # -- what must not happen ------------------------------------------------------------

    def _require_fixed(self, op: Operator, args: tuple[Any, ...]) -> None:
        """What torch draws inside a function of features (dropout) is no constant."""
        if self.calls:
            caller = self.calls[-1]
            asked = caller.name.strip("_") == op.name.strip("_")  # by the user
            drawn = not asked and self.any_carries(caller.given)
        else:
            keys = (id(t.untyped_storage()) for t in tensors_in(args))
            drawn = any(self._unwritten.get(key, False) for key in keys)
        if drawn:
            raise self.refused(op.function, "it is random; call .eval() on the network")

    def _require_written(self, op: Operator, args: Any, kwargs: Any) -> None:
        """What is read, operators have written (``noise`` keeps what RReLU draws)."""
        if op.view or op.factory or op.metadata_write:
            return
        given = op.bind(args, kwargs).items()
        tensors = ((name, t) for name, t in given if isinstance(t, Tensor) and name != "noise")
        keys = {name: id(t.untyped_storage()) for name, t in tensors}
        if any(keys[name] in self._unwritten for name in keys.keys() - set(op.written)):
            how = (
                "reads memory that no operator of torch has written to: code outside torch has (an "
                "extension, a kernel), and its parts are not known; make it a custom operator or "
                "autograd function and register a rule for it"
            )
            raise self.leak(None, how)
        for name in keys.keys() & set(op.written):
            self._unwritten.pop(keys[name], None)

    # -- operators -----------------------------------------------------------------------

    def dispatch(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator of the function that runs.

        Raises:
            DecompositionError: the operator meets parts and has no rule, or would drop them.
        """
        if self._paused:
            return function(*args, **kwargs)
        try:
            if not isinstance(function, OpOverload):
                return self._higher_order(function, args, kwargs)
            carrying: list[Tensor] = []
            depends = self._scan(args, carrying)
            if kwargs:
                depends = self._scan(kwargs.values(), carrying) or depends
            op = operator(function)
            if op.draws and not carrying:  # else its rule knows
                self._require_fixed(op, args)
            if self._unwritten:
                self._require_written(op, args, kwargs)
            if depends and not (op.metadata_write or op.factory):
                return self._follow(op, args, kwargs, carrying)
        except DecompositionError as error:
            self.fail(error)
        result = function(*args, **kwargs)
        if op.allocates:
            self._allocated(result, like_features=bool(carrying))
        return result

    def _scan(self, values: Iterable[Any], carrying: list[Tensor]) -> bool:
        """Whether any argument depends on the inputs; those that carry parts are added to a list,
        and none that carries none may lie over memory that carries parts."""
        depends, buffers = False, self._buffers
        for value in values:
            if isinstance(value, Tensor):
                try:
                    storage = value.untyped_storage()
                    buffer = buffers.get(id(storage))
                    if buffer is not None:
                        depends = True
                        if buffer.rows and id(value) not in self._plain:
                            carrying.append(value)
                    elif storage.data_ptr() in self._keys and self._overlaps(storage):
                        how = (
                            "reads the memory of a tensor that carries parts past torch (DLPack, "
                            "an extension), which would drop them; use .detach().clone() where a "
                            "constant is meant"
                        )
                        raise self.leak(None, how)
                except (NotImplementedError, RuntimeError):  # it has no storage
                    continue
            elif isinstance(value, (list, tuple)) and value and not isinstance(value[0], int):
                depends = self._scan(value, carrying) or depends
        return depends

    def _higher_order(self, function: HigherOrderOperator, args: Any, kwargs: Any) -> Any:
        """An operator that takes functions (flex attention), by the operators that it calls."""
        made_of = function.py_kernels.get(DispatchKey.CompositeExplicitAutograd)
        if not callable(made_of):
            raise self.refused(function, "the operators that it calls cannot be followed")
        return followed(self, made_of, *args, **kwargs)

    def _follow(self, op: Operator, args: Any, kwargs: Any, carrying: list[Tensor]) -> Any:
        """An operator that reads or writes what depends on the inputs."""
        functional = op.functional
        rule = None if functional is None else find_rule(functional.function)
        if rule is None and op.composite and (carrying or op.view):  # ``reshape`` may copy
            with Operators(self):
                return op.function.decompose(*args, **kwargs)
        if op.written:
            return self._write(op, rule, args, kwargs, bool(carrying))
        if rule is None and op.view:
            return self._view(op, args, kwargs)
        given = self._held(op.bind(args, kwargs))
        if not carrying and not op.name.startswith("_nested_tensor_from"):  # made of copies
            return self._constant(op, given, op.function(*args, **kwargs))
        if rule is None:
            return self._without_rule(op, given, args, kwargs)
        call = Call(self, op.function, rule, given, carrying, op)
        with self._with_gradients():
            total, maps = call.linearise(**given)
        total = self._apart(total, maps)
        self._register(call, total, maps)
        return total

    def _without_rule(self, op: Operator, given: dict[str, Any], args: Any, kwargs: Any) -> Any:
        if op.gives_numbers:
            return self._number(op, args, kwargs)
        result = op.function(*args, **kwargs) if op.gives_tensors else None
        if result is None or any(map(is_continuous, tensors_in([result]))):
            raise self.no_rule(op.function)
        return self._constant(op, given, result)

    def _number(self, op: Operator, args: Any, kwargs: Any) -> Any:
        """What leaves torch as a number is a constant if the user, and no function of torch, takes
        it out of a tensor."""
        asked = not self.calls or self.calls[-1].name in NUMBERS
        read = op.name == "_local_scalar_dense" and any(map(is_continuous, tensors_in(args)))
        if read and not asked:
            raise self.leak(op.function, LEAVES)
        self.met(CONSTANT, op)
        return op.function(*args, **kwargs)

    # -- functions that are no operators -------------------------------------------------

    def by_function(self, function: Any, rule: Rule, args: Any, kwargs: Any) -> Any:
        """A Python function or custom autograd function that has a rule of its own."""
        run = function.apply if is_custom(function) else function
        try:
            with self.paused():
                given = self._held({str(i): value for i, value in enumerate(args)} | kwargs)
                carrying = [t for t in tensors_in(given.values()) if self.carries(t)]
                call = Call(self, run, rule, given, carrying)
                total, maps = called(call.linearise, given)
                total = self._apart(total, maps)
                self._register(call, total, maps, partial(called, run))
        except DecompositionError as error:
            self.fail(error)
        return total

    def custom(self, function: Any, run: Any, args: Any, kwargs: Any) -> Any:
        """A custom autograd function: by its rule, or by the operators that it calls, if its result
        comes from these."""
        with torch._C.DisableTorchFunction():  # what is asked here is no call of the user's
            carries = not self._paused and self.any_carries(args, kwargs)
            rule = find_rule(function) if carries else None
            if rule is not None:
                with CalledFunction(self, function) as call:
                    call.result = self.by_function(function, rule, args, kwargs)
                return call.result
            recorded = carries and self._grad and torch.is_grad_enabled()
            if recorded and any(self.parts(t)[0].requires_grad for t in tensors_in(args)):
                why = "gradients do not go through a custom function without a rule"
                self.fail(self.refused(function, why))
        if not carries:
            return run(*args, **kwargs)
        earlier = self.failure
        try:
            result = run(*args, **kwargs)
        except LeakError as error:
            self.failure = earlier or self.no_rule(function)
            raise self.failure from error
        with torch._C.DisableTorchFunction():
            self.require_seen(function, result)
        return result
