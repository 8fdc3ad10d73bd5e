"""From the fusion layer's parts to the parts of a prediction, clean and perturbed, and back: the
check by literal replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmd_cli.decomposition import decompose, decompose_onward
from lmd_cli.decomposition.replay import Linearised, replay, replay_deviation
from lmd_cli.evaluation.walk import Encoding, FusionNetwork, Skipped, Visit

#: Partners go through the linear network in batches of about this size after the fusion layer:
#: larger tensors are fetched from the system and given back at every operation, which takes
#: longer than the arithmetic.
CHUNK_BYTES = 24 * 2**20


@dataclass(frozen=True)
class Prediction:
    """A sample's prediction in parts.

    Attributes:
        total: what the plain network predicts, ``(1, channels, Z, X)``.
        parts: each modality's part.
        perturbed: for each modality, its part when it is replaced by partner m = 1..count;
            ``None`` where the partner could not be read.
        residual: conservation, max |total - sum of parts| / max |total|.
    """

    total: Tensor
    parts: dict[str, Tensor]
    perturbed: dict[str, list[Tensor | None]]
    residual: float


def predict(network: FusionNetwork, visit: Visit, variant: str, output: str) -> Prediction:
    """Decomposes one visit's sample, and takes its partners through the same linear network.

    The linearisation is made at the clean sample; a replaced modality goes through it (section
    5.2). Whatever is replaced, the other parts are the clean ones.
    """
    sample = visit.sample
    assert isinstance(sample, Encoding)

    def tail(fused: Tensor) -> Tensor:
        return network.tail(fused, [output])[output]

    result = decompose_onward(
        tail,
        sample.total,
        sample.parts,
        variant,
        bias=sample.bias,
        root=as_module(network),
        keep_frozen=True,
    )
    linear = Linearised(tail, result, sample.bias)
    readable = [p for p in visit.partners if isinstance(p, Encoding)]
    found = {
        name: _through(linear, name, [p.parts[name] for p in readable])
        for name in network.modalities
    }
    return Prediction(
        result.total,
        dict(result.parts),
        {name: _spread(visit.partners, maps) for name, maps in found.items()},
        result.residual,
    )


def _through(linear: Linearised, modality: str, inputs: list[Tensor]) -> list[Tensor]:
    """Parts of many inputs, a few at a time."""
    if not inputs:
        return []
    size = max(1, CHUNK_BYTES // (inputs[0].element_size() * inputs[0].numel()))
    chunks = [inputs[i : i + size] for i in range(0, len(inputs), size)]
    maps = [linear.part(modality, torch.cat(chunk)) for chunk in chunks]
    return [part for chunk in maps for part in chunk.split(1)]


def as_module(network: FusionNetwork) -> nn.Module | None:
    """The network as a module, for the names in error messages."""
    return network if isinstance(network, nn.Module) else None


def _spread(partners: Sequence[Encoding | Skipped], found: Sequence[Tensor]) -> list[Tensor | None]:
    remaining = iter(found)
    return [next(remaining) if isinstance(p, Encoding) else None for p in partners]


def verify_by_replay(
    network: FusionNetwork, visit: Visit, variant: str, output: str, prediction: Prediction
) -> float:
    """Largest deviation of the schedule's parts from a literal replay of eq. 14.

    The whole of ``fuse`` is linearised at the clean features, then run on plain tensors: on each
    modality alone, on none, and on each modality of the next sample alone. That sample's
    modalities also ride along as parts, which is another way to the same numbers.

    Returns:
        max |replayed - part| / max |part|, over clean and perturbed parts.
    """
    sample, partner = visit.sample, visit.partners[0]
    assert isinstance(sample, Encoding)
    assert sample.features is not None

    def fuse(**features: Tensor) -> Tensor:
        return network.fuse(features, [output])[output]

    moved = partner.features if isinstance(partner, Encoding) else None
    kept = decompose(
        fuse,
        sample.features,
        variant,
        extras={} if moved is None else {m: [x] for m, x in moved.items()},
        root=as_module(network),
        keep_frozen=True,
    )
    clean = replay(fuse, sample.features, kept)
    deviations = [replay_deviation(clean, kept), _deviation(clean, prediction.parts)]
    if moved is not None:
        expected = {m: t for m, (t, *_) in prediction.perturbed.items() if t is not None}
        deviations.append(_deviation(replay(fuse, moved, kept), expected))
        deviations.append(_deviation({m: x[0] for m, x in kept.extras.items()}, expected))
    return max(deviations)


def _deviation(replayed: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> float:
    worst = max(float((replayed[m] - part).abs().max()) for m, part in parts.items())
    scale = max(float(part.abs().max()) for part in parts.values())
    return worst / scale if scale else worst
