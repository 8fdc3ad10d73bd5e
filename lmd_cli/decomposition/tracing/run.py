"""One run as rules see it: its settings, who called what by which rule, how well the parts summed
to the totals, and the errors that name a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from lmd_cli.decomposition.errors import (
    ConservationError,
    DecompositionError,
    LeakError,
    NoRuleError,
)
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.decomposition.memory import is_continuous
from lmd_cli.decomposition.module_rules import ModuleRules, VariantByModule, plain_modules_of
from lmd_cli.decomposition.pytrees import leaves, named_leaves
from lmd_cli.decomposition.registry import Rule, RuleInfo, function_name
from lmd_cli.decomposition.tracing.audit import (
    OperationRecord,
    brought_along,
    clean_stack,
    is_broken,
    norm,
    part_shares,
    parts_residual_tensor,
    residual_tensor,
)
from lmd_cli.decomposition.tracing.carriers import Carriers, tensors_in
from lmd_cli.decomposition.tracing.modules import ELSEWHERE, ModuleTracker, known_modules
from lmd_cli.decomposition.tracing.operators import Operator, functional_of
from lmd_cli.decomposition.tracing.patches import Setting, is_custom
from lmd_cli.decomposition.variant import Variant

#: Torch's functions for recurrent layers and cells.
RECURRENT = frozenset(
    ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell")
)
#: Why values that leave torch are a leak.
LEAVES = (
    "would drop the parts of a tensor (its values leave torch); use .detach() where a constant is "
    "meant"
)
CONSTANT = Rule(lambda *_: None, "constant", "operating point")


@dataclass(eq=False, slots=True)
class CalledFunction:
    """A function of torch while it runs: what was called and with what, the rules that its
    operators met, and what it returned."""

    run: Run
    function: Any
    given: Any = ()
    rules: list[Rule] = field(default_factory=list)
    result: Any = None

    @property
    def name(self) -> str:
        """As Python calls it."""
        return getattr(self.function, "__name__", "")

    def __enter__(self) -> CalledFunction:
        self.run.calls.append(self)
        return self

    def __exit__(self, error: Any, *rest: Any) -> None:
        self.run.calls.pop()
        if error is None and self.rules:
            self.run.function_done(self)


class Run(Carriers):
    """Settings, coverage and audit.

    Args:
        layout: rows of the stacks.
        variant: linearisation rules; ``rules``: others in some modules, of
            :class:`.VariantByModule`.
        root: module whose qualified names are used in errors and records.
        audit: measure conservation and shares after every function; ``"raise"`` makes one that
            breaks conservation an error.
        program: takes the maps down, in order.
        plain_modules: names of modules that may turn parts into constants.
        grad: let gradients flow through the parts.

    Attributes:
        gradients: whether the plain call would record gradients.
        masked: whether totals may hold infinities (masked logits).
        on_layer: called as ``on_layer(name, module, output)`` after every module whose output
            carries parts.
        base_variant: the linearisation rules where ``rules`` says nothing else.
        calls: the functions of torch that run, the innermost last.
        composing_recurrent: whether the single operations of a fused recurrent layer run.
        coverage, counts: by module and function, the rule that was met and how often.
        records: the audit.
    """

    def __init__(
        self,
        layout: Layout,
        variant: str | Variant,
        rules: ModuleRules | None = None,
        *,
        root: nn.Module | None = None,
        audit: bool | Literal["raise"] = False,
        program: Program | None = None,
        plain_modules: Iterable[str] = (),
        grad: bool = False,
    ):
        super().__init__(layout)
        self._variants = VariantByModule(variant, rules, root)
        self.base_variant = self._variants.base
        self.program, self._grad = program, grad
        self.tracker, self.audit = ModuleTracker(root), audit
        self.on_layer: Callable[[str, nn.Module, Any], None] | None = None
        names = known_modules(plain_modules, root, "plain_modules")
        self._plain_modules = names | plain_modules_of(root)
        self.failure: DecompositionError | None = None
        self.copied = WeakIdKeyDictionary()  # where the originals of a program's copies lie
        self._copies: set[int] = set()  # numbers of the storages that stand for detached tensors
        self.gradients = torch.is_grad_enabled()
        self.masked = self._paused = self.composing_recurrent = False
        self.calls: list[CalledFunction] = []
        self.coverage: dict[tuple[str, str], RuleInfo] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.records: list[OperationRecord] = []
        self._residuals: dict[int, float] = {}

    @property
    def variant(self) -> Variant:
        """The linearisation rules that hold in the running module."""
        variants = self._variants
        return variants.at(self.tracker.named_path) if variants.rules else variants.base

    def paused(self, paused: bool = True) -> Setting:
        """Operators run as they are until the end of the block."""
        return Setting(self, "_paused", paused)

    def dispatch(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operator of the function that runs."""
        raise NotImplementedError

    def by_function(self, function: Any, rule: Rule, args: Any, kwargs: Any) -> Any:
        """A function that is no operator and has a rule of its own."""
        raise NotImplementedError

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
        return NoRuleError(f"{self.called_as(function)} {self.tracker.describe()}: {why}")

    def leak(self, function: Any, how: str) -> LeakError:
        """The error for a call that would drop parts."""
        return LeakError(f"{self.called_as(function)} {self.tracker.describe()} {how}")

    def no_rule(self, function: Any) -> NoRuleError:
        """The error for a function without a rule, which says what would help."""
        function = functional_of(function)
        name, caller = function_name(function), self.called_as(function)
        what = name if caller == name else f"{name}, called by {caller}"
        if is_custom(function):
            what = f"the custom autograd function {name}"
        elif caller.rpartition(".")[2].strip("_") == name.rpartition(".")[2]:
            what = caller
        return NoRuleError(
            f"no rule for {what} {self.tracker.describe()}; register one with "
            f"@register_rule({name}), or register_activation({name}) if it is elementwise "
            "(see register_rule, register_activation of lmd_cli.decomposition)"
        )

    def outward(self, function: Any, args: Any, kwargs: Any) -> None:
        """A function is about to hand values to code that knows nothing of parts: a leak if they
        carry any."""
        if self.any_carries(args, kwargs):
            self.fail(self.leak(function, LEAVES))
        self.shown(args, kwargs)

    def require_here(self, function: Any, args: Any, kwargs: Any) -> None:
        """An operator that another thread runs must not meet parts."""
        if self.any_carries(args, kwargs):
            self.fail(LeakError(f"{function_name(function)} {ELSEWHERE}"))

    def require_seen(self, function: Any, result: Any) -> None:
        """What a function of the user's makes of parts has to come from torch's operators."""
        if any(t.is_floating_point() and not self.depends(t) for t in tensors_in([result])):
            self.fail(self.no_rule(function))

    # -- coverage and audit ---------------------------------------------------------------

    def met(self, rule: Rule, op: Operator | None) -> None:
        """An operator was followed by a rule."""
        if self.calls:
            self.calls[-1].rules.append(rule)
        elif op is not None:
            self.function_done(CalledFunction(self, op.function, rules=[rule]))

    def hold(self, what: str) -> None:
        """Something that a rule takes as a constant."""
        key = (self.tracker.path, f"{self.called_as(None)}: {what}")
        self.coverage.setdefault(key, CONSTANT.info)

    def function_done(self, call: CalledFunction) -> None:
        """A function ran to its end, and its operators met rules."""
        key = (self.tracker.path, function_name(call.function))
        self.counts[key] = self.counts.get(key, 0) + 1
        if key not in self.coverage:
            made = [x for x in leaves(call.result) if isinstance(x, Tensor)]
            plain = bool(made) and not any(map(self.carries, made))
            self.coverage[key] = CONSTANT.info if plain else _summary(call.rules)
        if self.audit:
            with self.paused():
                self._measure(key, call)

    def _measure(self, key: tuple[str, str], call: CalledFunction) -> None:
        """The records of a function's results; what it was given may bring a residual along."""
        rule = _summary(call.rules)
        given = list(filter(self.carries, leaves(call.given)))
        residuals = (self._residuals.get(self.place_of(x).key, 0.0) for x in given)
        precisions = (torch.finfo(x.dtype).eps for x in given if is_continuous(x))
        brought, coarsest = max(residuals, default=0.0), max(precisions, default=0.0)
        for x in filter(self.carries, leaves(call.result)):
            layout, (stack, rows) = self.layout.outer, self.layout.reported(*self.parts(x))
            clean = clean_stack(stack, rows, layout)
            record = OperationRecord(
                *(len(self.records), *key, rule.kind, rule.equation),
                total_norm=norm(x),
                residual=float(residual_tensor(x, clean)),
                parts_residual=float(parts_residual_tensor(x, clean)),
                shares=part_shares(stack, rows, layout),
            )
            self._residuals[self.place_of(x).key] = brought_along(x, clean)
            rounded = coarsest / 16.0 if coarsest > torch.finfo(x.dtype).eps else 0.0
            if self.audit == "raise" and is_broken(x, clean, max(brought, rounded)):
                error = f"{key[1]} {self.tracker.describe()} {self.broken(record, rule)}"
                self.fail(ConservationError(error))
            self.records.append(record)

    def broken(self, record: OperationRecord, rule: RuleInfo) -> str:
        """How an operation breaks conservation."""
        return (
            "breaks conservation: max |total - sum of parts| is "
            f"{record.residual:.1e} of max |total| "
            f"(rule of kind {rule.kind!r}, {rule.equation or 'no equation'})"
        )

    # -- modules --------------------------------------------------------------------------

    def module_done(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """After a module: its parts are taken down, and must not have been dropped."""
        with torch._C.DisableTorchFunction():
            nothing_lost = self.on_layer is None and self.carries(output)
            if nothing_lost or not self.any_carries(*inputs):
                return
        with torch._C.DisableTorchFunction(), self.paused():
            self.require_kept(module, inputs, output)
            if self.on_layer is not None and any(map(self.carries, leaves(output))):
                self.on_layer(self.tracker.name(module), module, output)

    def returned(self, function: Any, inputs: Any, output: Any) -> None:
        """After everything, also the root module's own hooks, which run after ours."""
        if isinstance(function, nn.Module):
            with torch._C.DisableTorchFunction(), self.paused():
                self.require_kept(function, inputs, output)

    def require_kept(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module that takes parts must not return what depends on them without any."""
        name, lost = self.tracker.name(module), self.lost
        shown = name or "(root)"
        permitted = any(fnmatchcase(shown, p) or p == name for p in self._plain_modules)
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
        self.dropped(name, module, output, error)


def _summary(rules: list[Rule]) -> RuleInfo:
    """One line for all that a function's operators met."""
    if len(rules) == 1:
        return rules[0].info
    infos = dict.fromkeys(r.info for r in rules if r.kind != "structure")
    if len(infos) <= 1:
        return next(iter(infos), rules[0].info)
    kinds = {r.kind for r in infos} - {"constant"}
    equations = "; ".join(dict.fromkeys(r.equation for r in infos if r.equation))
    return RuleInfo(next(iter(kinds)) if len(kinds) == 1 else "composite", equations)
