"""What a rule is given: the call that it linearises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lmd_cli.decomposition.capture import recording
from lmd_cli.decomposition.errors import NoRuleError
from lmd_cli.decomposition.maps import Affine, Bilinear
from lmd_cli.decomposition.memory import is_continuous
from lmd_cli.decomposition.registry import Rule
from lmd_cli.decomposition.tracing.modes import followed
from lmd_cli.decomposition.tracing.operators import Operator
from lmd_cli.decomposition.tracing.patches import Setting
from lmd_cli.decomposition.tracing.run import Run
from lmd_cli.decomposition.variant import Variant

#: What a rule gives: the total and its map; of several results, a list of maps or ``None``.
Result: TypeAlias = tuple[Any, Any]


def holds_infinity(value: Any) -> bool:
    """Whether a number or tensor is infinite somewhere."""
    if is_continuous(value):
        return recording(value) or bool(torch.isinf(value).any())
    return isinstance(value, float) and math.isinf(value)


def called(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    """The result of a function that is no operator; digits name its positional arguments."""
    named = {name: value for name, value in given.items() if not name.isdigit()}
    positional = [given[str(i)] for i in range(len(given) - len(named))]
    return function(*positional, **named)


def _with_copies(maps: Any) -> Any:
    """A user's maps, which may keep what they give: the parts are copies."""
    if isinstance(maps, (list, tuple)):
        return [_with_copies(made) for made in maps]
    if isinstance(maps, Bilinear):
        product = maps.product
        return replace(maps, product=lambda a, b: product(a, b).clone())
    if not isinstance(maps, Affine) or maps.run is None or maps.curve or maps.factor is not None:
        return maps
    run = maps.run
    return replace(maps, run=lambda *stacks: run(*stacks).clone())


@dataclass(eq=False, slots=True)
class Call:
    """One call of an operation that meets parts.

    Attributes:
        function: what was called, without writing to its arguments; a custom autograd function's
            ``apply``.
        rule: its rule.
        given: the arguments that were given, by name.
        carrying: those that carry parts.
        operator: what is known of it if it is one of torch's operators.
    """

    _session: Run
    function: Callable[..., Any]
    rule: Rule
    given: dict[str, Any]
    carrying: Sequence[Tensor] = ()
    operator: Operator | None = None

    @property
    def variant(self) -> Variant:
        """The linearisation rules that hold in the running module."""
        return self._session.variant

    @property
    def gradients(self) -> bool:
        """Whether the plain call would record gradients."""
        return self._session.gradients

    @property
    def recurrent(self) -> bool:
        """Whether it runs inside a recurrent layer or cell."""
        return self._session.recurrent

    def linearise(self, *args: Any, **kwargs: Any) -> Result:
        """The total and its map, by the rule, which has to cover these arguments."""
        try:
            result = self.rule.apply(self, *args, **kwargs)
        except NotImplementedError as error:
            raise self.refused(f"{error} has no rule") from None
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self.refused("its rule gave no map; return (total, linear(...))")
        return (result[0], _with_copies(result[1])) if self.rule.users else result

    def carries(self, value: Any) -> bool:
        """Whether an argument carries parts."""
        return self._session.carries(value)

    def operands(self, *values: Any) -> tuple[Tensor, ...]:
        """Those that carry parts."""
        return tuple(filter(self._session.carries, values))

    def run(self, **changed: Any) -> Any:
        """The call with some arguments replaced."""
        given = {**self.given, **changed} if changed else self.given
        run = self.operator.call if self.operator else partial(called, self.function)
        return run(given)

    def plain(self) -> Any:
        """The total: the call as it is."""
        return self.run()

    def compose(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of other operations, with its parts, each by its own rule."""
        return followed(self._session, function, *args, **kwargs)

    def compose_recurrent(self, function: Callable[..., Any]) -> Any:
        """:meth:`compose` for the single operations of a recurrent layer."""
        with Setting(self._session, "composing_recurrent", True):
            return self.compose(function)

    def may_mask(self, *values: Any) -> None:
        """Notes infinities among constants (masked logits): totals hold some from here on."""
        session = self._session
        if not session.masked:
            session.masked = any(not self.carries(v) and holds_infinity(v) for v in values)

    def infinite(self, x: Tensor) -> Tensor | None:
        """Where a total is infinite (a masked logit); ``None`` if it is nowhere."""
        if not self._session.masked or recording(x):
            return None
        infinite = torch.isinf(x)
        return infinite if bool(infinite.any()) else None

    def kept(self, value: Any) -> Any:
        """A total that a map reads as a constant of the operating point, the result's or an
        argument's, as the network can no longer write to it."""
        if self._session.program is None or not isinstance(value, Tensor):
            return value
        copied = not self.carries(value) and any(value is v for v in self.given.values())
        return value if copied else value.clone()

    def hold(self, what: str) -> None:
        """Lists something that the rule takes as a constant of the operating point."""
        self._session.hold(what)

    def refused(self, why: str) -> NoRuleError:
        """The error for arguments that the rule does not cover."""
        return self._session.refused(self.function, why)
