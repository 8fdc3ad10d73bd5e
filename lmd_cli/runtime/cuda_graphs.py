"""Records work on a GPU as a CUDA graph, and replays it.

A decomposition starts some thousand small kernels, and Python takes longer to start them than the
GPU to run them. A graph starts them all at once: the same kernels on the same memory, hence the
same bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition.capture import RECORDING

#: Different shapes that are recorded; each holds memory of its own. Further ones run as they are.
MOST_SHAPES = 2


class Graph:
    """A function of nested tensors that is recorded when it is first called.

    Python code in the function runs at the recording only: nothing but the tensors that are handed
    over may change between calls. What cannot be recorded (the function waits for a value on the
    GPU, say), inputs elsewhere than on a GPU, and shapes beyond the first few run as they are.

    Args:
        function: takes and returns nested tensors.
        name: for the warning that it cannot be recorded.

    Attributes:
        refused: why the function runs as it is, if it cannot be recorded.
    """

    def __init__(self, function: Callable[[Any], Any], name: str):
        self._function, self._name = function, name
        self._recorded: dict[Any, _Recorded] = {}
        self.refused: str | None = None

    def __call__(self, tree: Any) -> Any:
        """The function's result; a replayed one is overwritten by the next call."""
        leaves, structure = pytree.tree_flatten(tree)
        key = (structure, *map(_kind, leaves), torch.is_autocast_enabled("cuda"))
        if key not in self._recorded and not self._record(key, leaves, structure):
            return self._function(tree)
        return self._recorded[key](leaves)

    def _record(self, key: Any, leaves: list[Any], structure: Any) -> bool:
        """Whether there is a graph now."""
        on_gpu = all(x.is_cuda for x in leaves if isinstance(x, Tensor))
        if self.refused or not on_gpu or len(self._recorded) >= MOST_SHAPES:
            return False
        try:
            self._recorded[key] = _Recorded(self._function, leaves, structure)
        except Exception as error:  # of the recording, or one that running it raises again
            torch.cuda.synchronize()
            self.refused = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"{self._name} runs without a CUDA graph: {self.refused}", stacklevel=3)
            return False
        return True


class _Recorded:
    """One graph with its inputs and outputs."""

    def __init__(self, function: Callable[[Any], Any], leaves: list[Any], structure: Any):
        self._inputs = [x.clone() if isinstance(x, Tensor) else x for x in leaves]
        tree = pytree.tree_unflatten(self._inputs, structure)
        side, here = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(here)
        with torch.cuda.stream(side):
            # cuBLAS and cuDNN take their workspaces, and cuDNN chooses its algorithms, at a first
            # call: inside the recording that would fail or become a part of the graph.
            function(tree)
            with _warm_up():
                function(tree)
        here.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads (the one that pins memory) may go on.
        recorder = torch.cuda.graph(self._graph, capture_error_mode="thread_local")
        with _recording(), _random_state(), recorder:
            self._output = function(tree)

    def __call__(self, leaves: list[Any]) -> Any:
        for own, given in zip(self._inputs, leaves, strict=True):
            if isinstance(own, Tensor):
                own.copy_(given)
        self._graph.replay()
        return self._output


@contextmanager
def _recording() -> Iterator[None]:
    """:func:`~.decomposition.capture.recording` is true inside."""
    token = RECORDING.set(True)
    try:
        yield
    finally:
        RECORDING.reset(token)


@contextmanager
def _warm_up() -> Iterator[None]:
    """Makes it an error to wait for the GPU: so would the recording, and leave torch worse off."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode")
        torch.cuda.set_sync_debug_mode("error")
    try:
        with _recording():
            yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _random_state() -> Iterator[None]:
    """Gives the random generator back a state of its own when a recording has failed: torch leaves
    it in the state of a recording."""
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    copy = generator.clone_state()
    try:
        yield
    except BaseException:
        generator.graphsafe_set_state(copy)
        raise


def _kind(leaf: Any) -> Any:
    """What must be alike for a graph to fit."""
    if isinstance(leaf, Tensor):
        return (tuple(leaf.shape), leaf.dtype, leaf.device)
    return leaf
