"""Methods other than LMD under the perturbation protocol.

Each is taken at the clean sample; then one set of modalities after the other is replaced by each
partner's. Nothing holds by construction here: the parts of a modality that was kept are worked
out anew with the others replaced.

The definitions set a floor to what this costs. With M = 2, each partner has 2 coalitions with a
sensor of the clean sample (4 where constants such as calibration stay the clean sample's, so that
no coalition is the partner's own), which Shapley values and leave-one-out share; LMD + Shapley
follows the bias once through each. Each partly linear baseline has 4. With M = 3 and two sensors
replaced they are 9, 9 and 12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork, LinearFusion
from lmd_cli.attribution.coalitions import Alone, Coalitions
from lmd_cli.attribution.interface import Explainer, ForwardMethod
from lmd_cli.attribution.linearised import LmdShapley
from lmd_cli.decomposition import Variant
from lmd_cli.evaluation.comparisons import Comparison
from lmd_cli.evaluation.metrics import mse, pcc
from lmd_cli.evaluation.variants import VariantPredictions, tree_bytes
from lmd_cli.evaluation.walk import Encoding, Visit, explained_encoding

#: PCC and MSE of each comparison, by the partner's offset.
Measured = dict[int, dict[Comparison, tuple[float, float]]]
#: The partner's offset, the comparison, and its part after and before.
Moved = tuple[int, Comparison, Tensor, Tensor]


class Baselines:
    """All methods at one visit; they share the passes of the network that they have in common.

    Args:
        network: whose prediction is explained.
        visit: the clean sample and its partners.
        output: the prediction's name.
        predictions: LMD's, which hold its parts of the partners.
    """

    def __init__(
        self, network: FusionNetwork, visit: Visit, output: str, predictions: VariantPredictions
    ):
        assert isinstance(visit.sample, Encoding)
        what = explained_encoding(network, output, visit.sample)
        self._clean = dict(what.features)
        partners = {
            m: Alone(explained_encoding(network, output, p).features, p.known)
            for m, p in enumerate(visit.partners, start=1)
            if isinstance(p, Encoding)
        }
        broadcasts = isinstance(network, LinearFusion)
        size = max(1, visit.chunks.linear // tree_bytes(self._clean)) if broadcasts else 1
        offsets = list(partners)
        self._chunks = [
            _joined({m: partners[m].features for m in offsets[i : i + size]})
            for i in range(0, len(offsets), size)
        ]
        # With constants of the clean sample, nothing is a partner's own.
        own = [([0], self._clean), *self._chunks] if not visit.sample.constants else []
        alone = {0: Alone(self._clean, visit.sample.known), **partners}
        samples = {
            id(tree): members
            for at, features in own
            for members in [[alone[m] for m in at]]
            for tree in features.values()
        }
        linear = _LinearParts(predictions, self._chunks)
        self._fuse = Coalitions(what.fuse, broadcasts=broadcasts, samples=samples, linear=linear)

    @property
    def total(self) -> Tensor:
        """The network's prediction at the clean sample."""
        return self._fuse.value(self._clean, frozenset())

    def measure_all(
        self, methods: Sequence[ForwardMethod], comparisons: Sequence[Comparison]
    ) -> dict[str, Measured]:
        """Every method's, by name."""
        return {method.name: self.measure(method, comparisons) for method in in_order(methods)}

    def measure(self, method: ForwardMethod, comparisons: Sequence[Comparison]) -> Measured:
        """PCC and MSE between the clean parts and those with modalities replaced."""
        measured: Measured = {m: {} for offsets, _ in self._chunks for m in offsets}
        _, moved = self.compare(method, comparisons)
        for m, comparison, after, before in moved:
            measured[m][comparison] = (pcc(after, before), mse(after, before))
        return measured

    def compare(
        self, method: ForwardMethod, comparisons: Sequence[Comparison]
    ) -> tuple[dict[str, Tensor], Iterator[Moved]]:
        """The clean parts, and every part with modalities replaced beside the clean one."""
        explainer = method.at(self._fuse, self._clean)
        clean = explainer.parts(self._clean)
        return clean, self._moved(explainer, clean, comparisons)

    def _moved(
        self, explainer: Explainer, clean: Mapping[str, Tensor], comparisons: Sequence[Comparison]
    ) -> Iterator[Moved]:
        for perturbed in dict.fromkeys(comparison.perturbed for comparison in comparisons):
            same = [c for c in comparisons if c.perturbed == perturbed]
            for m, maps in self._perturbed(explainer, perturbed):
                for comparison in same:
                    yield m, comparison, maps[comparison.target], clean[comparison.target]

    def _perturbed(
        self, explainer: Explainer, perturbed: tuple[str, ...]
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """For each partner's offset the parts with these modalities replaced by its."""
        for offsets, features in self._chunks:
            replaced = {name: features[name] for name in perturbed}
            parts = explainer.parts({**self._clean, **replaced})
            for i, m in enumerate(offsets):
                yield m, {name: _entry(part, i) for name, part in parts.items()}


def in_order(methods: Sequence[ForwardMethod]) -> list[ForwardMethod]:
    """Those first whose passes give what others ask for."""
    return sorted(methods, key=lambda method: not isinstance(method, LmdShapley))


class _LinearParts:
    """LMD's parts of a chunk of partners, which its own rows are made of too.

    Not a method of :class:`Baselines`, which would then hold itself.
    """

    def __init__(
        self,
        predictions: VariantPredictions,
        chunks: Sequence[tuple[list[int], dict[str, Any]]],
    ):
        self._predictions = predictions
        self._offsets = {(name, id(tree)): at for at, of in chunks for name, tree in of.items()}

    def __call__(self, variant: Variant, modality: str, tree: Any) -> Tensor | None:
        at = self._offsets.get((modality, id(tree)))
        if at is None:
            return None
        maps = self._predictions.under(variant).perturbed[modality]
        return torch.cat([part for part in (maps[m - 1] for m in at) if part is not None])


def _joined(partners: Mapping[int, Mapping[str, Any]]) -> tuple[list[int], dict[str, Any]]:
    """Partners as one batch, if they are several (features are single tensors then)."""
    offsets, features = list(partners), list(partners.values())
    if len(offsets) == 1:
        return offsets, dict(features[0])
    return offsets, {name: torch.cat([f[name] for f in features]) for name in features[0]}


def _entry(part: Tensor, index: int) -> Tensor:
    """One of a batch, or the only one."""
    return part[index : index + 1] if len(part) > 1 else part
