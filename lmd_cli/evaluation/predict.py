"""From the fusion layer's parts to the parts of a prediction, clean and perturbed, and back: the
check by literal replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.contract import FusionNetwork, LinearFusion, fuse_function
from lmd_cli.decomposition import Decomposition, Variant, decompose, decompose_onward
from lmd_cli.decomposition.frozen import FrozenProduct
from lmd_cli.decomposition.replay import Linearised, replay, replay_deviation
from lmd_cli.evaluation.walk import Encoding, Fused, Skipped, Visit


@dataclass(frozen=True)
class Prediction:
    """A sample's prediction in parts.

    Attributes:
        total: what the plain network predicts, ``(1, channels, Z, X)``.
        parts: each modality's part.
        perturbed: for each modality, its part when it is replaced by partner m = 1..count;
            ``None`` where the partner could not be read.
        residual: conservation, max |total - sum of parts| / max |total|.
        affine: whether a part is an affine function of its modality's features (no products).
    """

    total: Tensor
    parts: dict[str, Tensor]
    perturbed: dict[str, list[Tensor | None]]
    residual: float
    affine: bool = False


def predict(network: FusionNetwork, visit: Visit, variant: str, output: str) -> Prediction:
    """Decomposes one visit's sample, and takes its partners through the same linear network.

    The linearisation is made at the clean sample; a replaced modality goes through it (section
    5.2). Whatever is replaced, the other parts are the clean ones.
    """
    sample = visit.sample
    assert isinstance(sample, Encoding)
    if sample.fused is not None and isinstance(network, LinearFusion):
        return _from_fusion_layer(network, sample.fused, visit, variant, output)
    return _riding(network, sample, visit, variant, output)


def predict_variants(
    network: FusionNetwork, visit: Visit, variants: Sequence[str], output: str
) -> Iterator[tuple[str, Prediction]]:
    """:func:`predict` under several variants; partners go through the network once for a family.

    Variants with the same slopes and scales differ only in where constants go, so replacing a
    modality moves its part by the same map under all of them. A variant's prediction does not
    depend on which others are asked for: the family's map is always worked out under
    :func:`family`.
    """
    known: dict[str, Prediction] = {}
    for variant in variants:
        base = family(variant)
        if base not in known:
            known[base] = predict(network, visit, base, output)
        fused = visit.sample.fused if isinstance(visit.sample, Encoding) else None
        if variant == base:
            yield variant, known[base]
        elif known[base].affine and fused is not None and isinstance(network, LinearFusion):
            yield variant, _moved_as(network, fused, variant, output, known[base])
        else:
            yield variant, predict(network, visit, variant, output)


def family(variant: str) -> str:
    """The variant of the same slopes and scales whose constants all go to the bias."""
    own = Variant.parse(variant)
    norm = "ratio" if own.norm == "ratio" else "identity"
    return replace(own, batch_norm="identity", norm=norm, activation="identity").name


def _moved_as(
    network: LinearFusion, fused: Fused, variant: str, output: str, base: Prediction
) -> Prediction:
    """The clean sample decomposed under a variant; its parts move as those of its family do."""
    result = _onward(network, fused, variant, output, keep_frozen=False)
    parts = dict(result.parts)
    perturbed = {
        name: [None if m is None else parts[name] + (m - base.parts[name]) for m in maps]
        for name, maps in base.perturbed.items()
    }
    return Prediction(result.total, parts, perturbed, result.residual, affine=True)


def _onward(
    network: LinearFusion, fused: Fused, variant: str, output: str, *, keep_frozen: bool
) -> Decomposition:
    """The clean sample decomposed from the fusion layer on."""
    return decompose_onward(
        lambda x: network.tail(x, [output])[output],
        fused.total,
        fused.parts,
        variant,
        bias=fused.bias,
        root=as_module(network),
        keep_frozen=keep_frozen,
    )


def _from_fusion_layer(
    network: LinearFusion,
    fused: Fused,
    visit: Visit,
    variant: str,
    output: str,
) -> Prediction:
    """The clean sample decomposed from the fusion layer on; partners as plain batches."""
    partners = visit.partners

    def tail(x: Tensor) -> Tensor:
        return network.tail(x, [output])[output]

    result = _onward(network, fused, variant, output, keep_frozen=True)
    linear = Linearised(tail, result, fused.bias)
    readable = [p.fused for p in partners if isinstance(p, Encoding) and p.fused is not None]
    found = {
        name: _through(linear, name, [p.parts[name] for p in readable], visit.chunks.linear)
        for name in fused.parts
    }
    perturbed = {name: _spread(partners, maps) for name, maps in found.items()}
    affine = not any(isinstance(m, FrozenProduct) for m in result.tape or [])
    return Prediction(result.total, dict(result.parts), perturbed, result.residual, affine)


def _riding(
    network: FusionNetwork,
    sample: Encoding,
    visit: Visit,
    variant: str,
    output: str,
) -> Prediction:
    """Partners ride along as parts, as many in a pass as the visit's ``chunks`` allow."""
    assert sample.features is not None
    partners = visit.partners
    readable = [p for p in partners if isinstance(p, Encoding)]
    size = max(1, visit.chunks.riding // tree_bytes(sample.features))
    chunks = [readable[i : i + size] for i in range(0, len(readable), size)] or [[]]
    results = [_decompose_with(network, sample, chunk, variant, output) for chunk in chunks]
    first = results[0]
    perturbed = {
        name: _spread(partners, [part for result in results for part in result.extras[name]])
        for name in network.modalities
    }
    return Prediction(first.total, dict(first.parts), perturbed, first.residual)


def _decompose_with(
    network: FusionNetwork,
    sample: Encoding,
    partners: Sequence[Encoding],
    variant: str,
    output: str,
    *,
    keep_frozen: bool = False,
) -> Decomposition:
    """All of ``fuse`` at a sample's features; the partners' features are extras."""
    features = [p.features for p in partners if p.features is not None]
    assert sample.features is not None
    return decompose(
        fuse_function(network, output, sample.constants),
        sample.features,
        variant,
        extras={name: [f[name] for f in features] for name in network.modalities},
        root=as_module(network),
        keep_frozen=keep_frozen,
    )


def _through(linear: Linearised, modality: str, inputs: list[Tensor], chunk: int) -> list[Tensor]:
    """Parts of many inputs, as many at a time as have ``chunk`` bytes."""
    if not inputs:
        return []
    size = max(1, chunk // (inputs[0].element_size() * inputs[0].numel()))
    chunks = [inputs[i : i + size] for i in range(0, len(inputs), size)]
    maps = [linear.part(modality, torch.cat(chunk)) for chunk in chunks]
    return [part for chunk in maps for part in chunk.split(1)]


def as_module(network: object) -> nn.Module | None:
    """The network as a module, for the names in error messages."""
    return network if isinstance(network, nn.Module) else None


def tree_bytes(features: Any) -> int:
    """Size of nested tensors; at least 1."""
    leaves = [x for x in pytree.tree_leaves(features) if isinstance(x, Tensor)]
    return max(1, sum(x.element_size() * x.numel() for x in leaves))


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
    moved = [partner] if isinstance(partner, Encoding) else []
    fuse = fuse_function(network, output, sample.constants)
    kept = _decompose_with(network, sample, moved, variant, output, keep_frozen=True)
    clean = replay(fuse, sample.features, kept)
    deviations = [replay_deviation(clean, kept), _deviation(clean, prediction.parts)]
    for other in moved:
        assert other.features is not None
        expected = {m: t for m, (t, *_) in prediction.perturbed.items() if t is not None}
        deviations.append(_deviation(replay(fuse, other.features, kept), expected))
        deviations.append(_deviation({m: x[0] for m, x in kept.extras.items()}, expected))
    return max(deviations)


def _deviation(replayed: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> float:
    worst = max(float((replayed[m] - part).abs().max()) for m, part in parts.items())
    scale = max(float(part.abs().max()) for part in parts.values())
    return worst / scale if scale else worst
