"""What a decomposition takes down beside the parts: who called what, by which rule, and how well
the parts summed to the totals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lmd_cli.decomposition.errors import ConservationError, LeakError
from lmd_cli.decomposition.pytrees import leaves, named_leaves
from lmd_cli.decomposition.registry import Rule, RuleInfo, function_name
from lmd_cli.decomposition.tracing.audit import (
    OperationRecord,
    clean_stack,
    is_broken,
    measured,
)
from lmd_cli.decomposition.tracing.autograd_functions import is_custom
from lmd_cli.decomposition.tracing.operators import Operator, operator

if TYPE_CHECKING:
    from lmd_cli.decomposition.tracing.session import Session


#: Torch's functions for recurrent layers and cells.
RECURRENT = frozenset(
    ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell")
)


#: Torch's functions whose result is a number of Python's, or text.
NUMBERS = {
    *("item", "__bool__", "__int__", "__float__", "__index__", "__complex__", "is_nonzero"),
    *("equal", "allclose", "__contains__", "__format__", "__repr__", "__str__"),
}


CONSTANT = RuleInfo("constant", "operating point")


class CalledFunction:
    """A function of torch while it runs, and the rules that its operators met."""

    __slots__ = ("brought", "coarse", "function", "given", "result", "rules")

    def __init__(self, function: Any, given: Any = ()):
        self.function, self.given = function, given
        self.rules: list[Rule] = []
        self.result: Any = None
        self.brought = self.coarse = 0.0


class Notes:
    """Coverage and audit of one session.

    Args:
        session: whose.
        audit: measure conservation and shares after every function; ``"raise"`` makes one that
            breaks conservation an error.
        on_layer: called as ``on_layer(name, module, output)`` after every module whose output
            carries parts.
        plain_modules: names of modules that may turn parts into constants.
    """

    def __init__(
        self,
        session: Session,
        audit: bool | Literal["raise"],
        on_layer: Any,
        plain_modules: frozenset[str],
    ):
        self._session, self._audit = session, audit
        self._on_layer, self._plain_modules = on_layer, plain_modules
        self._calls: list[CalledFunction] = []
        self._recurrent = 0
        self.depth = 0  # of handlers of torch's functions that run, each without the mode
        self.coverage: dict[tuple[str, str], RuleInfo] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.records: list[OperationRecord] = []
        self._residuals: dict[int, float] = {}

    def close(self) -> None:
        """Lets go of who listens."""
        self._on_layer = None

    # -- the function that runs -----------------------------------------------------------

    def begin(self, function: Any, *given: Any) -> CalledFunction:
        """A function of torch begins to run on what was given."""
        call = CalledFunction(function, given)
        if self._audit:
            call.brought, call.coarse = self._residual_of(given)
        self._calls.append(call)
        return call

    def end(self, call: CalledFunction) -> None:
        """It runs no longer."""
        while self._calls and self._calls.pop() is not call:
            pass

    @contextmanager
    def calling(self, function: Any, *given: Any) -> Iterator[CalledFunction]:
        """While a function runs on what was given."""
        call = self.begin(function, *given)
        try:
            yield call
        finally:
            self.end(call)
        if call.rules:
            self.done(call)

    @property
    def detaching(self) -> bool:
        """Whether the running function detaches, or hands values out."""
        from lmd_cli.decomposition.tracing.modes import DETACHING, OUTWARD

        return self.function in DETACHING or self.function in OUTWARD

    @property
    def function(self) -> Any:
        """The function of torch that runs, ``None`` outside any."""
        return self._calls[-1].function if self._calls else None

    @property
    def asks_for_number(self) -> bool:
        """Whether it runs to hand a number to Python."""
        return self.function is None or getattr(self.function, "__name__", "") in NUMBERS

    @property
    def recurrent(self) -> bool:
        """Whether a recurrent layer or cell runs."""
        named = (getattr(call.function, "__name__", "") for call in self._calls)
        return self._recurrent > 0 or any(name in RECURRENT for name in named)

    @contextmanager
    def in_recurrent(self) -> Iterator[None]:
        """While the single operations of a fused recurrent layer run."""
        self._recurrent += 1
        try:
            yield
        finally:
            self._recurrent -= 1

    def met(self, rule: Rule, op: Operator | None) -> None:
        """An operator was followed by a rule."""
        if self._calls:
            self._calls[-1].rules.append(rule)
        elif op is not None:
            call = CalledFunction(op.function)
            call.rules.append(rule)
            self.done(call)

    def hold(self, what: str) -> None:
        """Something that a rule takes as a constant."""
        name = self.called_as(None)
        key = (self._session.tracker.path, f"{name}: {what}")
        self.coverage.setdefault(key, CONSTANT)

    def done(self, call: CalledFunction) -> None:
        """A function ran to its end, and its operators met rules."""
        key = (self._session.tracker.path, function_name(call.function))
        if key not in self.coverage:
            self.coverage[key] = CONSTANT if self._is_constant(call) else _summary(call.rules)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self._audit:
            rule = _summary(call.rules)
            with self._session.paused():
                for x in leaves(call.result):
                    if self._session.carries(x):
                        coarser = call.coarse > torch.finfo(x.dtype).eps
                        brought = max(call.brought, call.coarse / 16.0 if coarser else 0.0)
                        self._measure(key, rule, x, brought)

    def _is_constant(self, call: CalledFunction) -> bool:
        """Whether a function's results are tensors without parts."""
        if isinstance(call.result, Tensor):
            return not self._session.carries(call.result)
        made = [x for x in leaves(call.result) if isinstance(x, Tensor)]
        return bool(made) and not any(map(self._session.carries, made))

    def _residual_of(self, given: Any) -> tuple[float, float]:
        """The largest residual of what a function was given, and its coarsest precision."""
        with self._session.paused():
            carrying = [x for x in leaves(given) if self._session.carries(x)]
        buffers = [self._session.buffer_of(x) for x in carrying]
        found = [self._residuals.get(buffer.key, 0.0) for buffer in buffers if buffer is not None]
        floats = [x.dtype for x in carrying if x.is_floating_point() or x.is_complex()]
        return max(found, default=0.0), max((torch.finfo(d).eps for d in floats), default=0.0)

    def _measure(self, key: tuple[str, str], rule: RuleInfo, x: Tensor, brought: float) -> None:
        (stack, rows), layout = self._session.parts(x), self._session.layout
        record = measured(len(self.records), *key, rule, x, stack, rows, layout)
        buffer = self._session.buffer_of(x)
        assert buffer is not None
        self._residuals[buffer.key] = record.parts_residual
        if self._audit == "raise" and is_broken(x, clean_stack(stack, rows, layout), brought):
            error = ConservationError(
                f"{key[1]} {self._session.tracker.describe()} breaks conservation: "
                f"max |total - sum of parts| is {record.residual:.1e} of max |total| "
                f"(rule of kind {rule.kind!r}, {rule.equation or 'no equation'})"
            )
            self._session.failed(error)
            raise error
        self.records.append(record)

    # -- messages -------------------------------------------------------------------------

    def called_as(self, function: Any) -> str:
        """The name that the user knows an operation by."""
        if self._calls:
            return function_name(self._calls[-1].function)
        return function_name(function) if function is not None else "an operation"

    def no_rule(self, function: Any) -> str:
        """What to say of a function without a rule, and what would help."""
        if isinstance(function, torch._ops.OpOverload):
            function = (operator(function).functional or operator(function)).function
        where, name = self._session.tracker.describe(), function_name(function)
        if is_custom(function):
            what = f"the custom autograd function {name}"
        else:
            caller = self.called_as(function)
            what = (
                caller
                if caller.rpartition(".")[2].strip("_") == name.rpartition(".")[2]
                else (f"{name}, called by {caller}" if self._calls else name)
            )
        return (
            f"no rule for {what} {where}; register one with @register_rule({name}) (see "
            "lmd_cli.decomposition.registry.register_rule)"
        )

    def asked_for(self, op: Operator) -> tuple[bool, Any]:
        """Whether the user called this operator, rather than a function that calls it; and what
        that function was given, ``None`` if none is known."""
        if not self._calls:
            return False, None
        call = self._calls[-1]
        asked = getattr(call.function, "__name__", "").strip("_") == op.name.strip("_")
        return asked, call.given

    def aliased(self) -> str:
        """What to say of a second storage over memory that carries parts."""
        return (
            f"{self.called_as(None)} {self._session.tracker.describe()} reads the memory of a "
            "tensor that carries parts past torch (DLPack, an extension), which would drop them; "
            "use .detach().clone() where a constant is meant"
        )

    def unseen(self) -> str:
        """What to say of memory that something else than torch's operators has written to."""
        return (
            f"{self.called_as(None)} {self._session.tracker.describe()} reads memory that no "
            "operator of torch has written to: code outside torch has (an extension, a kernel), "
            "and its parts are not known; make it a custom operator or autograd function and "
            "register a rule for it"
        )

    def leaving(self, function: Any) -> str:
        """What to say of a function that hands values to code that knows nothing of parts."""
        return (
            f"{function_name(function)} {self._session.tracker.describe()} would drop the parts of "
            "a tensor (its values leave torch); use .detach() where a constant is meant"
        )

    # -- modules --------------------------------------------------------------------------

    def module_done(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """After a module: its parts are taken down, and must not have been dropped."""
        with torch._C.DisableTorchFunction(), self._session.paused():
            self._module_done(name, module, inputs, output)

    def _module_done(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        session = self._session
        if not session.any_carries(*inputs):
            return
        self.require_kept(name, module, inputs, output)
        if self._on_layer is not None and any(map(session.carries, leaves(output))):
            self._on_layer(name, module, output)

    def returned(self, function: Any, inputs: Any, output: Any) -> None:
        """After everything, also the root module's own hooks, which run after ours."""
        if isinstance(function, nn.Module):
            with torch._C.DisableTorchFunction(), self._session.paused():
                name = self._session.tracker.name(function)
                self.require_kept(name, function, inputs, output)

    def require_kept(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module that takes parts must not return what depends on them without any.

        Raises:
            LeakError: it does, and is not among those that may.
        """
        if self._may_be_plain(name) or (where := self._dropped(inputs, output)) is None:
            return
        took, dropped = "took parts", "they were dropped inside"
        if any(map(self._is_lost, leaves(inputs))):
            took = "took values that depend on the features but carry no parts, beside some that do"
            dropped = "they were dropped before it or inside"
        error = LeakError(
            f"module {name or '(root)'!r} ({type(module).__name__}) {took}, and its output{where} "
            f"depends on the features but carries none: {dropped} (by .detach(), .item(), a hook, "
            "or code outside torch); register a rule for what drops them, or pass "
            f"plain_modules=[{name or '(root)'!r}] if that is meant"
        )
        self._session.dropped(name, module, output, error)

    def _may_be_plain(self, name: str) -> bool:
        return any(fnmatchcase(name or "(root)", p) or p == name for p in self._plain_modules)

    def _dropped(self, inputs: Any, output: Any) -> str | None:
        """Which output depends on the inputs and carries no parts."""
        if not any(map(self._is_lost, leaves(output))):
            return None
        known = {id(leaf) for leaf in leaves(inputs)}
        lost = (path for path, x in named_leaves(output) if id(x) not in known and self._is_lost(x))
        path = next(lost, None)
        return None if path is None else f" {path}" if path else ""

    def _is_lost(self, x: Any) -> bool:
        floating = isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())
        return floating and self._session.lost(x)


def _summary(rules: list[Rule]) -> RuleInfo:
    """One line for all that a function's operators met."""
    if len(rules) == 1:
        return rules[0].info
    told = dict.fromkeys(r.info for r in rules if r.kind != "structure")
    if len(told) == 1:
        return next(iter(told))
    if not told:
        return rules[0].info
    apart = {r.kind for r in told} - {"constant"}
    equations = "; ".join(dict.fromkeys(r.equation for r in told if r.equation))
    return RuleInfo(next(iter(apart)) if len(apart) == 1 else "composite", equations)
