"""One sample decomposed, with all that is needed to show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.assembly.build import BuiltNetwork
from lmd_cli.config.schema import CRNConfig, CustomModelConfig, RunConfig
from lmd_cli.data import Sample
from lmd_cli.data.boxes import Box3D
from lmd_cli.decomposition import Decomposition
from lmd_cli.decomposition.presentation import Presented
from lmd_cli.errors import ContractError
from lmd_cli.evaluation.ground.detection import Criterion, criterion_of
from lmd_cli.evaluation.metrics import vehicle_counts


@dataclass(frozen=True, eq=False)
class SampleDecomposition(Presented):
    """One sample's prediction and its parts.

    Attributes:
        config: what was run.
        variant: the rules' name.
        built: the network and where its weights come from.
        sample: the sample.
        result: the decomposition of the output, audited.
        total: the output, rows forward and columns right (Z, X), and
        parts: for each modality and ``bias`` (and ``interaction``) its part (Z, X), on the CPU.
            Of a network of the user's own, the map or row of numbers that is shown, as it lies.
        ground_truth: where the vehicles (of the output's class) are, (Z, X), 0 or 1; none where
            there are no annotations, or a data set of the user's own says nothing that fits the
            output.
        segmentation: what IoU compares the output with, and which cells count, both as ``total``;
            none where the output is no such map or nobody knows.
        pictures: the images by camera, (H, W, 3) in [0, 1].
        boxes: the sample's annotated vehicles, axes x right, y down, z forward, in metres from
            the origin of the maps.
        instances: by a box's token that of the vehicle, which is the same in other samples.
        description: its scene's, in the dataset's words.
        moment: when it was recorded, in words; empty where nobody knows.
        without: the output as ``total`` shows it, with the features of some modalities removed:
            one more pass each time; none where the network gives no finite numbers then.
        compared: rows of ``pairs.csv``: the parts before and after each sensor was replaced by that
            of another sample; empty if that is not asked for.
        frames: where in ``pictures`` its vehicles are seen, and after them whatever stands at some
            places on the ground, metres (right, forward): the camera's place among them (-1: in
            none), left, top, right and bottom, pixels.
        radar_in_images: reads where its radar points lie in the images, by camera (k, 3): u, v
            (pixels), depth (m); none where the tensors hold them in space.
    """

    config: RunConfig
    variant: str
    built: BuiltNetwork
    sample: Sample
    result: Decomposition
    total: Tensor
    parts: Mapping[str, Tensor]
    ground_truth: Tensor | None
    pictures: Mapping[str, NDArray[np.float32]]
    boxes: Sequence[Box3D] = ()
    instances: Mapping[str, str] = field(default_factory=dict)
    segmentation: tuple[Tensor, Tensor] | None = None
    description: str = ""
    moment: str = ""
    without: Callable[[frozenset[str]], Tensor | None] = lambda removed: None
    compared: Callable[[], list[tuple[Any, ...]]] = list
    frames: Callable[[Sequence[tuple[float, float]]], list[tuple[float, ...]]] = lambda places: []
    radar_in_images: Callable[[], Mapping[str, NDArray[np.float32]]] = dict

    @property
    def on_ground(self) -> bool:
        """Whether the maps lie on the ground around a vehicle."""
        return not isinstance(self.config.model, CustomModelConfig)

    @property
    def criterion(self) -> Criterion:
        """When the output says that a vehicle is there."""
        return criterion_of(self.config.model.output, self.config.detection)

    @property
    def residual(self) -> float:
        """max |total - sum of parts| / max |total| of the output."""
        return self.result.residual

    def overlap(self, output: Tensor | None) -> tuple[int, int] | tuple[None, None]:
        """Cells (intersection, union) of an output with the ground truth, for the IoU.

        Args:
            output: as ``total``; none if it is not known.
        """
        if output is None or self.segmentation is None:
            return None, None
        return vehicle_counts(output, *self.segmentation)

    def shares(self) -> dict[str, float]:
        """Each part's L2 norm over the sum of the norms, of what ``parts`` shows."""
        norms = {name: float(part.double().norm()) for name, part in self.parts.items()}
        scale = sum(norms.values()) or 1.0
        return {name: norm / scale for name, norm in norms.items()}

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares().items())
        return (
            f"sample {self.sample.name}, rules {self.variant}: {shares}; "
            f"residual {self.residual:.1e}"
        )


def truth_name(config: RunConfig) -> str:
    """Which of a sample's maps shows what the output looks for."""
    if isinstance(config.model, CRNConfig):
        return "cars" if config.model.output.endswith(".car") else "vehicles"
    return "segmentation"


def shown(output: Tensor, channel: int, name: str) -> Tensor:
    """One sample's output, or a part of it, as it is drawn.

    Args:
        output: (1, C, H, W), (1, C, D, H, W), (1, C), (1, N, C), or (1,).
        channel: which of the C; a vector (1, C) is shown whole.
        name: of the output, for messages.

    Returns:
        a map (H, W), of a volume its middle slice; or numbers (C,) or (N,). Parts that sum to the
        output before do so afterwards, for it only selects.

    Raises:
        ContractError: no such channel, a batch of several, or another shape.
    """
    shape = tuple(output.shape)
    if output.ndim == 0 or output.ndim > 5 or shape[0] != 1:
        raise ContractError(
            f"output {name} has the shape {shape}; expected (1, C), (1, N, C), (1, C, H, W) or "
            "(1, C, D, H, W), with a batch of 1 first"
        )
    one = output[0]
    if one.ndim < 2:
        return one.reshape(-1)
    axis = 1 if one.ndim == 2 else 0
    if channel >= one.shape[axis]:
        raise ContractError(
            f"model.channel is {channel}; output {name} of shape {shape} has the channels 0 to "
            f"{one.shape[axis] - 1}"
        )
    picked = one.select(axis, channel)  # (N,), (H, W) or (D, H, W)
    return picked[picked.shape[0] // 2] if picked.ndim == 3 else picked
