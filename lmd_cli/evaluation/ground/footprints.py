"""Annotated vehicles on a network's output map: their footprints, and means over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.config.schema import RunConfig, SimpleBEVConfig
from lmd_cli.data import KeyframeSamples, NuScenesSamples
from lmd_cli.data.crn.truth import covered
from lmd_cli.data.simplebev.truth import footprint_mask
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.ground.detection import Criterion


@dataclass(frozen=True, eq=False)
class Footprint:
    """One vehicle's cells.

    Attributes:
        token: the annotation's.
        mask: (rows, columns) of the output map; at least one cell.
    """

    token: str
    mask: NDArray[np.bool_]


def require_vehicle_logits(config: RunConfig) -> None:
    """Refuses outputs that do not say where vehicles are.

    Raises:
        MethodError: says which do.
    """
    output = config.model.output
    if isinstance(config.model, SimpleBEVConfig):
        fits, expected = output == "segmentation", "segmentation"
    else:
        fits, expected = output.startswith("heatmap."), "heatmap.CLASS, e.g. heatmap.car"
    if not fits:
        raise MethodError(
            f"model.output is {output!r}: scores need the vehicles' logits ({expected})"
        )


def footprints(
    dataset: Any, index: int, output: str, boxes: Sequence[Any] | None = None
) -> list[Footprint]:
    """The vehicles of a sample that the output looks for.

    Left out are those of visibility 1, which stand behind something and which loss and IoU leave
    out too, and those without a cell on the map.

    Args:
        dataset: of either network.
        index: of the sample.
        output: ``segmentation``, or ``heatmap.CLASS``, which looks for one class.
        boxes: others than the annotated ones, as the data set's ``boxes`` gives them.
    """
    vehicles = []
    for box in dataset.boxes(index) if boxes is None else boxes:
        wanted = output.partition(".")[2]
        if box.visibility == 1 or (wanted and box.name != wanted):
            continue
        mask = _mask(dataset, box)
        if mask.any():
            vehicles.append(Footprint(box.token, mask))
    return vehicles


def _mask(dataset: NuScenesSamples | KeyframeSamples, box: Any) -> NDArray[np.bool_]:
    if isinstance(dataset, KeyframeSamples):
        return covered(box, dataset.extent, dataset.cells)
    return footprint_mask(box, dataset.grid)


@dataclass(frozen=True)
class FootprintMeans:
    """Target of attribution: the mean logit over each footprint.

    Attributes:
        weights: (n, rows, columns), each footprint's cells with weights that sum to 1.
    """

    weights: Tensor

    @classmethod
    def over(cls, vehicles: Sequence[Footprint], like: Tensor) -> FootprintMeans:
        """For maps of the type, device and size of ``like`` (B, 1, rows, columns)."""
        if not vehicles:
            return cls(like.new_zeros((0, *like.shape[-2:])))
        masks = torch.from_numpy(np.stack([v.mask for v in vehicles])).to(
            like
        )  # (n, rows, columns)
        return cls(masks / masks.sum((1, 2), keepdim=True))

    def __call__(self, output: Tensor) -> Tensor:
        """(B, 1, rows, columns) to (B, n)."""
        return torch.einsum("bzx,nzx->bn", output[:, 0], self.weights)


def detected(logits: Tensor, vehicle: Footprint, criterion: Criterion) -> bool:
    """Whether the network detects a vehicle.

    Args:
        logits: (rows, columns).
    """
    return criterion.holds(logits.cpu().numpy()[vehicle.mask])
