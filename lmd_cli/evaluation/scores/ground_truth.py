"""Ground truth of attribution: the synthetic world's side tables, or a data set's regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lmd_cli.data import Region
from lmd_cli.data.synthetic import Evidence
from lmd_cli.errors import ContractError, DataError
from lmd_cli.evaluation.ground.detection import Criterion
from lmd_cli.evaluation.ground.footprints import (
    Footprint,
    FootprintMeans,
    detected,
    footprints,
)

#: From an output (B, C, ...) to (B, n): its mean over each object.
Means = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GroundTruthObject:
    """An object in a sample, and what each modality could know of it.

    Attributes:
        token: its own; instance: of the object that it is a view of.
        evidence: what each modality had to go by.
        detected: whether the network detects it.
    """

    token: str
    instance: str
    evidence: Evidence | Mapping[str, float]
    detected: bool


class GroundTruth(Protocol):
    """The objects of a data set."""

    def at(self, index: int, total: Tensor) -> tuple[list[GroundTruthObject], Means]:
        """A sample's objects, and the means of an output over them, given the network's output."""


def annotated_objects(
    vehicles: Sequence[Footprint],
    total: Tensor,
    criterion: Criterion,
    instances: Mapping[str, str],
    evidence: Mapping[str, Evidence | Mapping[str, float]],
) -> tuple[list[GroundTruthObject], Means]:
    """Annotated vehicles as objects, and the means over them; instances and evidence are by the
    annotations' tokens."""
    objects = [
        GroundTruthObject(
            *(vehicle.token, instances[vehicle.token], evidence[vehicle.token]),
            detected(total[0, 0], vehicle, criterion),
        )
        for vehicle in vehicles
    ]
    return objects, FootprintMeans.over(vehicles, total)


@dataclass(frozen=True)
class SyntheticGroundTruth:
    """Vehicles of the synthetic world and their evidence, by annotation."""

    dataset: Any
    output: str
    criterion: Criterion
    evidence: Mapping[str, Evidence]
    instances: Mapping[str, str]

    def at(self, index: int, total: Tensor) -> tuple[list[GroundTruthObject], Means]:
        """See :class:`GroundTruth`.

        Raises:
            DataError: a vehicle is not in the side table.
        """
        vehicles = footprints(self.dataset, index, self.output)
        for vehicle in vehicles:
            if vehicle.token not in self.evidence:
                raise DataError(
                    f"annotation {vehicle.token} is not in the evidence of {self.dataset.dataroot}"
                    "; make the root again"
                )
        return annotated_objects(vehicles, total, self.criterion, self.instances, self.evidence)


@dataclass(frozen=True)
class RegionMeans:
    """Mean output over regions.

    Attributes:
        weights: (n, cells), each region's with weights that sum to 1.
        channel: of the output.
    """

    weights: Tensor
    channel: int

    def __call__(self, output: Tensor) -> Tensor:
        """(B, C, ...) to (B, n)."""
        return output[:, self.channel].flatten(1) @ self.weights.T


@dataclass(frozen=True)
class RegionGroundTruth:
    """The regions that a custom data set gives; one is detected by its mean output. Not ``graded``
    are regions of which nobody knows the evidence."""

    dataset: Any
    modalities: Sequence[str]
    channel: int
    criterion: Criterion = field(default_factory=Criterion)
    graded: bool = True

    def at(self, index: int, total: Tensor) -> tuple[list[GroundTruthObject], Means]:
        """See :class:`GroundTruth`.

        Raises:
            ContractError: a region that does not fit the output or the modalities.
        """
        regions = list(self.dataset.regions(index))
        for region in regions:
            self._require(region, total, index)
        cells = total[:, self.channel].flatten(1)  # (1, cells)
        masks = [region.mask.flatten() for region in regions]
        rows = torch.stack(masks).to(cells) if masks else cells.new_zeros(0, cells.shape[1])
        weights = rows / rows.sum(1, keepdim=True)  # (n, cells)

        means = RegionMeans(weights, self.channel)
        detected = (means(total)[0] > self.criterion.threshold).tolist()
        unknown = dict.fromkeys(self.modalities, float("nan"))
        objects = [
            GroundTruthObject(
                r.token, r.instance or r.token, r.evidence if self.graded else unknown, seen
            )
            for r, seen in zip(regions, detected, strict=True)
        ]
        return objects, means

    def _require(self, region: Any, total: Tensor, index: int) -> None:
        where = f"regions of sample {self.dataset.tokens[index]}"
        if not isinstance(region, Region):
            kind = type(region).__name__
            raise ContractError(f"{where}: one is a {kind}; expected lmd_cli.data.Region")
        if total.ndim < 3 or self.channel >= total.shape[1]:
            raise ContractError(
                f"{where}: the output has the shape {tuple(total.shape)}; regions need maps "
                f"(1, C, ...) with C above model.channel ({self.channel})"
            )
        shape = tuple(total.shape[2:])
        fits = isinstance(region.mask, Tensor) and tuple(region.mask.shape) == shape
        if not fits or region.mask.dtype != torch.bool or not bool(region.mask.any()):
            raise ContractError(
                f"{where}: the mask of {region.token} must be a bool tensor of shape {shape} with "
                "at least one cell set"
            )
        if self.graded and set(region.evidence) != set(self.modalities):
            raise ContractError(
                f"{where}: {region.token} has evidence of {', '.join(region.evidence) or 'none'}; "
                f"the modalities are {', '.join(self.modalities)}. A data set that does not know "
                "it needs a method remove(index, object, modality) (see docs/extending.md)"
            )
