"""One sample decomposed, with all that is needed to show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.assembly.build import BuiltNetwork
from lmd_cli.config.schema import CRNConfig, CustomModelConfig, RunConfig
from lmd_cli.data import Sample
from lmd_cli.data.boxes import Box3D
from lmd_cli.decomposition import Decomposition
from lmd_cli.evaluation.ground.detection import Criterion, criterion_of


@dataclass(frozen=True, eq=False)
class SampleDecomposition:
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
        pictures: the images by camera, (H, W, 3) in [0, 1].
        boxes: the sample's annotated vehicles, axes x right, y down, z forward, in metres from
            the origin of the maps.
        description: its scene's, in the dataset's words.
        moment: when it was recorded, in words; empty where nobody knows.
        without: the output as ``total`` shows it, with the features of some modalities removed:
            one more pass each time; none where the network gives no finite numbers then.
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
    description: str = ""
    moment: str = ""
    without: Callable[[frozenset[str]], Tensor | None] = lambda removed: None
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


def truth_name(config: RunConfig) -> str:
    """Which of a sample's maps shows what the output looks for."""
    if isinstance(config.model, CRNConfig):
        return "cars" if config.model.output.endswith(".car") else "vehicles"
    return "segmentation"
