"""Heads that wait until the inputs of several passes through the linearised network are there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.frozen import FrozenMap, Stream
from lmd_cli.decomposition.heads import Head, LinearHead, find_head
from lmd_cli.decomposition.marks import MarkedTensor, marked, unmark_tensor
from lmd_cli.decomposition.modules import ModuleTracker
from lmd_cli.decomposition.registry import Rule, function_name
from lmd_cli.decomposition.rules.linear import convolution
from lmd_cli.decomposition.tensor import writes_to

#: Inputs for each output of a head from which on it pays to work out its kernel.
PAYS_FROM = 6


@dataclass(frozen=True)
class Waiting:
    """A head's inputs whose outputs are still to be worked out.

    Attributes:
        position: of the head's first map on the tape.
        inputs: ``(n, channels in, Z, X)``.
        writes: how often their memory had been written to.
        outputs: ``(n, outputs, Z, X)``, empty.
    """

    position: int
    inputs: Tensor
    writes: int
    outputs: Tensor


class Heads:
    """The heads of a network at one operating point.

    Args:
        tape: the maps of the operating point.
        inputs: how many will go through in all; with few nothing waits.
        most: bytes of inputs that wait at most.

    Attributes:
        spoilt: whether inputs were overwritten while they waited; their heads then run from now on,
            and what was put off has to be done again.
    """

    def __init__(self, tape: Sequence[FrozenMap], inputs: int, most: int):
        self._tape, self._inputs, self._most = tape, inputs, most
        self._linear: dict[int, LinearHead | None] = {}
        self._waiting: list[Waiting] = []
        self.spoilt = False

    def wait(self, head: Head, h: Tensor, stream: Stream, position: int) -> Waiting | None:
        """Puts a head off, if it pays and its maps are factors."""
        if not self._pays(head, h):
            return None
        if position not in self._linear:
            maps = self._tape[position : position + head.maps]
            self._linear[position] = LinearHead.of(head, maps, stream)
        if self._linear[position] is None:
            return None
        outputs = h.new_empty(len(h), head.last.out_channels, *h.shape[2:])
        waiting = Waiting(position, h, writes_to(h), outputs)
        self._waiting.append(waiting)
        return waiting

    def _pays(self, head: Head, h: Tensor) -> bool:
        """Not on a GPU, where convolutions are cheap beside moving kernels through memory."""
        usual = h.dim() == 4 and not h.is_cuda and not h.is_inference()
        same = h.dtype == head.first.weight.dtype == head.last.weight.dtype
        return usual and same and self._inputs >= PAYS_FROM * head.last.out_channels

    @property
    def full(self) -> bool:
        """Whether as much waits as may."""
        return sum(w.inputs.nbytes for w in self._waiting) >= self._most

    def refuse(self, position: int) -> None:
        """Lets a head run from now on."""
        self._linear[position] = None

    @torch.no_grad()
    def settle(self) -> None:
        """Works out what waits."""
        waiting, self._waiting = self._waiting, []
        for w in waiting:
            if writes_to(w.inputs) != w.writes:
                self.refuse(w.position)
                self.spoilt = True
        for position in dict.fromkeys(w.position for w in waiting):
            head = self._linear[position]
            if head is not None:
                _work_out(head, [w for w in waiting if w.position == position])


def _work_out(head: LinearHead, waiting: Sequence[Waiting]) -> None:
    made = head([h for w in waiting for h in w.inputs])
    for w, outputs in zip(waiting, made.split([len(w.inputs) for w in waiting]), strict=True):
        w.outputs.copy_(outputs)


class HeadPass:
    """One stream's way past heads.

    Args:
        heads: of the operating point.
        stream: whose.
    """

    def __init__(self, heads: Heads, stream: Stream):
        self._heads, self._stream = heads, stream
        self._ahead: dict[int, Head] = {}
        self._inside: tuple[Head, Waiting] | None = None
        self._made: list[tuple[Tensor, Waiting]] = []
        self._thread = threading.get_ident()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sees heads coming, through torch's global hooks (the network gets none). Where somebody
        else watches all modules, nothing waits."""
        if _others_watch():
            yield
            return
        handle = hooks.register_module_forward_pre_hook(self._enter)
        try:
            yield
        finally:
            handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        if threading.get_ident() == self._thread and (head := find_head(module)) is not None:
            self._ahead[id(head.first.weight)] = head

    def meet(
        self, func: Any, rule: Rule, args: Any, kwargs: Any, position: int
    ) -> tuple[Any, int] | None:
        """What a call within a head gives, and how many maps that has used; outside nothing.

        Raises:
            DecompositionError: a call that a head does not make.
        """
        if rule.kind == "metadata":
            return None
        if self._inside is None:
            self._used(args, kwargs)
            return self._first(args, position) if rule.apply is convolution else None
        head, waiting = self._inside
        if rule.kind in ("normalisation", "activation"):
            return args[0], 0  # stands for what is never made
        if rule.apply is not convolution or args[1] is not head.last.weight:
            raise DecompositionError(f"replay: {function_name(func)} within a head")
        self._inside = None
        out = waiting.outputs.as_subclass(MarkedTensor)
        self._made.append((out, waiting))
        return out, head.maps

    def _first(self, args: Any, position: int) -> tuple[Any, int] | None:
        """The first convolution of a head that waits."""
        head = self._ahead.pop(id(args[1]), None) if len(args) > 1 else None
        h = unmark_tensor(args[0])
        waiting = self._heads.wait(head, h, self._stream, position) if head is not None else None
        if head is None or waiting is None:
            return None
        self._inside = head, waiting
        between = h.new_empty(len(h), head.first.out_channels, *h.shape[2:])
        return between.as_subclass(MarkedTensor), 0

    def _used(self, args: Any, kwargs: Any) -> None:
        """Works out what waits if a call uses it; that head then runs from now on."""
        if not self._made:
            return
        given = {id(x) for x in marked(args, kwargs)}
        used = [waiting for out, waiting in self._made if id(out) in given]
        if used:
            self._heads.settle()
            self._made = []
        for waiting in used:
            self._heads.refuse(waiting.position)


def _others_watch() -> bool:
    """Whether anybody but us, perhaps in another thread, has hooks on all modules."""
    every = (*hooks._global_forward_pre_hooks.values(), *hooks._global_forward_hooks.values())
    ours = (HeadPass, ModuleTracker)
    return not all(isinstance(getattr(hook, "__self__", None), ours) for hook in every)
