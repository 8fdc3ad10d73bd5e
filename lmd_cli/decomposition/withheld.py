"""A call without the plain constants that it would add: they are the bias's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.marks import MarkedTensor, is_continuous
from lmd_cli.decomposition.registry import Rule
from lmd_cli.decomposition.rules.arithmetic import add_
from lmd_cli.decomposition.rules.linear import convolution, linear, pad


def without_constants(func: Any, rule: Rule, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments of the call with every plain constant that it would add replaced by zero."""
    if rule.apply in (convolution, linear):
        args = (*args[:2], None, *args[3:]) if len(args) > 2 else args
        return args, {**kwargs, "bias": None} if "bias" in kwargs else kwargs
    if rule.apply is pad:
        return (*args[:3], *(0.0 for _ in args[3:])), {
            k: 0.0 if k == "value" and v is not None else v for k, v in kwargs.items()
        }
    if rule.kind != "sum":
        return args, kwargs
    at = _VALUES.get(func.__name__, len(args))
    args = (*args[:at], *(_zeroed(value, True) for value in args[at:]))
    kwargs = {**kwargs, "value": _zeroed(kwargs["value"], True)} if "value" in kwargs else kwargs
    numbers = rule.apply.__module__ == add_.__module__
    factors = {name: value for name, value in kwargs.items() if name == "alpha"}
    return _zeroed(args, numbers), {**_zeroed(kwargs, False), **factors}


#: Where functions take a number that they write, as opposed to a dimension or a size.
_VALUES = {"__setitem__": 2, "masked_fill": 2, "masked_fill_": 2, "scatter": 3, "scatter_": 3}


def _zeroed(tree: Any, numbers: bool) -> Any:
    def zero(value: Any) -> Any:
        if isinstance(value, MarkedTensor):
            return value
        if isinstance(value, Tensor) and is_continuous(value):
            return torch.zeros_like(value)
        if isinstance(value, float) or (numbers and isinstance(value, int)):
            return 0.0
        return value

    return pytree.tree_map(zero, tree)
