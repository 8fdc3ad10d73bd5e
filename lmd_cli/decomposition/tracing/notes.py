"""What a decomposition takes down beside the parts: who called what, by which rule, and how well
the parts summed to the totals."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from lmd_cli.decomposition.errors import ConservationError, LeakError
from lmd_cli.decomposition.linearised.program import place_of
from lmd_cli.decomposition.pytrees import leaves, named_leaves
from lmd_cli.decomposition.registry import Rule, RuleInfo, function_name
from lmd_cli.decomposition.tracing.audit import (
    OperationRecord,
    clean_stack,
    is_broken,
    norm,
    part_shares,
    parts_residual_tensor,
    residual_tensor,
)
from lmd_cli.decomposition.tracing.carriers import is_continuous
from lmd_cli.decomposition.tracing.operators import Operator

if TYPE_CHECKING:
    from lmd_cli.decomposition.tracing.results import Results

#: Torch's functions for recurrent layers and cells.
RECURRENT = frozenset(
    ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell")
)
CONSTANT = Rule(lambda *_: None, "constant", "operating point")


@dataclass(eq=False, slots=True)
class CalledFunction:
    """A function of torch while it runs: what was called and with what, the rules that its
    operators met, and what it returned."""

    notes: Notes
    function: Any
    given: Any = ()
    rules: list[Rule] = field(default_factory=list)
    result: Any = None

    @property
    def name(self) -> str:
        """As Python calls it."""
        return getattr(self.function, "__name__", "")

    def __enter__(self) -> CalledFunction:
        self.notes.calls.append(self)
        return self

    def __exit__(self, error: Any, *rest: Any) -> None:
        self.notes.calls.pop()
        if error is None and self.rules:
            self.notes.done(self)


@dataclass(eq=False)
class Notes:
    """Coverage and audit of one session.

    Attributes:
        audit: measure conservation and shares after every function; ``"raise"`` makes one that
            breaks conservation an error.
        on_layer: called as ``on_layer(name, module, output)`` after every module whose output
            carries parts.
        plain_modules: names of modules that may turn parts into constants.
        calls: the functions of torch that run, the innermost last.
        composing_recurrent: whether the single operations of a fused recurrent layer run.
        coverage, counts: by module and function, the rule that was met and how often.
        records: the audit.
    """

    session: Results
    audit: bool | Literal["raise"]
    on_layer: Any
    plain_modules: frozenset[str]
    calls: list[CalledFunction] = field(default_factory=list)
    composing_recurrent: bool = False
    coverage: dict[tuple[str, str], RuleInfo] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    records: list[OperationRecord] = field(default_factory=list)
    _residuals: dict[int, float] = field(default_factory=dict)

    # -- the function that runs -----------------------------------------------------------

    @property
    def function(self) -> Any:
        """The function of torch that runs, ``None`` outside any."""
        return self.calls[-1].function if self.calls else None

    @property
    def recurrent(self) -> bool:
        """Whether a recurrent layer or cell runs."""
        return self.composing_recurrent or any(call.name in RECURRENT for call in self.calls)

    def called_as(self, function: Any) -> str:
        """The name that the user knows an operation by."""
        function = self.function if self.calls else function
        return "an operation" if function is None else function_name(function)

    # -- coverage and audit ---------------------------------------------------------------

    def met(self, rule: Rule, op: Operator | None) -> None:
        """An operator was followed by a rule."""
        if self.calls:
            self.calls[-1].rules.append(rule)
        elif op is not None:
            self.done(CalledFunction(self, op.function, rules=[rule]))

    def hold(self, what: str) -> None:
        """Something that a rule takes as a constant."""
        key = (self.session.tracker.path, f"{self.called_as(None)}: {what}")
        self.coverage.setdefault(key, CONSTANT.info)

    def done(self, call: CalledFunction) -> None:
        """A function ran to its end, and its operators met rules."""
        session = self.session
        key = (session.tracker.path, function_name(call.function))
        self.counts[key] = self.counts.get(key, 0) + 1
        if key in self.coverage and not self.audit:
            return
        made = [x for x in leaves(call.result) if isinstance(x, Tensor)]
        carrying = list(filter(session.carries, made))
        plain = bool(made) and not carrying
        self.coverage.setdefault(key, CONSTANT.info if plain else _summary(call.rules))
        if self.audit:
            with session.paused():
                self._measure(key, call, carrying)

    def _measure(self, key: tuple[str, str], call: CalledFunction, results: list[Tensor]) -> None:
        """The records of a function's results; what it was given may bring a residual along."""
        session, rule = self.session, _summary(call.rules)
        given = list(filter(session.carries, leaves(call.given)))
        residuals = (self._residuals.get(place_of(session, x).key, 0.0) for x in given)
        precisions = (torch.finfo(x.dtype).eps for x in given if is_continuous(x))
        brought, coarsest = max(residuals, default=0.0), max(precisions, default=0.0)
        for x in results:
            stack, rows = session.parts(x)
            clean = clean_stack(stack, rows, session.layout)
            record = OperationRecord(
                *(len(self.records), *key, rule.kind, rule.equation),
                total_norm=norm(x),
                residual=float(residual_tensor(x, clean)),
                parts_residual=float(parts_residual_tensor(x, clean)),
                shares=part_shares(stack, rows, session.layout),
            )
            self._residuals[place_of(session, x).key] = record.parts_residual
            rounded = coarsest / 16.0 if coarsest > torch.finfo(x.dtype).eps else 0.0
            if self.audit == "raise" and is_broken(x, clean, max(brought, rounded)):
                error = (
                    f"{key[1]} {session.tracker.describe()} breaks conservation: "
                    f"max |total - sum of parts| is {record.residual:.1e} of max |total| "
                    f"(rule of kind {rule.kind!r}, {rule.equation or 'no equation'})"
                )
                session.fail(ConservationError(error))
            self.records.append(record)

    # -- modules --------------------------------------------------------------------------

    def module_done(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """After a module: its parts are taken down, and must not have been dropped."""
        session = self.session
        with torch._C.DisableTorchFunction(), session.paused():
            if not session.any_carries(*inputs):
                return
            self.require_kept(module, inputs, output)
            if self.on_layer is not None and any(map(session.carries, leaves(output))):
                self.on_layer(session.tracker.name(module), module, output)

    def returned(self, function: Any, inputs: Any, output: Any) -> None:
        """After everything, also the root module's own hooks, which run after ours."""
        if isinstance(function, nn.Module):
            with torch._C.DisableTorchFunction(), self.session.paused():
                self.require_kept(function, inputs, output)

    def require_kept(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module that takes parts must not return what depends on them without any."""
        name, lost = self.session.tracker.name(module), self.session.lost
        shown = name or "(root)"
        permitted = any(fnmatchcase(shown, p) or p == name for p in self.plain_modules)
        if permitted or not any(map(lost, leaves(output))):
            return
        known = {id(leaf) for leaf in leaves(inputs)}
        dropped = (path for path, x in named_leaves(output) if lost(x) and id(x) not in known)
        where = next(dropped, None)
        if where is None:
            return
        took, when = "took parts", "they were dropped inside"
        if any(map(lost, leaves(inputs))):
            took = "took values that depend on the features but carry no parts, beside some that do"
            when = "they were dropped before it or inside"
        error = LeakError(
            f"module {shown!r} ({type(module).__name__}) {took}, and its output"
            f"{where and ' ' + where} depends on the features but carries none: {when} (by "
            ".detach(), .item(), a hook, or code outside torch); register a rule for what drops "
            f"them, or pass plain_modules=[{shown!r}] if that is meant"
        )
        self.session.dropped(name, module, output, error)


def _summary(rules: list[Rule]) -> RuleInfo:
    """One line for all that a function's operators met."""
    infos = dict.fromkeys(r.info for r in rules if r.kind != "structure" or len(rules) == 1)
    if len(infos) <= 1:
        return next(iter(infos), rules[0].info)
    kinds = {r.kind for r in infos} - {"constant"}
    equations = "; ".join(dict.fromkeys(r.equation for r in infos if r.equation))
    return RuleInfo(next(iter(kinds)) if len(kinds) == 1 else "composite", equations)
