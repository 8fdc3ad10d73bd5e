"""Walks the cycle with a ring buffer, so that every sample is encoded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lmd_cli.data import to_device
from lmd_cli.decomposition import decompose
from lmd_cli.errors import DataError
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.stopwatch import Stopwatch


class FusionNetwork(Protocol):
    """What the evaluation needs of a network: ``fuse = tail(fusion_layer(features))``."""

    modalities: tuple[str, ...]

    def encode(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Features of each modality alone."""

    def fusion_layer(self, features: Mapping[str, Tensor]) -> Tensor:
        """The layer where the modalities meet; linear, so that its parts can be kept."""

    def tail(self, fused: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:
        """Everything after it; only the outputs that are asked for."""

    def fuse(self, features: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        """Features to outputs."""


@dataclass(frozen=True)
class Encoding:
    """One sample after the fusion layer.

    Attributes:
        index: of the sample in the dataset.
        token: its ``sample_token``.
        total: output of the fusion layer ``(1, C, Z, X)``.
        parts: each modality's part of it, same shape.
        bias: the bias part, same shape, or ``None`` if the layer has no bias.
        tensors: the sample's other tensors (ground truth).
        features: the encoded features, kept only for samples that are replayed.
    """

    index: int
    token: str
    total: Tensor
    parts: dict[str, Tensor]
    bias: Tensor | None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class Skipped:
    """A sample whose data could not be read."""

    index: int
    token: str
    reason: str


@dataclass(frozen=True)
class Visit:
    """One sample of the walk with its partners, at offsets 1..count."""

    position: int
    sample: Encoding | Skipped
    partners: list[Encoding | Skipped]


def walk(
    schedule: Schedule,
    encode: Callable[[int, bool], Encoding | Skipped],
    first: int,
    last: int,
    keep_features: frozenset[int] = frozenset(),
) -> Iterator[Visit]:
    """Visits the positions ``[first, last)`` of the schedule.

    Args:
        schedule: N, stride and count.
        encode: called as ``encode(sample index, keep features)``, once for each sample of an arc
            and once for each of the ``count`` samples behind its end.
        first, last: positions.
        keep_features: indices of the samples whose features are needed.
    """
    for arc in schedule.arcs(first, last):
        ring: deque[Encoding | Skipped] = deque(maxlen=schedule.count + 1)
        for position in arc:
            missing = range(schedule.count if ring else 0, schedule.count + 1)
            for m in missing:
                index = schedule.partner(position, m)
                ring.append(encode(index, index in keep_features))
            yield Visit(position, ring[0], list(ring)[1:])


def make_encoder(
    network: FusionNetwork,
    dataset: Any,
    collate: Callable[[Sequence[Any]], Mapping[str, Any]],
    device: torch.device,
    skip_errors: bool,
    stopwatch: Stopwatch,
) -> Callable[[int, bool], Encoding | Skipped]:
    """The function that :func:`walk` calls.

    Args:
        dataset: map-style, gives samples with ``token`` and ``tensors``.
        collate: makes a batch of a list of samples.
        stopwatch: takes the time spent reading.
        skip_errors: give :class:`Skipped` for unreadable data instead of raising.

    Raises:
        DataError: unreadable data, unless ``skip_errors``.
    """

    def encode(index: int, keep: bool) -> Encoding | Skipped:
        try:
            with stopwatch.reading():
                sample = dataset[index]
        except DataError as error:
            if not skip_errors:
                raise
            return Skipped(index, dataset.tokens[index], str(error))
        batch = to_device(collate([sample]), device)
        return _encoding(network, index, sample.token, batch, keep)

    return encode


def _encoding(
    network: FusionNetwork, index: int, token: str, batch: Mapping[str, Any], keep: bool
) -> Encoding:
    with torch.no_grad():
        features = network.encode(batch)
    # The fusion layer is linear, so one rule set serves all variants.
    fused = decompose(lambda **f: network.fusion_layer(f), features)
    bias = fused.bias
    truth = {name: batch[name] for name in ("segmentation", "valid") if name in batch}
    return Encoding(
        index,
        token,
        fused.total,
        dict(fused.parts),
        bias if bool(bias.any()) else None,
        truth,
        features if keep else None,
    )
