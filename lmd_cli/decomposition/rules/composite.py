"""Functions that are made of others: the plain call for the total, its single operations for the
parts.

The total stays what the function itself computes, bit for bit; the parts are those of the single
operations, each of which has a rule, so they sum to it up to the rounding between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction

from lmd_cli.decomposition.registry import register_rule
from lmd_cli.decomposition.rules.common import call_plain
from lmd_cli.decomposition.tensor import DecomposedTensor

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

#: What each function is made of; the replay runs these too.
COMPOSED: dict[Any, Callable[..., Any]] = {}

#: Functions with a rule of their own that are made of others for some arguments only.
PARTLY: dict[Any, Callable[[Any, Any], bool]] = {}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def composed(*functions: Any, equation: str, inplace: bool = False) -> Decorator:
    """Registers what functions are made of: a function of the same arguments."""

    def decorate(made_of: Callable[..., Any]) -> Callable[..., Any]:
        COMPOSED.update(dict.fromkeys(functions, made_of))
        rule = composite_ if inplace else composite
        register_rule(*functions, kind="composite", equation=equation, inplace=inplace)(rule)
        return made_of

    return decorate


def partly_composed(*functions: Any, when: Callable[[Any, Any], bool]) -> Decorator:
    """Says what functions are made of where ``when(args, kwargs)`` holds."""

    def decorate(made_of: Callable[..., Any]) -> Callable[..., Any]:
        COMPOSED.update(dict.fromkeys(functions, made_of))
        PARTLY.update(dict.fromkeys(functions, when))
        return made_of

    return decorate


def is_composed(func: Any, kind: str, args: Any, kwargs: Any) -> bool:
    """Whether a call runs what the function is made of."""
    return kind == "composite" or (func in PARTLY and PARTLY[func](args, kwargs))


def composite(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
    """The plain call's total with the parts of the operations that it is made of."""
    total = call_plain(func, args, kwargs)
    made = _run(session, func, args, kwargs)
    if isinstance(total, Tensor):
        return with_total(session, total, made)
    return type_of(total)(with_total(session, t, m) for t, m in zip(total, made, strict=True))


def type_of(total: Any) -> Callable[..., Any]:
    """The constructor of a tuple, list or torch's named tuples from an iterable."""
    return type(total) if type(total) in (tuple, list) else lambda made: type(total)(list(made))


def composite_(session: Session, func: Any, x: DecomposedTensor, *args: Any, **kw: Any) -> Any:
    """The same for a function that writes into its first argument."""
    session.own(x)
    made = _run(session, func, (x, *args), kw)
    call_plain(func, (x, *args), kw)
    rows = tuple(sorted({*x.rows, *made.rows}))
    return session.assign(x, made.expand_rows(rows).to(x.total.dtype), rows)


def _run(session: Session, func: Any, args: Any, kwargs: Any) -> Any:
    """What the function is made of, through the door.

    Raises:
        NoRuleError: these arguments ask for something that has no rule.
    """
    try:
        with session.reopened():
            return COMPOSED[func](*args, **kwargs)
    except NotImplementedError as error:
        raise session.refuse(func, f"{error} has no rule") from None


def with_total(session: Session, total: Tensor | None, made: Any) -> Any:
    """The parts that were made beside the total; a plain result is a constant."""
    if total is None or not isinstance(made, DecomposedTensor):
        return total
    return session.make(total, made.parts.to(total.dtype), made.rows)


def checkpointed(run: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    """``torch.utils.checkpoint`` with ``use_reentrant=True`` is the function that it runs."""
    return run(*args)


@register_rule(CheckpointFunction, kind="composite", equation="its own operations")
def transparent(session: Session, func: Any, *args: Any) -> Any:
    """The function's own operations, once."""
    with session.reopened():
        return checkpointed(*args)


COMPOSED[CheckpointFunction] = checkpointed
