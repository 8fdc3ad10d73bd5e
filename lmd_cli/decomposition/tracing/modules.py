"""Where in the user's model the computation stands, without touching the model."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from lmd_cli.decomposition.errors import (
    DecompositionError,
    InputError,
    LeakError,
    NoRuleError,
)
from lmd_cli.decomposition.older_torch import KEYWORD_HOOKS, WITH_KEYWORDS

#: Torch runs fused kernels in these, unless somebody watches its functions: nobody does inside.
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
#: Called as ``on_output(name, module, (args, kwargs), output)``; gives the output to go on with.
OnOutput = Callable[[str, nn.Module, Any, Any], Any]


def find_root(function: Any) -> nn.Module | None:
    """The module whose names describe what ``function`` calls, if that can be told.

    A module, a bound method of one, a partial of either, a closure over exactly one, or what wraps
    one of these (``__wrapped__``).
    """
    if isinstance(function, nn.Module):
        return function
    if isinstance(function, functools.partial):
        return find_root(function.func)
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        return owner
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    roots = [root for value in cells if (root := _module_of(value)) is not None]
    if len(roots) == 1:
        return roots[0]
    wrapped = getattr(function, "__wrapped__", None)
    return None if roots or wrapped is None else find_root(wrapped)


def _module_of(value: Any) -> nn.Module | None:
    owner = getattr(value, "__self__", None)
    return next((v for v in (value, owner) if isinstance(v, nn.Module)), None)


def known_modules(patterns: Iterable[str], root: nn.Module | None, what: str) -> frozenset[str]:
    """Names or patterns of modules (``(root)`` is the root, ``<Name>`` a class outside it).

    Raises:
        InputError: one that no module has.
    """
    names = [name or "(root)" for name, _ in root.named_modules()] if root is not None else []
    found = frozenset((patterns,) if isinstance(patterns, str) else patterns)
    for pattern in sorted(found - {""}):
        if pattern.startswith("<") or any(fnmatchcase(name, pattern) for name in names):
            continue
        near = get_close_matches(pattern, names, n=3)
        hint = f"; near: {', '.join(near)}" if near else "" if names else "; give root="
        raise InputError(f"{what}: {pattern!r} matches no module{hint}")
    return found


def training_mode(module: nn.Module) -> str:
    """The kind of norm that would change the module's own state, empty if none."""
    if not module.training:
        return ""
    if isinstance(module, _BatchNorm):
        return "BatchNorm"
    keeps = isinstance(module, _InstanceNorm) and module.track_running_stats
    return "InstanceNorm" if keeps else ""


class ModuleTracker:
    """Knows the module that runs now, through torch's global hooks (the model gets none)."""

    def __init__(self, root: nn.Module | None):
        named = root.named_modules() if root is not None else ()
        self._names = {id(module): name for name, module in named}
        self._stack: list[nn.Module] = []
        self._on_output: OnOutput | None = None
        self._on_error: Callable[[DecompositionError], None] | None = None
        self._carries: Callable[..., bool] | None = None
        self._thread = 0
        self._fused: list[tuple[nn.Module, Any]] = []

    def name(self, module: nn.Module) -> str:
        """Qualified name, or the class in angle brackets for a module outside the root."""
        return self._names.get(id(module), f"<{type(module).__name__}>")

    @property
    def path(self) -> str:
        """Name of the innermost running module; empty outside any module and in the root."""
        return self.name(self._stack[-1]) if self._stack else ""

    @property
    def named_path(self) -> str:
        """Name of the innermost running module that the root knows."""
        known = (self._names.get(id(module)) for module in reversed(self._stack))
        return next((name for name in known if name is not None), "")

    @property
    def running(self) -> tuple[nn.Module, ...]:
        """The running modules, the innermost last."""
        return tuple(self._stack)

    def describe(self) -> str:
        """The innermost running module for an error message."""
        if not self._stack:
            return "outside any module"
        module = self._stack[-1]
        return f"in module {self.name(module) or '(root)'!r} ({type(module).__name__})"

    @contextmanager
    def active(
        self,
        on_output: OnOutput | None = None,
        on_error: Callable[[DecompositionError], None] | None = None,
        carries: Callable[..., bool] | None = None,
    ) -> Iterator[None]:
        """Follows module calls; everything is removed at the end, also after an exception."""
        self._on_output, self._thread = on_output, threading.get_ident()
        self._on_error, self._carries = on_error, carries
        handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True, **WITH_KEYWORDS),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
                KEYWORD_HOOKS.pop(handle.id, None)  # torch leaves it behind
            self._stack.clear()
            self._on_output = self._on_error = self._carries = None  # their owner owns this

    def _elsewhere(self) -> bool:
        """Torch's global hooks also see what other threads run."""
        return threading.get_ident() != self._thread

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self._elsewhere():
            self._require_others(module, args)
            return
        self._stack.append(module)
        if kind := training_mode(module):  # before it counts the batch and changes its state
            error = NoRuleError(
                f"{kind} is in training mode {self.describe()}; call .eval() on the network"
            )
            if self._on_error is not None:
                self._on_error(error)  # the network may catch it
            raise error

    def _require_others(self, module: nn.Module, args: Any) -> None:
        """What another thread runs is not followed, so it must not be on this run's tensors.

        Raises:
            LeakError: it is.
        """
        with torch._C.DisableTorchFunction():
            if self._carries is None or self._on_error is None or not self._carries(args):
                return
        error = LeakError(
            f"module {self.name(module)!r} ({type(module).__name__}) runs in another thread, whose "
            "operators are not seen; run it in the thread that calls decompose"
        )
        self._on_error(error)
        raise error

    def _leave(self, module: nn.Module, args: Any, *rest: Any) -> Any:
        *named, output = rest  # torch leaves the keyword arguments out after an exception
        if self._elsewhere():
            return None
        while self._fused and self._fused[-1][0] is module:
            self._fused.pop()[1].__exit__(None, None, None)
        while self._stack and self._stack.pop() is not module:
            pass  # a call that raised before its hooks ran leaves its entry behind
        if output is None or self._on_output is None:  # also after an exception
            return None
        return self._on_output(self.name(module), module, (args, *named), output)
