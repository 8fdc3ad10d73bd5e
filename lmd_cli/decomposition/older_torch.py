"""Replacements for what torch 2.4 lacks of later releases."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules import module as _module

from lmd_cli.supported import require_supported

require_supported()

_hooks: dict[int, bool] | None = getattr(_module, "_global_forward_hooks_with_kwargs", None)
#: Options of a hook for all modules that is given keyword arguments too, where there are any: else
#: a module that drops the parts of what it gets by keyword alone is not noticed.
WITH_KEYWORDS: dict[str, Any] = {} if _hooks is None else {"with_kwargs": True}
#: Torch's own record of these hooks.
KEYWORD_HOOKS: dict[int, bool] = {} if _hooks is None else _hooks


def can_decompose(operator: Any) -> bool:
    """Whether an operator (an ``OpOverload``) is made of others, whatever the backend."""
    if hasattr(operator, "_can_decompose"):
        return bool(operator._can_decompose())
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key)
    return key in operator.py_kernels or bool(has_kernel)
