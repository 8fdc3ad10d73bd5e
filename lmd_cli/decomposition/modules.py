"""Where in the user's model the computation stands, without touching the model."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from lmd_cli.decomposition.errors import NoRuleError

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


class ModuleTracker:
    """Knows the module that runs now, through torch's global hooks (the model gets none)."""

    def __init__(self, root: nn.Module | None):
        named = root.named_modules() if root is not None else ()
        self._names = {id(module): name for name, module in named}
        self._stack: list[nn.Module] = []
        self._on_output: OnOutput | None = None
        self._thread = 0

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
    def active(self, on_output: OnOutput | None = None) -> Iterator[None]:
        """Follows module calls; everything is removed at the end, also after an exception."""
        self._on_output, self._thread = on_output, threading.get_ident()
        handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
                _global_forward_hooks_with_kwargs.pop(handle.id, None)  # torch leaves it behind
            self._stack.clear()
            self._on_output = None  # its owner owns this: a circle, which would keep tensors alive

    def _elsewhere(self) -> bool:
        """Torch's global hooks also see what other threads run."""
        return threading.get_ident() != self._thread

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self._elsewhere():
            return
        self._stack.append(module)
        if isinstance(module, _BatchNorm) and module.training:
            raise NoRuleError(  # before the module counts the batch and changes its state
                f"BatchNorm is in training mode {self.describe()}; call .eval() on the network"
            )

    def _leave(self, module: nn.Module, args: Any, *rest: Any) -> Any:
        *named, output = rest  # torch leaves the keyword arguments out after an exception
        if self._elsewhere():
            return None
        while self._stack and self._stack.pop() is not module:
            pass  # a call that raised before its hooks ran leaves its entry behind
        if output is None or self._on_output is None:  # also after an exception
            return None
        return self._on_output(self.name(module), module, (args, *named), output)
