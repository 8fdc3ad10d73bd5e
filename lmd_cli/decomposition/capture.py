"""Whether work on a GPU is being recorded as a CUDA graph."""

from __future__ import annotations

from contextvars import ContextVar

from torch import Tensor

#: Whether this thread records (or rehearses) a graph.
RECORDING: ContextVar[bool] = ContextVar("recording", default=False)


def recording(x: Tensor) -> bool:
    """Whether work on a tensor is being recorded, so that nothing may look at its values."""
    return x.is_cuda and RECORDING.get()
