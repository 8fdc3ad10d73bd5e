"""What a method costs at one sample: calls of the network, FLOPs, memory, time (table 3)."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lmd_cli.attribution.interface import Features, Fuse, Method, Target, run, scores
from lmd_cli.attribution.linearised import Lmd, LmdExplainer
from lmd_cli.attribution.lrp import Lrp
from lmd_cli.attribution.removal import Shapley
from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.layout import BIAS

#: Timed so often; the median counts.
REPEATS = 5
NOT_COUNTED = (
    "FLOPs are torch's count (torch.utils.flop_counter): convolutions and matrix products; "
    "element-wise operations, norms, pooling, interpolation and sampling are not in it."
)


@dataclass(frozen=True)
class Cost:
    """One line of table 3.

    Attributes:
        method: its name.
        modalities: how many have parts of their own; the others are constants.
        forward, backward: calls of the network, and of backpropagation through it.
        flops: as torch counts them.
        bytes: largest memory of tensors that the method makes, at any time.
        seconds: median time.
    """

    method: str
    modalities: int
    forward: int
    backward: int
    flops: int
    bytes: int
    seconds: float


def plain_cost(fuse: Fuse, features: Features) -> Cost:
    """Of one plain pass."""
    return _measured("plain pass", len(features), fuse, 0, lambda f: run(f, features))


def method_costs(fuse: Fuse, features: Features, target: Target) -> list[Cost]:
    """Of LRP, Shapley values and LMD, for 1 up to all modalities.

    Args:
        fuse: the network behind the encoders (or behind its linear fusion layer).
        features: of one sample.
        target: to one number, (1, 1); LRP goes back once from it.
    """
    methods: Sequence[Method] = (Lrp(), Shapley(), _PartsOnly())
    costs = []
    for method in methods:
        for count in range(1, len(features) + 1):
            some, rest = _split(features, count)

            def explain(f: Fuse, method: Method = method, some: Features = some) -> Any:
                return scores(method, f, some, target)

            with_rest = _with_constants(fuse, rest, list(features))
            backward = 1 if isinstance(method, Lrp) else 0
            costs.append(_measured(_name(method), count, with_rest, backward, explain))
    return costs


class _PartsOnly(Lmd):
    """LMD that keeps no maps for perturbed inputs."""

    def at(self, fuse: Fuse, features: Features) -> LmdExplainer:
        result = decompose(fuse, features, self.variant)
        return LmdExplainer(fuse, features, result, self.variant)


def _name(method: Method) -> str:
    return {"lrp": "LRP", "shapley": "Shapley-based"}.get(method.name, "LMD")


def _split(features: Features, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    names = list(features)
    return {n: features[n] for n in names[:count]}, {n: features[n] for n in names[count:]}


def _with_constants(fuse: Fuse, rest: Mapping[str, Any], order: list[str]) -> Fuse:
    def function(**some: Any) -> Any:
        given = {**some, **rest}
        return fuse(**{name: given[name] for name in order})

    return function


def _measured(
    name: str, modalities: int, fuse: Fuse, backward: int, explain: Callable[[Fuse], Any]
) -> Cost:
    calls: list[int] = []

    def counted(**features: Any) -> Any:
        calls.append(1)
        return fuse(**features)

    explain(counted)  # also warms up
    forward = len(calls)
    with Meter() as meter:
        explain(fuse)
    times = [_seconds(explain, fuse) for _ in range(REPEATS)]
    return Cost(name, modalities, forward, backward, meter.flops, meter.peak, median(times))


def _seconds(explain: Callable[[Fuse], Any], fuse: Fuse) -> float:
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    if cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    explain(fuse)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


@dataclass(frozen=True)
class LrpComparison:
    """LRP beside LMD on one target (table 11).

    Attributes:
        target: the number that is explained.
        relevance: LRP's, for each modality and ``bias``.
        parts: LMD's part of the target, likewise.
        residual: of eq. 8, max |total - sum of parts| / max |total| over the whole map.
    """

    target: float
    relevance: dict[str, float]
    parts: dict[str, float]
    residual: float

    @property
    def distance(self) -> float:
        """Largest difference between a modality's relevance and its part, over the largest part."""
        names = [name for name in self.parts if name != BIAS]
        gap = max(abs(self.relevance[n] - self.parts[n]) for n in names)
        return gap / max(abs(self.parts[n]) for n in names)


def compare(fuse: Fuse, features: Features, target: Target) -> LrpComparison:
    """LRP and LMD (identity-ratio) on one number, ``target`` of (1, 1)."""
    result = decompose(fuse, features, "identity-ratio")
    parts = {name: target(tree) for name, tree in {**result.parts, BIAS: result.bias}.items()}
    relevance = scores(Lrp(), fuse, features, target)
    return LrpComparison(
        float(target(result.total)),
        {name: float(value) for name, value in relevance.items()},
        {name: float(value) for name, value in parts.items()},
        result.residual,
    )


class Meter(TorchDispatchMode):
    """Counts FLOPs and memory of what runs inside, backpropagation too.

    Attributes:
        flops: by torch's formulas (its own counter hooks into modules, which methods intercept).
        peak: largest sum, in bytes, of the storages that operations made and that were alive at
            one time; what is allocated inside one operation and given back there is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.peak = self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        given = {_address(x) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and _address(leaf) not in given:
                self._count(leaf)
        return result

    def _count(self, leaf: Tensor) -> None:
        storage, address = leaf.untyped_storage(), _address(leaf)
        if address in self._known or not address:
            return
        size = storage.nbytes()
        self._known.add(address)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self._known.discard(address)
        self._alive -= size


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
