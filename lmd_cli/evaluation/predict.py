"""From the fusion layer's parts to the parts of a prediction, clean and perturbed, and back: the
check by literal replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lmd_cli.decomposition import decompose, decompose_onward
from lmd_cli.decomposition.replay import replay, replay_deviation
from lmd_cli.evaluation.walk import Encoding, FusionNetwork, Skipped, Visit


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
    """Decomposes one visit's sample with all its partners riding along.

    The linearisation is made at the clean sample; a replaced modality goes through it (section
    5.2). Whatever is replaced, the other parts are the clean ones.
    """
    sample = visit.sample
    assert isinstance(sample, Encoding)
    readable = [p for p in visit.partners if isinstance(p, Encoding)]
    names = network.modalities
    result = decompose_onward(
        lambda fused: network.tail(fused, [output])[output],
        sample.total,
        sample.parts,
        variant,
        bias=sample.bias,
        extras={name: [p.parts[name] for p in readable] for name in names},
        root=as_module(network),
    )
    return Prediction(
        result.total,
        dict(result.parts),
        {name: _spread(visit.partners, result.extras[name]) for name in names},
        result.residual,
    )


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
    modality alone, on none, and on each modality of the next sample alone.

    Returns:
        max |replayed - part| / max |part|, over clean and perturbed parts.
    """
    sample, partner = visit.sample, visit.partners[0]
    assert isinstance(sample, Encoding)
    assert sample.features is not None

    def fuse(**features: Tensor) -> Tensor:
        return network.fuse(features, [output])[output]

    kept = decompose(fuse, sample.features, variant, root=as_module(network), keep_frozen=True)
    clean = replay(fuse, sample.features, kept)
    deviations = [
        replay_deviation(clean, kept),
        _deviation({m: clean[m] for m in prediction.parts}, prediction.parts),
    ]
    if isinstance(partner, Encoding) and partner.features is not None:
        moved = replay(fuse, partner.features, kept)
        expected = {m: maps[0] for m, maps in prediction.perturbed.items()}
        deviations.append(_deviation(moved, {m: t for m, t in expected.items() if t is not None}))
    return max(deviations)


def _deviation(replayed: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> float:
    worst = max(float((replayed[m] - part).abs().max()) for m, part in parts.items())
    scale = max(float(part.abs().max()) for part in parts.values())
    return worst / scale if scale else worst
