"""The coverage report: every operation that meets parts, its rule, and all that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lmd_cli.decomposition.api import trace
from lmd_cli.decomposition.errors import DecompositionError, LeakError, NoRuleError
from lmd_cli.decomposition.inputs import lifted, names_of
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.memory import Place, is_continuous
from lmd_cli.decomposition.module_rules import ModuleRules, VariantByModule
from lmd_cli.decomposition.pytrees import leaves, map_tensors
from lmd_cli.decomposition.registry import Rule, RuleInfo, find_rule, function_name
from lmd_cli.decomposition.result import decomposed_leaves
from lmd_cli.decomposition.tracing.modules import find_root, training_mode
from lmd_cli.decomposition.tracing.operators import functional_of, operator
from lmd_cli.decomposition.tracing.session import Session
from lmd_cli.decomposition.variant import COALITIONS, Variant

GAP = Rule(lambda *_: None, "gap", "")


@dataclass(frozen=True)
class CoverageRow:
    """One function in one module.

    Attributes:
        module: qualified name, empty outside any module and in the root.
        operation: the function (or the module that drops parts).
        kind: kind of its rule, ``gap`` if it has none that fits.
        equation: where the rule comes from.
        calls: how often it was called.
        reason: why it is a gap, else empty.
        register: the call that would fill the gap, else empty.
    """

    module: str
    operation: str
    kind: str
    equation: str
    calls: int
    reason: str = ""
    register: str = ""


@dataclass(frozen=True)
class Coverage:
    """The table that :func:`explain_coverage` gives, in order of first use."""

    rows: tuple[CoverageRow, ...]

    @property
    def gaps(self) -> tuple[CoverageRow, ...]:
        """What has no rule."""
        return tuple(row for row in self.rows if row.kind == "gap")

    def __str__(self) -> str:
        header = ("module", "operation", "calls", "kind", "equation")
        cells = [header] + [
            (r.module or "(root)", r.operation, str(r.calls), r.kind, r.equation) for r in self.rows
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
        lines += [f"gap: {row.reason}\n     {row.register}".rstrip() for row in self.gaps]
        return "\n".join(line.rstrip() for line in lines)


def explain_coverage(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    variant: str | Variant = "identity-ratio",
    *,
    constants: Mapping[str, Any] | None = None,
    root: nn.Module | None = None,
    plain_modules: Iterable[str] = (),
    rules: ModuleRules | None = None,
) -> Coverage:
    """Runs the function once and lists what meets parts, with every gap.

    After a gap the run goes on with the plain result as bias, so that all gaps are found at once;
    parts are not looked at. The network's parameters, buffers, hooks and training flags, and the
    state of torch's random generators, are as before.

    Args:
        function, inputs, variant, constants, root, plain_modules, rules: as for
            :func:`~.api.decompose`.

    Raises:
        InputError: inputs or rules that cannot be used.
    """
    layout = Layout(names_of(inputs))
    if VariantByModule(variant, {}).base.activation == COALITIONS:
        variant = Variant()  # the same operations have rules
    root = root if root is not None else find_root(function)
    session = _Explaining(layout, variant, rules, root=root, plain_modules=plain_modules)
    with torch.no_grad(), _unchanged(nn.Module() if root is None else root) as network:
        session.evaluate(network)
        output = trace(session, function, inputs, lifted(layout, inputs), constants or {})
    if not decomposed_leaves(output):
        session.gap("the output", NoRuleError("no output carries parts"), "", module="")
    return Coverage(tuple(session.rows()))


@contextmanager
def _unchanged(root: nn.Module) -> Iterator[nn.Module]:
    """Parameters, buffers and the random generators' states are the same afterwards."""
    modes = [(module, module.training) for module in root.modules()]
    owners = [m for m, _ in modes if not isinstance(m, torch.jit.ScriptModule)]
    kept: list[dict[str, Any]] = [t for m in owners for t in (m._parameters, m._buffers)]
    tables = [(own, dict(own)) for own in kept]
    tensors = [*root.parameters(), *root.buffers()]
    values = [(t, t.detach().clone()) for t in tensors if not is_lazy(t)]
    devices = {t.device.index for t in tensors if t.is_cuda}
    with torch.random.fork_rng(devices=devices):
        try:
            yield root
        finally:
            for own, before in tables:
                own.clear()
                own.update(before)
            for module, training in modes:
                module.training = training
            for t, value in values:
                if not torch.equal(t, value):
                    t.data.copy_(value)


class _Explaining(Session):
    """Goes on past a gap, with the plain result as bias."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._gaps: dict[tuple[str, str], tuple[str, str]] = {}

    def evaluate(self, root: nn.Module) -> None:
        """A norm in training mode is a gap, and must not count this batch."""
        for name, module in root.named_modules():
            if kind := training_mode(module):
                why = f"{kind} is in training mode in module {name!r}; call .eval() on the network"
                self.gap(kind, NoRuleError(why), "", module=name)
                module.training = False

    def rows(self) -> Iterator[CoverageRow]:
        """Everything that was met, in order."""
        for key, info in self.coverage.items():
            calls = self.counts.get(key, 1)
            yield CoverageRow(*key, info.kind, info.equation, calls, *self._gaps.get(key, ()))

    def gap(
        self, operation: str, error: Exception, register: str, module: str | None = None
    ) -> None:
        """Notes one."""
        key = (self.tracker.path if module is None else module, operation)
        self._gaps.setdefault(key, (str(error), register))
        self.coverage[key] = RuleInfo("gap", "")
        if module is None:
            self.met(GAP, None)

    def failed(self, error: DecompositionError) -> None:
        if not isinstance(error, (NoRuleError, LeakError)):
            super().failed(error)

    def dispatch(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().dispatch(function, args, kwargs)
        except (NoRuleError, LeakError) as error:
            drawn = operator(function).draws and self.function is not None
            lacking = self.function if drawn else function
            fills = _register_call(lacking) if isinstance(error, NoRuleError) else ""
            self.gap(self.called_as(function), error, fills)
            return self._as_bias(function, args, kwargs)

    def _as_bias(self, function: Any, args: Any, kwargs: Any) -> Any:
        """The plain result with all of it bias; a tensor that was written to likewise."""
        op = operator(function)
        result = function(*args, **kwargs)
        if op.view:
            return map_tensors(torch.clone, result)
        given = op.bind(args, kwargs)
        self._make_bias([result, [given.get(name) for name in op.written]])
        return result

    def _make_bias(self, tree: Any) -> None:
        """All of every tensor is bias, whatever parts it had."""
        for t in leaves(tree):
            if not is_continuous(t):
                continue
            parts, bias = t.clone().unsqueeze(0), (self.layout.bias,)
            buffer = self.buffer_of(t)
            if buffer is None or not buffer.rows:
                self.give(t, parts, bias)
            else:
                buffer.write(parts, bias, Place(t, buffer.key))

    def outward(self, function: Any, args: Any, kwargs: Any) -> None:
        try:
            super().outward(function, args, kwargs)
        except LeakError as error:
            self.gap(function_name(function), error, "")
            self.shown(args, kwargs)

    def by_function(self, function: Any, rule: Rule, args: Any, kwargs: Any) -> Any:
        try:
            return super().by_function(function, rule, args, kwargs)
        except (NoRuleError, LeakError) as error:
            self.gap(function_name(function), error, _register_call(function))
            return self._plainly(lambda: function(*args, **kwargs))

    def custom(self, function: Any, run: Any, args: Any, kwargs: Any) -> Any:
        known, results = set(self._gaps), []

        def once(*args: Any, **kwargs: Any) -> Any:
            results.append(run(*args, **kwargs))
            return results[-1]

        try:
            return super().custom(function, once, args, kwargs)
        except NoRuleError as error:
            for key in set(self._gaps) - known:  # what it calls inside is no gap of its own
                del self._gaps[key], self.coverage[key]
            self.gap(function_name(function), error, _register_call(function))
            return self._plainly(lambda: results[-1] if results else run(*args, **kwargs))

    def _plainly(self, function: Any) -> Any:
        with self.paused():
            result = function()
            self._make_bias(result)
        return result

    def dropped(self, name: str, module: nn.Module, output: Any, error: LeakError) -> None:
        self.gap(type(module).__name__, error, f"plain_modules=[{name or '(root)'!r}]", module=name)
        lost = [t for t in leaves(output) if isinstance(t, Tensor) and self.lost(t)]
        for t in lost:
            self._plain.pop(id(t), None)
        self._make_bias(lost)


def _register_call(function: Any) -> str:
    """The line that would fill a gap."""
    function = functional_of(function)
    rule, name = find_rule(function), function_name(function)
    if rule is None:
        return f"@register_rule({name})"
    kind = "" if rule.kind == "refused" else f", kind={rule.kind!r}"
    return f"@register_rule({name}{kind}, override=True)"
