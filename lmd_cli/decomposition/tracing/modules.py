"""Tracks which of the user's modules is running, without touching the model."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from lmd_cli.decomposition.errors import InputError, LeakError, NoRuleError
from lmd_cli.decomposition.older_torch import KEYWORD_HOOKS, WITH_KEYWORDS

if TYPE_CHECKING:
    from lmd_cli.decomposition.tracing.run import Run

#: Why what another thread runs is a leak.
ELSEWHERE = (
    "runs in another thread, whose operators are not seen; run it in the thread that calls "
    "decompose"
)


def find_root(function: Any) -> nn.Module | None:
    """The module whose names describe what ``function`` calls, if there is one.

    A module, a bound method of one, a partial of either, a closure over exactly one, or what wraps
    one of these (``__wrapped__``).
    """
    if isinstance(function, functools.partial):
        return find_root(function.func)
    own = _module_of(function)
    if own is not None:
        return own
    cells = (cell.cell_contents for cell in getattr(function, "__closure__", None) or ())
    roots = [module for module in map(_module_of, cells) if module is not None]
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
    wanted = frozenset((patterns,) if isinstance(patterns, str) else patterns)
    modules = root.named_modules() if root is not None and wanted else ()
    names = [name or "(root)" for name, _ in modules]
    for pattern in sorted(wanted - {""}):
        if not pattern.startswith("<") and not any(fnmatchcase(name, pattern) for name in names):
            hint = near(pattern, names) if names else "; give root="
            raise InputError(f"{what}: {pattern!r} matches no module{hint}")
    return wanted


def near(name: str, names: Iterable[str]) -> str:
    """The names that are like one that is unknown, for the end of a message."""
    close = get_close_matches(name, sorted(names), n=3)
    return f"; near: {', '.join(close)}" if close else ""


def training_mode(module: nn.Module) -> str:
    """The kind of norm that would change the module's own state, empty if none."""
    if isinstance(module, _BatchNorm) and module.training:
        return "BatchNorm"
    keeps = isinstance(module, _InstanceNorm) and module.track_running_stats
    return "InstanceNorm" if keeps and module.training else ""


class ModuleTracker:
    """Knows the module that runs now, through torch's global hooks (the model gets none)."""

    def __init__(self, root: nn.Module | None):
        named = root.named_modules() if root is not None else ()
        self._names = {id(module): name for name, module in named}
        self.running: list[nn.Module] = []  # the innermost last

    def name(self, module: nn.Module) -> str:
        """Qualified name, or the class in angle brackets for a module outside the root."""
        name = self._names.get(id(module))
        return f"<{type(module).__name__}>" if name is None else name

    @property
    def path(self) -> str:
        """Name of the innermost running module; empty outside any module and in the root."""
        return self.name(self.running[-1]) if self.running else ""

    @property
    def named_path(self) -> str:
        """Name of the innermost running module that the root knows."""
        known = (self._names.get(id(module)) for module in reversed(self.running))
        return next((name for name in known if name is not None), "")

    def describe(self) -> str:
        """The innermost running module for an error message."""
        if not self.running:
            return "outside any module"
        module = self.running[-1]
        return f"in module {self.name(module) or '(root)'!r} ({type(module).__name__})"

    @contextmanager
    def active(self, session: Run) -> Iterator[None]:
        """Follows a session's module calls; nothing is left at the end, also after an exception.

        Torch's global hooks also see what other threads run.
        """
        thread = threading.get_ident()

        def enter(module: nn.Module, args: Any) -> None:
            if threading.get_ident() == thread:
                self.running.append(module)
                if kind := training_mode(module):  # before it counts the batch
                    why = f"is in training mode {self.describe()}; call .eval() on the network"
                    session.fail(NoRuleError(f"{kind} {why}"))
                return
            with torch._C.DisableTorchFunction():
                carries = session.any_carries(args)
            if carries:
                what = f"module {self.name(module)!r} ({type(module).__name__})"
                session.fail(LeakError(f"{what} {ELSEWHERE}"))

        def leave(module: nn.Module, args: Any, *rest: Any) -> None:
            *named, output = rest  # torch leaves the keyword arguments out after an exception
            if threading.get_ident() != thread:
                return
            while self.running and self.running.pop() is not module:
                pass  # a call that raised before its hooks ran leaves its entry behind
            if output is not None:  # as it is after an exception
                session.module_done(module, (args, *named), output)

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True, **WITH_KEYWORDS),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
                KEYWORD_HOOKS.pop(handle.id, None)  # torch leaves it behind
            self.running.clear()
