"""Custom ``torch.autograd.Function``s, which torch's override protocol does not see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch.autograd.function import _SingleLevelFunction

#: Called as ``handle(function class, run, args, kwargs)``, where ``run`` is torch's own ``apply``.
Handle = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]

_LOCK = threading.Lock()
_HERE = threading.local()
_open_blocks = 0


def is_custom(function: Any) -> bool:
    """Whether a function is a custom autograd function's class."""
    return isinstance(function, type) and issubclass(function, torch.autograd.Function)


def _saves_inputs(function: Any) -> bool:
    """Whether it is what checkpointing keeps a module's inputs by: it computes nothing."""
    return function is getattr(torch.utils.checkpoint, "_NoopSaveInputs", None)


@contextmanager
def custom_functions(handle: Handle) -> Iterator[None]:
    """Shows every ``Function.apply`` of this thread to ``handle`` until the end of the block.

    ``Function.apply`` looks its implementation up in a base class at every call; while a block is
    open, in whatever thread, ours stands there, so that an ``apply`` that was stored somewhere
    is seen too.
    """
    _change_count(1)
    handles = _HERE.__dict__.setdefault("handles", [])
    handles.append(handle)
    try:
        yield
    finally:
        handles.pop()
        _change_count(-1)


def _change_count(by: int) -> None:
    global _open_blocks
    with _LOCK:
        _open_blocks += by
        if by > 0 and _open_blocks == 1:
            setattr(_SingleLevelFunction, "apply", classmethod(_apply))  # noqa: B010
        elif _open_blocks == 0:
            delattr(_SingleLevelFunction, "apply")  # the inherited one is back


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    handles = _HERE.__dict__.get("handles")
    run = super(_SingleLevelFunction, cls).apply
    if handles and not _saves_inputs(cls):
        return handles[-1](cls, run, args, kwargs)
    return run(*args, **kwargs)
