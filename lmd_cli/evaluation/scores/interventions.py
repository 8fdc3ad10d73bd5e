"""Interventions: an object is removed from one sensor's raw data, and the network is run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.assembly.changed import encode_changed
from lmd_cli.assembly.forward import fuse_function
from lmd_cli.config.compute import Precision
from lmd_cli.data import RemovalSettings, Removed, Sample, collate, to_device
from lmd_cli.evaluation.ground.detection import Criterion
from lmd_cli.evaluation.ground.footprints import footprints
from lmd_cli.evaluation.scores.ground_truth import (
    GroundTruth,
    GroundTruthObject,
    Means,
    annotated_objects,
)

#: Bytes of features that go through the network at once, on the CPU and on a GPU.
CPU_BYTES, GPU_BYTES = 48 * 2**20, 2**30
#: Samples at once, at most.
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class Effect:
    """What taking one object out of one sensor's data does.

    Attributes:
        amount: points or pixels that were taken away; with none nothing else was done.
        clipped: images whose edge cuts the region.
        before, after: the mean prediction over the footprint.
        lost: the object is not detected any more.
        inside, outside: the mean magnitude of the change over the footprint, and over all other
            cells.
        elsewhere: the same over the other objects' footprints; NaN without any.
        outside_share: of the sum of the change's magnitudes, what is outside the footprint.
    """

    amount: int
    clipped: int
    before: float
    after: float
    lost: bool
    inside: float = 0.0
    outside: float = 0.0
    elsewhere: float = 0.0
    outside_share: float = 0.0

    @property
    def drop(self) -> float:
        """How far the sensor carries the object."""
        return self.before - self.after


#: For each modality its effect, of one object.
Effects = Mapping[str, Effect]


class Removable(Protocol):
    """A data set that can take an object out of one sensor's data."""

    def without(
        self, clean: Sample, index: int, name: Any, modality: str, settings: RemovalSettings
    ) -> Removed:
        """The sample without it."""


@dataclass(frozen=True)
class AnnotatedGroundTruth:
    """Annotated vehicles of any nuScenes root; what each sensor saw is not recorded."""

    dataset: Any
    output: str
    criterion: Criterion
    modalities: Sequence[str]

    def at(self, index: int, total: Tensor) -> tuple[list[GroundTruthObject], Means]:
        """See :class:`~lmd_cli.evaluation.scores.ground_truth.GroundTruth`."""
        vehicles = footprints(self.dataset, index, self.output)
        instances = {token: i or token for token, i in self.dataset.instances(index).items()}
        unknown = dict.fromkeys(instances, dict.fromkeys(self.modalities, float("nan")))
        return annotated_objects(vehicles, total, self.criterion, instances, unknown)


@dataclass(frozen=True)
class Clean:
    """A sample as it is, and what the network says of it.

    Attributes:
        index: its number.
        sample: its data.
        features: encoded.
        total: the output that is explained, a batch of one.
    """

    index: int
    sample: Sample
    features: Mapping[str, Any]
    total: Tensor


@dataclass(frozen=True)
class Interventions:
    """Takes the detected objects of a sample out of each sensor's data, one at a time.

    Attributes:
        network: what is scored.
        dataset: where the data come from.
        truth: which objects there are, and whether they are detected.
        output: that is explained.
        settings: how evidence is taken away.
        device: where to compute.
        precision: of the encoders.
    """

    network: Any
    dataset: Removable
    truth: GroundTruth
    output: str
    settings: RemovalSettings
    device: torch.device
    precision: Precision = "float32"

    def effects(self, clean: Clean) -> dict[str, dict[str, Effect]]:
        """For each detected object's token, and each modality, what its removal does."""
        objects, means = self.truth.at(clean.index, clean.total)
        names = self._names(clean.index, objects)
        chosen = [k for k, one in enumerate(objects) if one.detected]
        effects: dict[str, dict[str, Effect]] = {objects[k].token: {} for k in chosen}
        before = means(clean.total)[0].double().tolist()
        for modality in self.network.modalities:
            for k, removed, changed in self._changed(clean, modality, chosen, names):
                effect = Effect(removed.amount, removed.clipped, before[k], before[k], False)
                if changed is not None:
                    lost = not self.truth.at(clean.index, changed)[0][k].detected
                    effect = measured(clean.total, changed, means, k, removed, lost)
                effects[objects[k].token][modality] = effect
        return effects

    def _names(self, index: int, objects: Sequence[GroundTruthObject]) -> list[Any]:
        """What the data set calls the objects: regions of a custom one, else annotations."""
        regions = getattr(self.dataset, "regions", None)
        return [one.token for one in objects] if regions is None else list(regions(index))

    def _changed(
        self, clean: Clean, modality: str, chosen: Sequence[int], names: Sequence[Any]
    ) -> Iterator[tuple[int, Removed, Tensor | None]]:
        """The output without each of the objects in one sensor, or nothing if the sensor holds none
        of it."""
        batch: list[tuple[int, Removed]] = []
        most = at_once(clean)
        for k in chosen:
            removed = self.dataset.without(
                clean.sample, clean.index, names[k], modality, self.settings
            )
            if not removed.amount:
                yield k, removed, None
                continue
            batch.append((k, removed))
            if len(batch) == most:
                yield from self._outputs(clean, modality, batch)
                batch = []
        if batch:
            yield from self._outputs(clean, modality, batch)

    def _outputs(
        self, clean: Clean, modality: str, changed: Sequence[tuple[int, Removed]]
    ) -> Iterator[tuple[int, Removed, Tensor]]:
        """One encoding of the changed sensor and one plain pass for several changed samples."""
        batch = to_device(collate([removed.sample for _, removed in changed]), self.device)
        with torch.no_grad():
            features, constants = encode_changed(
                *(self.network, batch, modality, clean.features),
                *(clean.sample.token, self.precision),
            )
            outputs = fuse_function(self.network, self.output, constants)(**features)
        for i, (k, removed) in enumerate(changed):
            yield k, removed, outputs[i : i + 1]


def at_once(clean: Clean) -> int:
    """How many changed samples go through the network together."""
    if clean.sample.batched:
        return 1
    leaves = [x for x in pytree.tree_leaves(dict(clean.features)) if isinstance(x, Tensor)]
    size = sum(x.numel() * x.element_size() for x in leaves)
    budget = GPU_BYTES if clean.total.device.type == "cuda" else CPU_BYTES
    return int(np.clip(budget // max(size, 1), 1, MOST_AT_ONCE))


def measured(
    total: Tensor, changed: Tensor, means: Means, k: int, removed: Removed, lost: bool
) -> Effect:
    """What a removal did to an output, over object ``k``'s footprint and outside.

    Args:
        total: the clean output (1, C, ...).
        changed: the same without the object.
        means: over each object's footprint.
    """
    both = [float(means(x)[0, k].double()) for x in (total, changed)]
    magnitude, weights = _magnitudes(total, changed, means)
    own = weights[k] > 0
    others = (weights > 0).any(dim=0) & ~own
    everything = float(magnitude.sum())
    outside = float(magnitude[~own].sum())
    return Effect(
        amount=removed.amount,
        clipped=removed.clipped,
        before=both[0],
        after=both[1],
        lost=lost,
        inside=_mean(magnitude[own]),
        outside=_mean(magnitude[~own]),
        elsewhere=_mean(magnitude[others]),
        outside_share=outside / everything if everything else 0.0,
    )


def _magnitudes(total: Tensor, changed: Tensor, means: Any) -> tuple[Tensor, Tensor]:
    """The change's magnitude in each cell (cells,), and the objects' weights (n, cells)."""
    channel = getattr(means, "channel", 0)
    difference = (changed - total)[0, channel].double().abs().flatten()
    return difference, means.weights.flatten(1)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else float("nan")
