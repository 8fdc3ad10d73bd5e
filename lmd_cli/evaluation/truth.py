"""Where known truth comes from: the synthetic world's side tables, or a data set's own regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lmd_cli.config.schema import CustomDataConfig, CustomModelConfig, DataConfig, RunConfig
from lmd_cli.data import Region
from lmd_cli.data.nuscenes.index.splits import split_name
from lmd_cli.data.synthetic import Evidence, read_evidence, read_instances
from lmd_cli.errors import ContractError, DataError, MethodError
from lmd_cli.evaluation.ground.footprints import (
    FootprintMeans,
    detected,
    footprints,
    require_vehicle_logits,
)

#: From an output (B, C, ...) to (B, n): its mean over each thing.
Means = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Thing:
    """Something that is known to be there.

    Attributes:
        token: its own; instance: of the object that it is a view of.
        evidence: what each modality had to go by.
        detected: whether the network found it.
    """

    token: str
    instance: str
    evidence: Evidence | Mapping[str, float]
    detected: bool


class Truth(Protocol):
    """What is known of a data set."""

    def at(self, index: int, total: Tensor) -> tuple[list[Thing], Means]:
        """What is in a sample, given the network's output."""


@dataclass(frozen=True)
class SyntheticTruth:
    """Vehicles of the synthetic world and their evidence, by annotation."""

    dataset: Any
    output: str
    evidence: Mapping[str, Evidence]
    instances: Mapping[str, str]

    def at(self, index: int, total: Tensor) -> tuple[list[Thing], Means]:
        """See :class:`Truth`.

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
        things = [
            Thing(
                vehicle.token,
                self.instances[vehicle.token],
                self.evidence[vehicle.token],
                detected(total[0, 0], vehicle, self.output),
            )
            for vehicle in vehicles
        ]
        return things, FootprintMeans.over(vehicles, total)


@dataclass(frozen=True)
class RegionTruth:
    """The regions that a data set of the user's own gives; one is detected if its mean output is
    above zero."""

    dataset: Any
    modalities: Sequence[str]
    channel: int

    def at(self, index: int, total: Tensor) -> tuple[list[Thing], Means]:
        """See :class:`Truth`.

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

        def means(output: Tensor) -> Tensor:
            return output[:, self.channel].flatten(1) @ weights.T

        found = (means(total)[0] > 0).tolist()
        things = [
            Thing(r.token, r.instance or r.token, r.evidence, seen)
            for r, seen in zip(regions, found, strict=True)
        ]
        return things, means

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
        if set(region.evidence) != set(self.modalities):
            raise ContractError(
                f"{where}: {region.token} has evidence of {', '.join(region.evidence)}; the "
                f"modalities are {', '.join(self.modalities)}"
            )


def truth_of(config: RunConfig, dataset: Any) -> Truth:
    """What is known of a config's samples.

    Raises:
        MethodError: an output without vehicle logits, or a data set that gives no regions.
        DataError: the root is not synthetic, or has no annotations.
    """
    model, data = config.model, config.data
    if isinstance(data, DataConfig):
        if not dataset.annotated:
            raise DataError(
                f"{dataset.dataroot} has no annotations of split {split_name(data.split)}: nothing "
                "can be scored. lmd evaluate, decompose and sanity need none"
            )
        tables = dataset.dataroot / data.version
        evidence, instances = read_evidence(tables), read_instances(tables)
        return SyntheticTruth(dataset, model.output, evidence, instances)
    regions = getattr(dataset, "regions", None)
    if regions is None or regions(0) is None:
        raise MethodError(
            f"scores need to know what each modality could see, and {data.target} does not say: "
            "give its data set a method regions(index) (see docs/extending.md)"
        )
    channel = model.channel if isinstance(model, CustomModelConfig) else 0
    return RegionTruth(dataset, tuple(model.modalities), channel)


def require_truth(config: RunConfig) -> None:
    """Refuses at once what :func:`truth_of` would refuse after the data is open.

    Raises:
        MethodError: an output without vehicle logits.
    """
    if not isinstance(config.data, CustomDataConfig) and not isinstance(
        config.model, CustomModelConfig
    ):
        require_vehicle_logits(config)
