"""Walks the cycle with a ring buffer, so that every sample is encoded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lmd_cli.compute import CPU_CHUNKS, Chunks
from lmd_cli.config_compute import Precision
from lmd_cli.contract import FusionNetwork, LinearFusion, encode_batch
from lmd_cli.data import Loaded, Reader, Unreadable, to_device
from lmd_cli.decomposition import ConservationError, decompose
from lmd_cli.decomposition.capture import recording
from lmd_cli.errors import DataError, RunError
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.stopwatch import Stopwatch
from lmd_cli.graphs import Graph


@dataclass(frozen=True)
class Fused:
    """A sample's parts behind a linear fusion layer.

    Attributes:
        total: output of the fusion layer ``(1, C, Z, X)``.
        parts: each modality's part of it, same shape.
        bias: the bias part, same shape, or ``None`` if the layer has no bias.
    """

    total: Tensor
    parts: dict[str, Tensor]
    bias: Tensor | None

    def copy(self) -> Fused:
        """In memory of its own."""
        parts = {name: part.clone() for name, part in self.parts.items()}
        return Fused(self.total.clone(), parts, None if self.bias is None else self.bias.clone())


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
        known: what methods found out from this sample alone.
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


def make_encoder(
    network: FusionNetwork,
    dataset: Any,
    collate: Callable[[Sequence[Any]], Mapping[str, Any]],
    device: torch.device,
    skip_errors: bool,
    stopwatch: Stopwatch,
    precision: Precision = "float32",
    read: Callable[[int], Loaded | Unreadable] | None = None,
    cuda_graphs: bool = False,
) -> Callable[[int, bool], Encoding | Skipped]:
    """The function that :func:`walk` calls.

    Args:
        dataset: map-style, gives samples with ``token`` and ``tensors``.
        collate: makes a batch of a list of samples.
        stopwatch: takes the time spent waiting for data.
        precision: of the encoders.
        skip_errors: give :class:`Skipped` for unreadable data instead of raising.
        read: gives the samples, perhaps ahead of need (:func:`~lmd_cli.data.read_ahead`); reads
            each when it is asked for if there is none.
        cuda_graphs: record the fusion layer.

    Raises:
        DataError: unreadable data, unless ``skip_errors``.
    """

    source = read or Reader(dataset, collate)
    fuse = _fusion(network, cuda_graphs)

    def encode(index: int, keep: bool) -> Encoding | Skipped:
        with stopwatch.reading():
            found = source(index)
        if isinstance(found, Unreadable):
            if not (skip_errors and isinstance(found.error, DataError)):
                raise found.error
            return Skipped(index, dataset.tokens[index], str(found.error))
        batch = to_device(found.batch, device)
        try:
            return _encoding(network, index, found.token, batch, keep, precision, fuse)
        except DataError as error:  # what was read holds NaN, say
            if not skip_errors:
                raise
            return Skipped(index, found.token, str(error))

    return encode


Fuse: TypeAlias = Callable[[Mapping[str, Tensor]], "Fused | None"]


def _fusion(network: FusionNetwork, cuda_graphs: bool) -> Fuse:
    """:func:`fused_parts`, or nothing where there is no linear fusion layer."""
    if not isinstance(network, LinearFusion):
        return lambda features: None
    if not cuda_graphs:
        return partial(fused_parts, network)
    graph = Graph(partial(fused_parts, network), "the fusion layer")
    return lambda features: graph(dict(features)).copy()  # type: ignore[no-any-return]


def _encoding(
    network: FusionNetwork,
    index: int,
    token: str,
    batch: Mapping[str, Any],
    keep: bool,
    precision: Precision,
    fuse: Fuse,
) -> Encoding:
    features, constants = encode_batch(network, batch, token, precision)
    try:
        fused = fuse(features)
    except ConservationError as error:
        raise RunError(f"sample {token}, in the fusion layer: {error}") from error
    truth = {name: batch[name] for name in ("segmentation", "valid") if name in batch}
    kept = features if keep or fused is None else None
    return Encoding(index, token, fused, kept, constants, truth)


def fused_parts(network: LinearFusion, features: Mapping[str, Tensor]) -> Fused:
    """The parts behind the fusion layer; it is linear, so one rule set serves all variants."""
    found = decompose(lambda **f: network.fusion_layer(f), features)
    bias = found.bias if found.has_bias else None
    there = bias is not None and (recording(bias) or bool(bias.any()))
    return Fused(found.total, dict(found.parts), bias if there else None)
