"""Torch's transformer layers run one fused operator where nothing overrides torch's functions.

A function mode makes ``torch.overrides.has_torch_function`` say that something does, and the single
operations, which run instead, round differently. The total must be what the plain network
computes, bit for bit; so these layers, when they ask, are told what they would be without our mode.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lmd_cli.decomposition.tracing.modules import ModuleTracker

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)

_LOCK = threading.Lock()
_HERE = threading.local()
_open_blocks = 0
_asked = torch.overrides.has_torch_function


@contextmanager
def fused_layers(tracker: ModuleTracker) -> Iterator[None]:
    """Lets this thread's transformer layers fuse until the end of the block."""
    _change_count(1)
    trackers = _HERE.__dict__.setdefault("trackers", [])
    trackers.append(tracker)
    try:
        yield
    finally:
        trackers.pop()
        _change_count(-1)


def _change_count(by: int) -> None:
    global _open_blocks
    with _LOCK:
        _open_blocks += by
        if by > 0 and _open_blocks == 1:
            torch.overrides.has_torch_function = _has_torch_function
        elif _open_blocks == 0:
            torch.overrides.has_torch_function = _asked


def _has_torch_function(args: Iterable[Any]) -> bool:
    trackers = _HERE.__dict__.get("trackers")
    running = trackers[-1].running if trackers else ()
    if running and isinstance(running[-1], FUSED):
        return any(type(x) not in (torch.Tensor, nn.Parameter) and _overrides(x) for x in args)
    return _asked(args)


def _overrides(x: Any) -> bool:
    own = getattr(type(x), "__torch_function__", None)
    return own is not None and own is not torch._C._disabled_torch_function_impl
