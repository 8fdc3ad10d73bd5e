"""The walk along the schedule's cycle, with a ring buffer: every sample is encoded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork, LinearFusion
from lmd_cli.assembly.forward import (
    Explained,
    Fused,
    behind_fusion_layer,
    encode_batch,
    fuse_function,
    fused_parts,
)
from lmd_cli.config.compute import Precision
from lmd_cli.data import Loaded, Reader, Unreadable, collate, to_device
from lmd_cli.decomposition import ConservationError
from lmd_cli.errors import DataError, RunError
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.runtime.compute import CPU_CHUNKS, Chunks
from lmd_cli.runtime.cuda_graphs import Graph
from lmd_cli.runtime.stopwatch import Stopwatch


@dataclass(frozen=True)
class Encoding:
    """One sample, encoded.

    Attributes:
        index: of the sample in the dataset.
        token: its ``sample_token``.
        fused: its parts behind the fusion layer; ``None`` if the network has none that is linear.
        features: the encoded features; ``None`` where ``fused`` is all that is needed.
        constants: what ``fuse`` needs besides.
        tensors: the sample's ground truth.
        known: what methods know of this sample alone.
    """

    index: int
    token: str
    fused: Fused | None
    features: dict[str, Any] | None
    constants: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    known: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Skipped:
    """A sample whose data could not be read."""

    index: int
    token: str
    reason: str


@dataclass(frozen=True)
class Visit:
    """One sample of the walk with its partners, at offsets 1..count, and how much of them goes
    through the network at once."""

    position: int
    sample: Encoding | Skipped
    partners: list[Encoding | Skipped]
    chunks: Chunks = CPU_CHUNKS


def walk(
    schedule: Schedule,
    encode: Callable[[int, bool], Encoding | Skipped],
    first: int,
    last: int,
    keep_features: frozenset[int] = frozenset(),
    chunks: Chunks = CPU_CHUNKS,
) -> Iterator[Visit]:
    """Visits the positions ``[first, last)`` of the schedule.

    Args:
        schedule: N, stride and count.
        encode: called as ``encode(sample index, keep features)``, once for each sample of an arc
            and once for each of the ``count`` samples behind its end.
        first, last: positions.
        keep_features: indices of the samples whose features are needed in any case.
        chunks: for the visits.
    """
    for arc in schedule.arcs(first, last):
        ring: deque[Encoding | Skipped] = deque(maxlen=schedule.count + 1)
        for position in arc:
            missing = range(schedule.count if ring else 0, schedule.count + 1)
            for m in missing:
                index = schedule.partner(position, m)
                ring.append(encode(index, index in keep_features))
            yield Visit(position, ring[0], list(ring)[1:], chunks)


Fuse: TypeAlias = Callable[[Mapping[str, Tensor]], "Fused | None"]


def _fusion(network: FusionNetwork, cuda_graphs: bool) -> Fuse:
    """:func:`fused_parts`, or nothing where there is no linear fusion layer."""
    if not isinstance(network, LinearFusion):
        return lambda features: None
    if not cuda_graphs:
        return partial(fused_parts, network)
    graph = Graph(partial(fused_parts, network), "the fusion layer")
    return lambda features: graph(dict(features)).copy()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Encoder:
    """The function that :func:`walk` calls: reads a sample and encodes it.

    Attributes:
        network: whose encoders.
        dataset: map-style, gives samples with ``token`` and ``tensors``.
        device: where to compute.
        read: gives the samples, perhaps ahead of need (:func:`~lmd_cli.data.read_ahead`); reads
            each when it is asked for if there is none.
        stopwatch: takes the time spent waiting for data.
        precision: of the encoders.
        skip_errors: give :class:`Skipped` for unreadable data instead of raising.
        cuda_graphs: record the fusion layer.
    """

    network: FusionNetwork
    dataset: Any
    device: torch.device
    read: Callable[[int], Loaded | Unreadable] | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    precision: Precision = "float32"
    skip_errors: bool = False
    cuda_graphs: bool = False

    def __call__(self, index: int, keep: bool) -> Encoding | Skipped:
        """One sample, with its features if they are to be kept.

        Raises:
            DataError: unreadable data, unless ``skip_errors``.
        """
        with self.stopwatch.reading():
            sample = self._source(index)
        if isinstance(sample, Unreadable):
            if not (self.skip_errors and isinstance(sample.error, DataError)):
                raise sample.error
            return Skipped(index, self.dataset.tokens[index], str(sample.error))
        batch = to_device(sample.batch, self.device)
        try:
            return self._encoding(index, sample.token, batch, keep)
        except DataError as error:  # what was read holds NaN, say
            if not self.skip_errors:
                raise
            return Skipped(index, sample.token, str(error))

    @cached_property
    def _source(self) -> Callable[[int], Loaded | Unreadable]:
        return self.read or Reader(self.dataset, collate)

    @cached_property
    def _fuse(self) -> Fuse:
        return _fusion(self.network, self.cuda_graphs)

    def _encoding(self, index: int, token: str, batch: Mapping[str, Any], keep: bool) -> Encoding:
        features, constants = encode_batch(self.network, batch, token, self.precision)
        try:
            fused = self._fuse(features)
        except ConservationError as error:
            raise RunError(f"sample {token}, in the fusion layer: {error}") from error
        truth = {name: batch[name] for name in ("segmentation", "valid") if name in batch}
        kept = features if keep or fused is None else None
        return Encoding(index, token, fused, kept, constants, truth)


def explained_encoding(network: FusionNetwork, output: str, sample: Encoding) -> Explained:
    """The same for a sample of the evaluation's walk."""
    if sample.fused is not None and isinstance(network, LinearFusion):
        return behind_fusion_layer(network, output, sample.fused)
    assert sample.features is not None
    return Explained(fuse_function(network, output, sample.constants), sample.features)
