"""The patches of torch that are active while something is decomposed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.autograd.function import _SingleLevelFunction


class Setting:
    """An attribute of an object has another value until the end of the block."""

    __slots__ = ("_before", "_name", "_owner", "_value")

    def __init__(self, owner: Any, name: str, value: Any):
        self._owner, self._name, self._value = owner, name, value

    def __enter__(self) -> None:
        self._before = getattr(self._owner, self._name, None)
        setattr(self._owner, self._name, self._value)

    def __exit__(self, *error: object) -> None:
        setattr(self._owner, self._name, self._before)


class Patch:
    """An attribute that has a replacement while any thread is inside a block of :meth:`active`.

    Args:
        owner, name: whose attribute, which it may inherit.
        replacement: looks at :attr:`value`, since the calls of other threads reach it too.
    """

    def __init__(self, owner: Any, name: str, replacement: Any):
        self._owner, self._name, self._replacement = owner, name, replacement
        self._inherited, self.original = name not in vars(owner), getattr(owner, name)
        self._lock, self._blocks, self._here = threading.Lock(), 0, threading.local()

    @property
    def value(self) -> Any:
        """What this thread's innermost block was given, ``None`` outside any."""
        return getattr(self._here, "value", None)

    @contextmanager
    def active(self, value: Any) -> Iterator[None]:
        """Replaced until the end of the block."""
        with self._lock:
            self._blocks += 1
            setattr(self._owner, self._name, self._replacement)
        try:
            with Setting(self._here, "value", value):
                yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks and self._inherited:
                    delattr(self._owner, self._name)
                elif not self._blocks:
                    setattr(self._owner, self._name, self.original)


# -- custom autograd functions, which torch's override protocol does not see -------------------


def is_custom(function: Any) -> bool:
    """Whether a function is a custom autograd function's class."""
    return isinstance(function, type) and issubclass(function, torch.autograd.Function)


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    handle, run = custom_functions.value, super(_SingleLevelFunction, cls).apply
    saves_inputs = cls is getattr(torch.utils.checkpoint, "_NoopSaveInputs", None)
    if handle is None or saves_inputs:  # which is how checkpointing keeps them: nothing is computed
        return run(*args, **kwargs)
    return handle(cls, run, args, kwargs)


#: Shows every ``Function.apply`` of the thread to a handler, which is called as ``handle(class,
#: run, args, kwargs)`` with torch's own ``apply``. That looks its implementation up in this base
#: class at every call, so an ``apply`` that was stored somewhere is seen too.
custom_functions = Patch(_SingleLevelFunction, "apply", classmethod(_apply))


# -- torch's transformer layers, which run one fused operator if nothing overrides functions -----

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


def _has_torch_function(args: Iterable[Any]) -> bool:
    tracker = fused_layers.value
    running = tracker.running if tracker is not None else ()
    if not running or not isinstance(running[-1], FUSED):
        return bool(fused_layers.original(args))
    none = torch._C._disabled_torch_function_impl  # a parameter's
    kinds = {type(x) for x in args} - {torch.Tensor}
    return any(getattr(kind, "__torch_function__", none) is not none for kind in kinds)


#: Lets these layers fuse: our function mode makes torch say that something overrides functions, and
#: the single operations, which run instead, round differently. Given the tracker of the running
#: modules, torch answers them as it does without our mode.
fused_layers = Patch(torch.overrides, "has_torch_function", _has_torch_function)


# -- other threads, whose operators no mode of ours sees ---------------------------------------


def _start(thread: threading.Thread) -> None:
    watch, run = started_threads.value, thread.run
    worker = (
        getattr(getattr(thread, "_target", None), "__module__", "") == "concurrent.futures.thread"
    )
    if watch is not None and not worker:  # which outlives the run, and gets what is submitted

        def watched() -> None:
            del thread.run  # type: ignore[method-assign]
            watch(run)

        thread.run = watched  # type: ignore[method-assign]
    started_threads.original(thread)


def _submit(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    watch = submitted_calls.value
    watched = function if watch is None else partial(watch, function)
    return submitted_calls.original(pool, watched, *args, **kwargs)


#: Show what the thread has other threads run, which is called as ``handle(function, ...)`` there.
started_threads = Patch(threading.Thread, "start", _start)
submitted_calls = Patch(ThreadPoolExecutor, "submit", _submit)
