"""The predictions of several variants of LMD at one sample; what they share is computed once.

Variants with the same slopes and scales differ only in where constants go. Where no
constant is shared out before features are multiplied with each other, replacing a modality then
moves its part by the same map under all of them: the partners go through the network once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lmd_cli.assembly.contract import FusionNetwork, LinearFusion
from lmd_cli.assembly.forward import fuse_function, tail_output
from lmd_cli.decomposition import Decomposition, Variant, decompose, decompose_onward, module_rules
from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.program import products_of, shared_alike
from lmd_cli.decomposition.linearised.replay import Linearised
from lmd_cli.decomposition.maps import Origin
from lmd_cli.decomposition.result import kept_program
from lmd_cli.decomposition.tracing.audit import parts_residual_tensor, residual_tensor
from lmd_cli.decomposition.variant import ACTIVATION_SPLITS, COALITION_RULES
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit


@dataclass(frozen=True)
class Prediction:
    """A sample's prediction in parts.

    Attributes:
        total: what the plain network predicts, ``(1, channels, Z, X)``.
        parts: each modality's part.
        perturbed: for each modality, its part when it is replaced by partner m = 1..count;
            ``None`` where the partner could not be read.
        residual: conservation, max |total - sum of parts| / max |total|, a tensor ``()``.
        parts_residual: the same over the largest sum of |parts|.
    """

    total: Tensor
    parts: dict[str, Tensor]
    perturbed: dict[str, list[Tensor | None]]
    residual: Tensor
    parts_residual: Tensor


class Point(Protocol):
    """One visit's sample as the operating point of a network."""

    def partners(self, variant: Variant) -> tuple[Decomposition, dict[str, list[Tensor]]]:
        """The sample with its maps, and each modality's part from the readable partners."""

    def clean(self, variant: Variant) -> Decomposition:
        """The sample alone, with its maps."""

    def constants(self, result: Decomposition, origin: Origin) -> Tensor:
        """What the constants of one kind of norm make by themselves."""


class BehindFusion:
    """A network with a linear fusion layer, from there on; partners are plain batches.

    Args:
        network, visit, output: whose prediction of what.
    """

    def __init__(self, network: LinearFusion, visit: Visit, output: str):
        assert isinstance(visit.sample, Encoding)
        assert visit.sample.fused is not None
        self._network, self._visit, self._output = network, visit, output
        self._fused = visit.sample.fused

    def partners(self, variant: Variant) -> tuple[Decomposition, dict[str, list[Tensor]]]:
        result = self.clean(variant)
        readable = [p.fused for p in self._visit.partners if isinstance(p, Encoding)]
        inputs, chunks = len(readable) * len(self._fused.parts), self._visit.chunks
        linear = Linearised(result, inputs, chunks.head)
        return result, {
            name: _through(
                linear, name, [f.parts[name] for f in readable if f is not None], chunks.linear
            )
            for name in self._fused.parts
        }

    def clean(self, variant: Variant) -> Decomposition:
        fused = self._fused
        return decompose_onward(
            self._tail,
            fused.total,
            fused.parts,
            variant,
            bias=fused.bias,
            root=as_module(self._network),
            keep_maps=True,
        )

    def constants(self, result: Decomposition, origin: Origin) -> Tensor:
        return _tensor(Linearised(result).constants(origin))

    def _tail(self, x: Tensor) -> Tensor:
        return tail_output(self._network, x, self._output)


class WholeFuse:
    """All of ``fuse``; partners go along as further parts, as many in a pass as the visit allows.

    Args:
        network, visit, output: as :class:`BehindFusion`'s.
    """

    def __init__(self, network: FusionNetwork, visit: Visit, output: str):
        assert isinstance(visit.sample, Encoding)
        assert visit.sample.features is not None
        self._network, self._visit = network, visit
        self._sample, self._features = visit.sample, visit.sample.features
        self.fuse = fuse_function(network, output, self._sample.constants)

    def partners(self, variant: Variant) -> tuple[Decomposition, dict[str, list[Tensor]]]:
        readable = [p for p in self._visit.partners if isinstance(p, Encoding)]
        size = max(1, self._visit.chunks.parts // tree_bytes(self._features))
        chunks = [readable[i : i + size] for i in range(0, len(readable), size)] or [[]]
        perturbed: dict[str, list[Tensor]] = {name: [] for name in self._network.modalities}
        first: Decomposition | None = None
        for chunk in chunks:
            result = self.with_partners(variant, chunk, keep_maps=first is None)
            first = first or result
            for name, parts in result.extras.items():
                perturbed[name] += parts
        assert first is not None
        return first, perturbed

    def clean(self, variant: Variant) -> Decomposition:
        return self.with_partners(variant, [])

    def with_partners(
        self, variant: Variant, partners: Sequence[Encoding], *, keep_maps: bool = True
    ) -> Decomposition:
        """The sample, with partners' features as extras."""
        features = [p.features for p in partners if p.features is not None]
        return decompose(
            self.fuse,
            self._features,
            variant,
            extras={name: [f[name] for f in features] for name in self._network.modalities},
            root=as_module(self._network),
            keep_maps=keep_maps,
        )

    def constants(self, result: Decomposition, origin: Origin) -> Tensor:
        return _tensor(Linearised(result).constants(origin))


def operating_point(network: FusionNetwork, visit: Visit, output: str) -> Point:
    """Behind the fusion layer where it is linear, else before all of ``fuse``."""
    assert isinstance(visit.sample, Encoding)
    if visit.sample.fused is not None and isinstance(network, LinearFusion):
        return BehindFusion(network, visit, output)
    return WholeFuse(network, visit, output)


class VariantPredictions:
    """The prediction under every variant at one visit.

    A variant's prediction does not depend on which others are asked for: it is always made from
    that of its :func:`base_variant`.

    Args:
        network, visit, output: as :class:`BehindFusion`'s.
    """

    def __init__(self, network: FusionNetwork, visit: Visit, output: str):
        assert isinstance(visit.sample, Encoding)
        self._visit, self._rules = visit, bool(module_rules(as_module(network)))
        self._point = operating_point(network, visit, output)
        self._linearisations: dict[Variant, SharedLinearisation] = {}

    def under(self, variant: Variant) -> Prediction:
        """The prediction under a variant."""
        # Under rules of some modules the constants are not all where the base's are.
        base = variant if self._rules else base_variant(variant)
        if variant != base:
            shared = self._linearised(base).under(variant)
            if shared is not None:
                return shared
        return self._linearised(variant).prediction

    def _linearised(self, variant: Variant) -> SharedLinearisation:
        if variant not in self._linearisations:
            made = SharedLinearisation(self._point, self._visit.partners, variant)
            self._linearisations[variant] = made
        return self._linearisations[variant]


def base_variant(variant: Variant) -> Variant:
    """The variant of the same slopes and scales whose constants all go to the bias."""
    if variant.activation in COALITION_RULES:
        return variant  # its slopes depend on where the constants are
    norm = "ratio" if variant.norm == "ratio" else "identity"
    slopes = "taylor" if variant.activation == "taylor" else "identity"
    return replace(variant, batch_norm="identity", norm=norm, activation=slopes)


class SharedLinearisation:
    """One linearisation of a visit's sample, shared by the variants of its slopes and scales.

    ``uniform`` gives each modality its share of what the norms' constants make by themselves,
    which goes through once too. Only activation splits, which look at the parts, decompose the
    clean sample again.

    Args:
        point: the network and the sample.
        partners: of the visit.
        variant: the base, under which the partners go through.

    Attributes:
        prediction: under the base.
    """

    def __init__(self, point: Point, partners: Sequence[Encoding | Skipped], variant: Variant):
        self._point = point
        self._result, readable = point.partners(variant)
        perturbed = {name: _spread(partners, maps) for name, maps in readable.items()}
        result = self._result
        self.prediction = Prediction(
            result.total,
            dict(result.parts),
            perturbed,
            *_residuals(result.total, result.parts, result.bias),
        )
        self._constants: dict[Origin, Tensor] = {}

    def under(self, variant: Variant) -> Prediction | None:
        """The prediction under a variant of this base, or nothing if parts under it differ from
        the base's by more than constants."""
        program = kept_program(self._result)
        if not shared_alike(program):
            return None
        if variant.activation in ACTIVATION_SPLITS[1:]:
            result = self._point.clean(variant)
            alike = products_of(kept_program(result)) == products_of(program)
            return self._moved(dict(result.parts), result.bias) if alike else None
        try:
            return self._shared_out(variant)
        except DecompositionError:  # the constants reach a product
            return None

    def _moved(self, parts: dict[str, Tensor], bias: Tensor) -> Prediction:
        """Other clean parts, which move as the base's do."""
        base = self.prediction
        perturbed = {
            name: [None if m is None else parts[name] + (m - base.parts[name]) for m in maps]
            for name, maps in base.perturbed.items()
        }
        return Prediction(base.total, parts, perturbed, *_residuals(base.total, parts, bias))

    def _shared_out(self, variant: Variant) -> Prediction:
        """Each modality takes its share of the constants that the base leaves to the bias."""
        kinds: dict[Origin, str] = {"batch_norm": variant.batch_norm, "norm": variant.norm}
        made = [self._made_by(origin) for origin, rule in kinds.items() if rule == "uniform"]
        share = sum(made) * self._result.layout.uniform_share
        parts = {name: part + share for name, part in self.prediction.parts.items()}
        bias = self._result.bias - len(parts) * share
        return self._moved(parts, bias)

    def _made_by(self, origin: Origin) -> Tensor:
        """What the constants of one kind of norm make of the output."""
        if origin not in self._constants:
            self._constants[origin] = self._point.constants(self._result, origin)
        return self._constants[origin]


def _residuals(total: Tensor, parts: Mapping[str, Tensor], bias: Tensor) -> tuple[Tensor, Tensor]:
    """Of conservation, over the total and over the parts."""
    stack = torch.stack([*parts.values(), bias])
    return residual_tensor(total, stack), parts_residual_tensor(total, stack)


def _through(linear: Linearised, modality: str, inputs: list[Tensor], chunk: int) -> list[Tensor]:
    """Parts of many inputs, as many at a time as have ``chunk`` bytes."""
    if not inputs:
        return []
    size = max(1, chunk // (inputs[0].element_size() * inputs[0].numel()))
    chunks = [inputs[i : i + size] for i in range(0, len(inputs), size)]
    maps = linear.parts(modality, [torch.cat(chunk) for chunk in chunks])
    return [part for chunk in maps for part in chunk.split(1)]


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _spread(partners: Sequence[Encoding | Skipped], maps: Sequence[Tensor]) -> list[Tensor | None]:
    remaining = iter(maps)
    return [next(remaining) if isinstance(p, Encoding) else None for p in partners]


def as_module(network: object) -> nn.Module | None:
    """The network as a module, for the names in error messages."""
    return network if isinstance(network, nn.Module) else None


def tree_bytes(features: Any) -> int:
    """Size of nested tensors; at least 1."""
    leaves = [x for x in pytree.tree_leaves(features) if isinstance(x, Tensor)]
    return max(1, sum(x.element_size() * x.numel() for x in leaves))
