"""The registry of rules: which operation has which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import resolve_name

from lmd_cli.decomposition.older_torch import can_decompose

KINDS = {
    "structure": "moves or copies elements; applied to each part",
    "linear": "applied to each part; an own bias goes to the bias part",
    "sum": "adds several tensors, or picks among them; constants go to the bias part",
    "concatenation": "puts tensors side by side; constants go to the bias part",
    "product": "by constants, each part; of two decomposed factors as in appendix D.2",
    "quotient": "the divisor is a constant of the operating point, as the deviation in eq. 11",
    "statistic": "a divisor, constant as the deviation in eq. 11; all of it is bias",
    "activation": "slope at the total (eq. 9), bias split as in Appendix C",
    "softmax": "constant weights, eq. 1, or guarded eq. 9 (appendix D.2)",
    "composite": "made of operations that have rules; each is applied in turn",
    "normalisation": "eq. 10 or eq. 11",
    "selection": "picks elements where the total picks them (slope 0 or 1, eq. 9)",
    "constant": "its result is a constant of the operating point",
    "refused": "has no rule on purpose; an error that says why",
}


@dataclass(frozen=True)
class RuleInfo:
    """What tables say of a rule: the kind, and where it comes from."""

    kind: str
    equation: str


@dataclass(frozen=True)
class Rule:
    """The affine map of one operation.

    Attributes:
        apply: called as ``apply(call, *args, **kwargs)`` with plain tensors; returns the total and
            its map (for several outputs, a map or ``None`` for each).
        kind: one of :data:`KINDS`.
        equation: where the rule comes from, for coverage tables.
        replaced: what holds again when it is taken back.
        users: it was registered, and may keep what its map gives.
    """

    apply: Callable[..., Any]
    kind: str
    equation: str
    replaced: Rule | None = None
    users: bool = False

    @cached_property
    def info(self) -> RuleInfo:
        """Its kind and equation alone."""
        return RuleInfo(self.kind, self.equation)


#: How torch represents its operators.
OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
_RULES: dict[Any, Rule] = {}
_NAMES: dict[Any, str] = {}
#: Operators with a rule that torch takes apart before they are dispatched.
_COMPOSITES: set[Any] = set()


def register_rule(
    *functions: Any, kind: str = "linear", equation: str = "", override: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a rule: the total of a function, and the affine map that it is there.

    The decorated function is called as ``rule(call, *args, **kwargs)`` with the plain values of
    the function's arguments; those of torch's operators are given by the schema's names, ``self``
    as ``input``. ``call.function`` runs the function itself. It returns the total and a map:
    :func:`~.maps.linear`, :func:`~.maps.slope`, :func:`~.maps.constant`, :class:`~.maps.Affine` or
    :class:`~.maps.Bilinear`::

        class Double(torch.autograd.Function): ...

        @register_rule(Double, kind="linear", equation="2 h")
        def double(call, x):
            return call.function(x), linear(lambda h: 2 * h)

    ``h`` is a stack of parts with one more dimension in front. In-place and ``out=`` forms of
    torch's operators need no rule of their own. ``decompose(..., audit="raise")`` names a rule
    whose parts do not sum to its total.

    Args:
        functions: torch functions and operators (``torch.ops.my_library.my_operation``), custom
            autograd functions, or any function that takes part in torch's override protocol.
        kind: one of :data:`KINDS`.
        equation: where the rule comes from, for coverage tables.
        override: replace a rule that is there already.

    Raises:
        ValueError: an unknown kind, or a function that has a rule already.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; one of {', '.join(KINDS)}")

    def decorate(apply: Callable[..., Any]) -> Callable[..., Any]:
        for key in map(operator_of, functions):
            if key in _RULES and not override:
                raise ValueError(
                    f"{function_name(key)} has a rule already; override=True replaces it"
                )
            _RULES[key] = Rule(apply, kind, equation, replaced=_RULES.get(key), users=True)
            if isinstance(key, OPERATORS) and _is_composite(key):
                _COMPOSITES.add(key)
        return apply

    return decorate


def _is_composite(key: Any) -> bool:
    """Whether torch makes all calls of an operator of others before they are dispatched."""
    if isinstance(key, torch._ops.OpOverload):
        return can_decompose(key)
    return all(can_decompose(getattr(key, name)) for name in key.overloads())


def aten_rule(
    *names: str, kind: str, equation: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """:func:`register_rule` for ATen's operators by name (``add``, or ``pow.Scalar`` for one
    overload); those that a release of torch does not have are left out."""

    def decorate(apply: Callable[..., Any]) -> Callable[..., Any]:
        for operator in map(aten, names):
            if operator is not None:
                assert operator not in _RULES, operator
                _RULES[operator] = Rule(apply, kind, equation)
        return apply

    return decorate


def aten(name: str) -> Any:
    """One of ATen's operators or overloads, ``None`` if this torch does not have it."""
    packet, _, overload = name.partition(".")
    operator = getattr(torch.ops.aten, packet, None)
    return getattr(operator, overload, None) if overload and operator is not None else operator


def unregister_rule(function: Any) -> None:
    """Takes a rule back; the one that it replaced, if any, holds again."""
    key = operator_of(function)
    rule = _RULES.pop(key, None)
    if rule is not None and rule.replaced is not None:
        _RULES[key] = rule.replaced
    else:
        _COMPOSITES.discard(key)


def find_rule(function: Any) -> Rule | None:
    """The rule of a function, or ``None``; an overload has its operator's rule."""
    if isinstance(function, torch._ops.OpOverload):  # asked for every operator
        return _RULES.get(function) or _RULES.get(function.overloadpacket)
    return _RULES.get(operator_of(function))


def rule_above_dispatch(function: Any) -> Rule | None:
    """The rule of a function that the dispatcher does not see, or ``None``: a Python function, a
    custom autograd function, or an operator that torch takes apart."""
    if function in _RULES and not isinstance(function, OPERATORS):
        return _RULES[function]
    if not _COMPOSITES:
        return None
    key = operator_of(function)
    return _RULES[key] if key in _COMPOSITES else None


def registered_operators() -> Iterator[Any]:
    """Everything that has a rule."""
    return iter(tuple(_RULES))


def operator_of(function: Any) -> Any:
    """What a rule is kept under: the operator that a torch function calls, or the function."""
    if isinstance(function, torch._ops.OpOverload):
        return function if function in _RULES else function.overloadpacket
    packet = getattr(function, "_opoverload", None)  # torch.library.custom_op
    if packet is not None:
        return packet.overloadpacket
    if isinstance(function, (torch._ops.OpOverloadPacket, FunctionType, type)):
        return function
    name = getattr(function, "__name__", "").strip("_")
    home = "special_" if getattr(function, "__module__", "") == "torch.special" else ""
    operator = getattr(torch.ops.aten, home + name, None) or getattr(torch.ops.aten, name, None)
    return operator if operator is not None and name else function


def function_name(function: Any) -> str:
    """A name a reader can look up: ``torch.nn.functional.relu``."""
    name = _NAMES.get(function) if function.__hash__ is not None else None
    if name is not None:
        return name
    if isinstance(function, torch._C.ScriptMethod):
        return f"scripted code ({function.name})"
    if isinstance(function, OPERATORS):
        return _public_name(function)
    if isinstance(function, torch._ops.HigherOrderOperator):
        return f"torch.ops.higher_order.{function.name()}"
    try:
        name = resolve_name(function)
    except Exception:  # resolve_name fails on objects that torch does not know
        name = None
    if name:
        _NAMES[function] = name  # torch keeps it for ever, and looking it up is slow
    return name or getattr(function, "__qualname__", None) or repr(function)


def _public_name(operator: Any) -> str:
    """``torch.relu`` for ATen's ``relu``; other libraries' operators as they are."""
    packet = getattr(operator, "overloadpacket", operator)
    space, _, name = str(packet).rpartition(".")
    if space != "aten":
        return str(packet)
    for home, prefix in ((torch, "torch"), (F, "torch.nn.functional"), (torch.Tensor, "Tensor")):
        if hasattr(home, name):
            return f"{prefix}.{name}"
    return f"torch.ops.aten.{name}"
