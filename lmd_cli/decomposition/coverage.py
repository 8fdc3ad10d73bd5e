"""What would happen, before it is relied on: every operation that meets a decomposed tensor, its
rule, and every gap at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lmd_cli.decomposition.api import lift, names_of, parse_variant
from lmd_cli.decomposition.custom import caller
from lmd_cli.decomposition.errors import LeakError, NoRuleError
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.modules import find_root
from lmd_cli.decomposition.overrides import ModuleRules, VariantByModule
from lmd_cli.decomposition.registry import Rule, find_rule, function_name, is_scripted
from lmd_cli.decomposition.session import Session
from lmd_cli.decomposition.tensor import DecomposedTensor
from lmd_cli.decomposition.tree import (
    carries_parts,
    decomposed_leaves,
    map_leaves,
    map_tensors,
    plain_tree,
)
from lmd_cli.decomposition.variant import Variant


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
    """Runs the function once and lists what meets a decomposed tensor, with every gap.

    After a gap the run goes on with the plain result as bias, so that all gaps are found at once;
    parts are not looked at. The network's parameters, buffers and hooks are as before.

    Args:
        function, inputs, variant, constants, root, plain_modules, rules: as for
            :func:`~.api.decompose`.

    Raises:
        InputError: inputs or rules that cannot be used.
    """
    layout = Layout(names_of(inputs))
    root = root if root is not None else find_root(function)
    variants = VariantByModule(parse_variant(variant), rules, root)
    session = _Explaining(layout, variants, root=root, plain_modules=frozenset(plain_modules))
    with torch.no_grad(), _evaluating(session, root):
        lifted = {name: lift(layout, name, tree) for name, tree in inputs.items()}
        session.borrow(lifted)
        with session.open():
            output = function(**lifted, **(constants or {}))
    if not carries_parts(output):
        session.gap("the output", NoRuleError("no output carries parts"), "")
    return Coverage(tuple(session.rows()))


@contextmanager
def _evaluating(session: _Explaining, root: nn.Module | None) -> Iterator[None]:
    """BatchNorm in training mode is a gap, and must not count this batch."""
    modules = root.named_modules() if root is not None else ()
    training = [(n, m) for n, m in modules if isinstance(m, _BatchNorm) and m.training]
    for name, module in training:
        why = f"BatchNorm is in training mode in module {name!r}; call .eval() on the network"
        session.gap("BatchNorm", NoRuleError(why), "", module=name)
        module.training = False
    try:
        yield
    finally:
        for _, module in training:
            module.training = True


class _Explaining(Session):
    """Goes on past a gap, with the plain result as bias."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._calls: dict[tuple[str, str], int] = {}
        self._gaps: dict[tuple[str, str], tuple[str, str]] = {}

    def rows(self) -> Iterator[CoverageRow]:
        """Everything that was met, in order."""
        held = {key: 1 for key in self.coverage if key not in self._calls}
        for (module, operation), calls in (self._calls | held).items():
            rule = self.coverage.get((module, operation))
            reason, register = self._gaps.get((module, operation), ("", ""))
            if reason:
                yield CoverageRow(module, operation, "gap", "", calls, reason, register)
            elif rule is not None:
                yield CoverageRow(module, operation, rule.kind, rule.equation, calls)

    def gap(self, operation: str, error: Exception, register: str, module: str = "") -> None:
        """Notes one."""
        key = (module or self.tracker.path, operation)
        self._calls.setdefault(key, 1)
        self._gaps.setdefault(key, (str(error), register))

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = (self.tracker.path, function_name(func))
        self._calls[key] = self._calls.get(key, 0) + 1
        try:
            return super().call(func, args, kwargs)
        except (NoRuleError, LeakError) as error:
            fixable = isinstance(error, NoRuleError)
            self.gap(key[1], error, _register_call(func, find_rule(func)) if fixable else "")
            return self._as_bias(func, args, kwargs)

    def _as_bias(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The plain result with all of it bias; a tensor that was written to likewise."""
        result = caller(func)(*plain_tree(args), **plain_tree(kwargs))
        written = {id(x.total): x for x in decomposed_leaves((args, kwargs)) if x.written_behind}
        for x in written.values():
            self.make_bias(x)
        return map_tensors(lambda t: written.get(id(t), self._placeholder(t)), result)

    def make_bias(self, x: DecomposedTensor) -> None:
        """Forgets the parts of a tensor whose total was written to."""
        x.replace(x.total, x.total.clone().unsqueeze(0), (self.layout.bias,))

    def _placeholder(self, t: Tensor) -> Tensor:
        if isinstance(t, DecomposedTensor) or not (t.is_floating_point() or t.is_complex()):
            return t
        return self.make(t, t.clone().unsqueeze(0), (self.layout.bias,))

    def refuse_hidden_writes(self, what: str, tree: Any) -> None:
        try:
            super().refuse_hidden_writes(what, tree)
        except LeakError as error:
            self.gap(what, error, "")
            for x in decomposed_leaves(tree):
                self.make_bias(x)

    def below_the_door(self, func: Any, args: Any, kwargs: Any, leak: LeakError) -> Any:
        self.gap(str(func), leak, "")
        return func(*plain_tree(args), **plain_tree(kwargs))

    def dropped(self, name: str, module: nn.Module, output: Any, leak: LeakError) -> Any:
        known = {id(parameter) for parameter in module.parameters()}
        self.gap(type(module).__name__, leak, f"plain_modules=[{name!r}]", module=name)
        return map_leaves(
            lambda v: v if not isinstance(v, Tensor) or id(v) in known else self._placeholder(v),
            output,
        )


def _register_call(func: Any, rule: Rule | None) -> str:
    """The line that would fill a gap."""
    name = function_name(func)
    if is_scripted(func):
        return ""
    if rule is None:
        return f"@register_rule({name})"
    kind = "" if rule.kind == "refused" else f", kind={rule.kind!r}"
    return f"@register_rule({name}{kind}, override=True)"
