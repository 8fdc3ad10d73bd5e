"""From the fusion layer's parts to the parts of a prediction, clean and perturbed, and back: the
check by literal replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.contract import FusionNetwork, LinearFusion, fuse_function, tail_output
from lmd_cli.decomposition import Decomposition, Variant, decompose, decompose_onward, module_rules
from lmd_cli.decomposition.audit import residual
from lmd_cli.decomposition.frozen import FrozenProduct, Origin
from lmd_cli.decomposition.replay import Linearised, replay, replay_deviation
from lmd_cli.decomposition.variant import ACTIVATION_SPLITS
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit


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
        return Family(network, visit, variant, output).prediction
    return _riding(network, sample, visit, variant, output)


def predict_variants(
    network: FusionNetwork, visit: Visit, variants: Sequence[str], output: str
) -> Iterator[tuple[str, Prediction]]:
    """:func:`predict` under several variants; what they have in common is worked out once.

    A variant's prediction does not depend on which others are asked for: it is always made from
    that of its :func:`family`.
    """
    fused = visit.sample.fused if isinstance(visit.sample, Encoding) else None
    if fused is None or not isinstance(network, LinearFusion):
        for variant in variants:
            yield variant, predict(network, visit, variant, output)
        return
    known: dict[str, Family] = {}
    for variant in variants:
        base = family(variant)
        if base not in known:
            known[base] = Family(network, visit, base, output)
        yield variant, known[base].under(variant)


def family(variant: str) -> str:
    """The variant of the same slopes and scales whose constants all go to the bias."""
    own = Variant.parse(variant)
    norm = "ratio" if own.norm == "ratio" else "identity"
    slopes = "taylor" if own.activation == "taylor" else "identity"
    return replace(own, batch_norm="identity", norm=norm, activation=slopes).name


class Family:
    """Variants with the same slopes and scales, behind a linear fusion layer.

    They differ only in where constants go, so replacing a modality moves its part by the same map
    under all of them: the partners go through the network once. ``uniform`` gives each modality
    its share of what the norms' constants make by themselves, which goes through once too. Only
    activation splits, which look at the parts, decompose the clean sample again.

    Args:
        network, visit, output: as in :func:`predict`.
        variant: the base, under which the partners go through.
    """

    def __init__(self, network: LinearFusion, visit: Visit, variant: str, output: str):
        assert isinstance(visit.sample, Encoding)
        assert visit.sample.fused is not None
        self._network, self._visit, self._output = network, visit, output
        self._fused, self.variant = visit.sample.fused, variant
        self._result = self._decomposed(variant, keep_frozen=True)
        self._linear = Linearised(self._tail, self._result, self._fused.bias)
        self._constants: dict[Origin, Tensor] = {}
        self.prediction = self._prediction()

    def under(self, variant: str) -> Prediction:
        """The prediction under a variant of this family."""
        own = Variant.parse(variant)
        if variant == self.variant:
            return self.prediction
        if not self.prediction.affine or module_rules(as_module(self._network)):
            # Under rules of some modules the constants are not all where the family's are.
            return Family(self._network, self._visit, variant, self._output).prediction
        if own.activation in ACTIVATION_SPLITS[1:]:
            result = self._decomposed(variant, keep_frozen=False)
            return self._moved(dict(result.parts), result.residual)
        return self._shared_out(own)

    def _tail(self, x: Tensor) -> Tensor:
        return tail_output(self._network, x, self._output)

    def _decomposed(self, variant: str, *, keep_frozen: bool) -> Decomposition:
        """The clean sample from the fusion layer on."""
        fused = self._fused
        return decompose_onward(
            self._tail,
            fused.total,
            fused.parts,
            variant,
            bias=fused.bias,
            root=as_module(self._network),
            keep_frozen=keep_frozen,
        )

    def _prediction(self) -> Prediction:
        """The clean sample; partners as plain batches."""
        partners, result = self._visit.partners, self._result
        chunk = self._visit.chunks.linear
        readable = [p.fused for p in partners if isinstance(p, Encoding) and p.fused is not None]
        found = {
            name: _through(self._linear, name, [p.parts[name] for p in readable], chunk)
            for name in self._fused.parts
        }
        perturbed = {name: _spread(partners, maps) for name, maps in found.items()}
        affine = not any(isinstance(m, FrozenProduct) for m in result.tape or [])
        return Prediction(result.total, dict(result.parts), perturbed, result.residual, affine)

    def _moved(self, parts: dict[str, Tensor], conservation: float) -> Prediction:
        """Other clean parts, which move as the family's do."""
        base = self.prediction
        perturbed = {
            name: [None if m is None else parts[name] + (m - base.parts[name]) for m in maps]
            for name, maps in base.perturbed.items()
        }
        return Prediction(base.total, parts, perturbed, conservation, affine=True)

    def _shared_out(self, own: Variant) -> Prediction:
        """Each modality takes its share of the constants that the base leaves to the bias."""
        kinds: dict[Origin, str] = {"batch_norm": own.batch_norm, "norm": own.norm}
        made = [self._made_by(origin) for origin, rule in kinds.items() if rule == "uniform"]
        share = sum(made) * self._result.layout.uniform_share
        parts = {name: part + share for name, part in self.prediction.parts.items()}
        bias = self._result.bias - len(parts) * share
        return self._moved(
            parts, residual(self._result.total, torch.stack([*parts.values(), bias]))
        )

    def _made_by(self, origin: Origin) -> Tensor:
        """What the constants of one kind of norm make of the output."""
        if origin not in self._constants:
            self._constants[origin] = self._linear.constants(self._fused.total, origin)
        return self._constants[origin]


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
