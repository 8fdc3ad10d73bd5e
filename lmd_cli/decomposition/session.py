"""One run of a function on decomposed tensors: the door that every torch call goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lmd_cli.decomposition.aliasing import Memory
from lmd_cli.decomposition.audit import (
    OperationRecord,
    clean_stack,
    is_broken,
    part_shares,
    parts_residual,
    residual,
    rounding,
)
from lmd_cli.decomposition.custom import custom_functions, no_rule_for
from lmd_cli.decomposition.errors import (
    ConservationError,
    DecompositionError,
    LeakError,
    NoRuleError,
)
from lmd_cli.decomposition.fastpath import may_be_fused, plain_result, with_fused_totals
from lmd_cli.decomposition.forgetting import Forgetting, Stack
from lmd_cli.decomposition.frozen import FrozenConstant, FrozenMap
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.modules import ModuleTracker
from lmd_cli.decomposition.overrides import VariantByModule
from lmd_cli.decomposition.registry import Rule, canonical, find_rule, function_name
from lmd_cli.decomposition.tensor import DecomposedTensor
from lmd_cli.decomposition.tree import carries_parts, decomposed_leaves, leaves
from lmd_cli.decomposition.variant import Variant

OnLayer = Callable[[str, nn.Module, Any], None]


class Session:
    """State of one decomposition: the layout, the variant, and what has been seen.

    Args:
        layout: rows of the parts' stack.
        variant: linearisation rules, or which ones hold in which module.
        root: module whose qualified names are used in errors and records.
        audit: measure conservation and shares at every operation (:attr:`records`); ``"raise"``
            makes an operation that breaks conservation an error.
        keep_frozen: keep every linearised map in order (:attr:`tape`), for the replay of eq. 14.
        on_layer: called as ``on_layer(name, module, output)`` after every module whose output
            carries parts.
        plain_modules: names of modules that may turn a decomposed input into a plain output.
        forgetting: leaves the modalities' parts out behind the products that need them.
    """

    def __init__(
        self,
        layout: Layout,
        variant: Variant | VariantByModule,
        *,
        root: nn.Module | None = None,
        audit: bool | Literal["raise"] = False,
        keep_frozen: bool = False,
        on_layer: OnLayer | None = None,
        plain_modules: frozenset[str] = frozenset(),
        forgetting: Forgetting | None = None,
    ):
        self.layout = layout
        self._variants = (
            variant if isinstance(variant, VariantByModule) else VariantByModule(variant)
        )
        self.tracker = ModuleTracker(root)
        self.records: list[OperationRecord] = []
        self.coverage: dict[tuple[str, str], Rule] = {}
        self.tape: list[FrozenMap] | None = [] if keep_frozen else None
        self._audit, self._tolerance = audit, 0.0
        self._on_layer, self._plain_modules, self._forgetting = on_layer, plain_modules, forgetting
        self._memory = Memory(self.tracker.describe)
        self.leak: LeakError | None = None

    @property
    def variant(self) -> Variant:
        """The linearisation rules that hold in the running module."""
        variants = self._variants
        return variants.at(self.tracker.named_path) if variants else variants.base

    @contextmanager
    def open(self) -> Iterator[Session]:
        """Intercepts torch functions until the end of the block, in this thread."""
        with ExitStack() as stack:
            stack.enter_context(self.tracker.active(self._module_done))
            stack.enter_context(_LeakGuard(self))
            stack.enter_context(_Door(self))
            stack.enter_context(custom_functions(self._custom))
            try:
                yield self
            except RuntimeError as error:
                if self.leak is None or isinstance(error, DecompositionError):
                    raise
                raise self.leak from error  # scripted code wraps what is raised inside it
            finally:
                self._memory.forget()

    def reopened(self) -> TorchFunctionMode:
        """The door again, inside a rule that is made of other operations."""
        return _Door(self)

    # -- making tensors -------------------------------------------------------------------

    def make(self, total: Tensor, parts: Tensor, rows: tuple[int, ...]) -> DecomposedTensor:
        """A decomposed tensor from a total and its rows ``(len(rows), *total.shape)``.

        Raises:
            DecompositionError: a rule gave parts of another shape.
        """
        if parts.shape[1:] != total.shape or len(parts) != len(rows):
            raise DecompositionError(
                f"a rule gave parts of shape {tuple(parts.shape)} for a total of shape "
                f"{tuple(total.shape)} and rows {rows} {self.tracker.describe()}; parts are "
                "(len(rows), *total.shape)"
            )
        return self.remember(DecomposedTensor.wrap(total, parts, rows))

    def remember(self, x: DecomposedTensor) -> DecomposedTensor:
        """Notes which memory a tensor lives in, so that writes in place see its views."""
        return self._memory.remember(x)

    def borrow(self, tree: Any) -> None:
        """Notes the caller's input tensors, which no operation may write to."""
        for x in decomposed_leaves(tree):
            self._memory.borrow(x)

    def own(self, x: DecomposedTensor) -> DecomposedTensor:
        """Before an in-place write: leaves memory that the caller or other tensors read."""
        self._memory.prepare_write(x)
        return x

    def assign(self, x: DecomposedTensor, parts: Tensor, rows: tuple[int, ...]) -> DecomposedTensor:
        """After an in-place write to ``x.total``: gives ``x`` and its views the new parts.

        Raises:
            LeakError: another live tensor shares the storage, but not the parts' storage.
        """
        self._memory.assign(x, parts, rows)
        return x

    def freeze(self, linear_map: FrozenMap) -> None:
        """Keeps a linearised map for the replay, if one was asked for."""
        if self.tape is not None:
            self.tape.append(linear_map)

    def after_product(self, found: Stack) -> Stack:
        """The parts of a product of two decomposed tensors that are followed on."""
        forgets = self._forgetting
        return forgets.after_product(self._memory.alive(), found) if forgets else found

    # -- the door -------------------------------------------------------------------------

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Applies the rule of ``func``.

        Raises:
            NoRuleError: there is none.
            LeakError: the call would drop the parts.
        """
        rule = find_rule(func)
        if rule is None:
            raise NoRuleError(no_rule_for(func, self.tracker.describe()))
        func = canonical(func)
        self._refuse_plain_target(func, rule, args, kwargs)
        self.refuse_hidden_writes(function_name(func), (args, kwargs))
        result = rule.apply(self, func, *args, **kwargs)
        self._note(func, rule, args, result)
        return result

    def refuse(self, func: Any, why: str) -> NoRuleError:
        """The error for a call that a rule cannot handle."""
        return NoRuleError(f"{function_name(func)} {self.tracker.describe()}: {why}")

    def _custom(self, function: Any, args: Any, kwargs: Any) -> Any:
        """A custom autograd function, which the door does not see."""
        if not carries_parts(args, kwargs):
            return NotImplemented
        return self.call(function, args, kwargs)

    def _refuse_plain_target(self, func: Any, rule: Rule, args: Any, kwargs: Any) -> None:
        out = kwargs.get("out")
        target = args[0] if rule.inplace and args else None
        for tensor, how in ((out, "out="), (target, "in-place")):
            if isinstance(tensor, Tensor) and not isinstance(tensor, DecomposedTensor):
                raise LeakError(
                    f"{function_name(func)} ({how}) {self.tracker.describe()} writes a decomposed "
                    "tensor into a plain one, which would drop its parts; build the result out of "
                    "place (cat, stack, index_add, where) instead"
                )
        if out is not None:
            raise LeakError(f"{function_name(func)}: out= is not supported; use the result")

    def refuse_hidden_writes(self, what: str, tree: Any) -> None:
        """Refuses tensors whose totals were written to past the door.

        Raises:
            LeakError: one of them was.
        """
        if any(x.written_behind for x in decomposed_leaves(tree)):
            raise LeakError(
                f"{what} {self.tracker.describe()} meets a tensor that was written to in place "
                "through a detached view, past its parts; write to a .clone() instead"
            )

    def _note(self, func: Any, rule: Rule, args: Any, result: Any) -> None:
        path = self.tracker.path
        if result is not None and carries_parts(args[:1]) and not carries_parts(result):
            self._refuse_dropped_parts(func, rule, result)
            rule = replace(rule, kind="metadata" if rule.kind == "metadata" else "constant")
            if rule.kind == "constant" and self.tape is not None:
                self.freeze(FrozenConstant.of(result))
        if rule.kind != "metadata":
            self.coverage.setdefault((path, function_name(func)), rule)
        if self._audit:
            for x in decomposed_leaves(result):
                self._record(path, func, rule, x)

    def _refuse_dropped_parts(self, func: Any, rule: Rule, result: Any) -> None:
        """A rule that gives a plain tensor, and is not one of constants, has lost the parts."""
        if rule.kind not in ("constant", "metadata") and _drops_parts((), result):
            raise LeakError(
                f"the rule of {function_name(func)} {self.tracker.describe()} returned a plain "
                'tensor for a decomposed one; return session.make(...), or register kind="constant"'
            )

    def hold_constant(self, func: Any, what: str) -> None:
        """Lists something that a rule takes as a constant of the operating point."""
        rule = find_rule(func)
        assert rule is not None
        held = replace(rule, kind="constant", equation="operating point")
        self.coverage.setdefault((self.tracker.path, f"{function_name(func)}: {what}"), held)

    def _record(self, path: str, func: Any, rule: Rule, x: DecomposedTensor) -> None:
        clean = clean_stack(x, self.layout)
        self._tolerance = max(self._tolerance, rounding(x.total))
        if self._audit == "raise" and is_broken(x.total, clean, self._tolerance):
            raise ConservationError(
                f"{function_name(func)} {self.tracker.describe()} breaks conservation: "
                f"max |total - sum of parts| is {residual(x.total, clean):.1e} of max |total| "
                f"(rule of kind {rule.kind!r}, {rule.equation or 'no equation'})"
            )
        self.records.append(
            OperationRecord(
                order=len(self.records),
                module=path,
                operation=function_name(func),
                kind=rule.kind,
                equation=rule.equation,
                total_norm=float(torch.linalg.vector_norm(x.total.double())),
                residual=residual(x.total, clean),
                parts_residual=parts_residual(x.total, clean),
                shares=part_shares(x, self.layout),
            )
        )

    # -- modules --------------------------------------------------------------------------

    def _module_done(self, name: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not carries_parts(inputs):
            return None
        if name not in self._plain_modules and _drops_parts(inputs, output):
            leak = LeakError(
                f"module {name or '(root)'!r} ({type(module).__name__}) took a decomposed tensor "
                "and returned a plain one: its parts were dropped inside (scripted, compiled, C++ "
                "or numpy code, or .detach()); register a rule, or name it in plain_modules if its "
                "output does not depend on the input's values"
            )
            return self.dropped(name, module, output, leak)
        if may_be_fused(module) and not any(map(may_be_fused, self.tracker.running)):
            self._take_fused_totals(module, inputs, output)
        if self._on_layer is not None and carries_parts(output):
            self._on_layer(name, module, output)
        return None

    def dropped(self, name: str, module: nn.Module, output: Any, leak: LeakError) -> Any:
        """A module lost the parts: an error, except where gaps are being listed."""
        raise leak

    def below_the_door(self, func: Any, args: Any, kwargs: Any, leak: LeakError) -> Any:
        """An operation below torch's functions met parts: likewise."""
        self.leak = leak
        raise leak

    def _take_fused_totals(self, module: nn.Module, inputs: Any, output: Any) -> None:
        fused = plain_result(module, *inputs)
        where = f"{type(module).__name__} {self.tracker.describe()}"
        for x, total in with_fused_totals(output, fused, where):
            x.replace(x.total.copy_(total), x.parts, x.rows)


def _drops_parts(inputs: Any, output: Any) -> bool:
    """Whether an output has a plain floating tensor that is neither a parameter nor an input."""
    known = {id(leaf) for leaf in leaves(inputs)}
    return any(
        isinstance(leaf, Tensor)
        and not isinstance(leaf, (DecomposedTensor, nn.Parameter))
        and (leaf.dtype.is_floating_point or leaf.dtype.is_complex)
        and id(leaf) not in known
        for leaf in leaves(output)
    )


class _Door(TorchFunctionMode):
    """Sends each call that meets a decomposed tensor to its rule."""

    def __init__(self, session: Session):
        super().__init__()
        self._session = session

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not carries_parts(args, kwargs):
            return func(*args, **kwargs)
        return self._session.call(func, args, kwargs)


class _LeakGuard(TorchDispatchMode):
    """Catches what passes below the door: scripted, compiled and C++ code."""

    def __init__(self, session: Session):
        super().__init__()
        self._session = session

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if carries_parts(args, kwargs or {}):
            leak = LeakError(
                f"{func} {self._session.tracker.describe()} met a decomposed tensor below the "
                "level of torch functions (scripted, compiled, C++): its parts would be dropped"
            )
            return self._session.below_the_door(func, args, kwargs or {}, leak)
        return func(*args, **(kwargs or {}))
