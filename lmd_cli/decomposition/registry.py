"""Which function has which rule, and of which kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import resolve_name

KINDS = {
    "structure": "moves or copies elements; applied to each part",
    "linear": "applied to each part; an own bias goes to the bias part",
    "sum": "joins several tensors; plain constants go to the bias part",
    "product": "by constants, each part; of two decomposed factors as in appendix D.2",
    "quotient": "the divisor is a constant of the operating point, as the deviation in eq. 11",
    "statistic": "a divisor, constant as the deviation in eq. 11; all of it is bias",
    "activation": "slope at the total (eq. 9), bias split as in Appendix C",
    "softmax": "constant weights, eq. 1, or guarded eq. 9 (appendix D.2)",
    "composite": "made of operations that have rules; each is applied in turn",
    "normalisation": "eq. 10 or eq. 11",
    "selection": "picks elements where the total picks them (slope 0 or 1, eq. 9)",
    "constant": "its result is a constant of the operating point",
    "metadata": "shape, type and device only",
    "refused": "would drop the parts; an error",
}


@dataclass(frozen=True)
class Rule:
    """How parts go through one function.

    Attributes:
        apply: called as ``apply(session, func, *args, **kwargs)``; returns the result.
        kind: one of :data:`KINDS`.
        equation: where the rule comes from, for coverage tables.
        inplace: the function writes into its first argument.
    """

    apply: Callable[..., Any]
    kind: str
    equation: str
    inplace: bool = False


_RULES: dict[Any, Rule] = {}
_REPLACED: dict[Any, list[Rule]] = {}


def register_rule(
    *functions: Any,
    kind: str = "linear",
    equation: str = "",
    inplace: bool = False,
    override: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a rule: how parts go through a function.

    The decorated function is called as ``rule(session, func, *args, **kwargs)``. Arguments that
    carry parts are :class:`~.tensor.DecomposedTensor`, with ``x.total``, ``x.parts`` of shape
    ``(len(x.rows), *x.total.shape)`` and ``x.rows``; it returns what
    ``session.make(total, parts, rows)`` gives, or a plain result if it is a constant
    (``kind="constant"``). The parts' sum must be the total: ``decompose(..., audit="raise")`` names
    the operation where it is not. For a custom autograd function, register its class::

        class Double(torch.autograd.Function): ...

        @register_rule(Double, kind="linear", equation="2 h")
        def double(session, func, x):
            return session.make(func.apply(x.total), 2 * x.parts, x.rows)

    A compiled or Triton operation takes part once it is a ``torch.library.custom_op``: register
    ``torch.ops.my_library.my_operation``.

    Args:
        functions: torch functions, custom autograd functions, operators, or any function that
            takes part in torch's override protocol.
        kind: one of :data:`KINDS`. A rule of a nonlinear kind also gives the linear map to
            ``session.freeze(...)``, which a replay runs.
        equation: where the rule comes from, for coverage tables.
        inplace: the function writes into its first argument.
        override: replace a rule that is there already.

    Raises:
        ValueError: an unknown kind, or a function that has a rule already.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; one of {', '.join(KINDS)}")

    def decorate(apply: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            if function in _RULES and not override:
                raise ValueError(
                    f"{function_name(function)} has a rule already; override=True replaces it"
                )
            if function in _RULES:
                _REPLACED.setdefault(function, []).append(_RULES[function])
            _RULES[function] = Rule(apply, kind, equation, inplace)
        return apply

    return decorate


def unregister_rule(function: Any) -> None:
    """Takes a rule back; the one that it replaced, if any, holds again."""
    replaced = _REPLACED.get(function)
    if replaced:
        _RULES[function] = replaced.pop()
    else:
        _RULES.pop(function, None)


def find_rule(function: Any) -> Rule | None:
    """The rule of a function, or ``None``; an overload of an operator has its packet's rule."""
    rule = _RULES.get(function)
    return rule if rule is not None else _RULES.get(canonical(function))


def canonical(function: Any) -> Any:
    """The function that rules know: ``torch.relu`` for ``torch.ops.aten.relu.default``."""
    packet = getattr(function, "overloadpacket", function)
    if function in _RULES or not isinstance(packet, torch._ops.OpOverloadPacket):
        return function
    space, _, name = str(packet).rpartition(".")
    homes = (torch, torch._C._nn, torch.Tensor, F) if space == "aten" else ()
    found = (getattr(home, name, None) for home in homes)
    return next((f for f in found if f in _RULES), packet)


def registered_functions() -> Iterable[Any]:
    """All functions that have a rule."""
    return tuple(_RULES)


def function_name(function: Any) -> str:
    """A name a reader can look up: ``torch.nn.functional.relu``."""
    if is_scripted(function):
        return f"scripted code ({function.name})"
    try:
        name = resolve_name(function)
    except Exception:  # resolve_name fails on objects that torch does not know
        name = None
    return name or getattr(function, "__qualname__", None) or repr(function)


def is_scripted(function: Any) -> bool:
    """Whether a function is a method of a scripted or traced module."""
    return isinstance(function, torch._C.ScriptMethod)


def aliases(*names: str) -> tuple[Any, ...]:
    """Every public torch function of these names (``torch``, ``Tensor``, ``nn.functional``)."""
    homes = (torch, torch.Tensor, F, torch._C._nn, torch.special, torch.fft, torch.linalg)
    found = (getattr(home, name, None) for name in names for home in homes)
    return tuple(dict.fromkeys(f for f in found if callable(f)))


def inplace_aliases(*names: str) -> tuple[Any, ...]:
    """The in-place twins (``relu_``, ``Tensor.relu_``) of :func:`aliases`."""
    return aliases(*(f"{name}_" for name in names))


def getters(*names: str) -> tuple[Any, ...]:
    """Attribute getters of ``torch.Tensor`` (``shape``, ``mT``), as the override protocol
    names them."""
    found = (getattr(torch.Tensor, name, None) for name in names)
    return tuple(f.__get__ for f in found if f is not None)  # type: ignore[attr-defined]
