"""The content of a figure of one sample, independent of network and data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmd_cli.evaluation.decomposed_sample import SampleDecomposition, truth_name
from lmd_cli.evaluation.ground.decisive import Decisive, decisive_places
from lmd_cli.evaluation.ground.detection import Criterion
from lmd_cli.evaluation.ground.plane import Plane, plane_of
from lmd_cli.evaluation.ground.vehicles import outline
from lmd_cli.report.figures.projection import Overlay, sample_overlays

Map = NDArray[np.floating]

#: The cameras' usual arrangement: what lies ahead above, what lies behind below.
ROWS = (
    ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"),
    ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"),
)


def arranged(cameras: Iterable[str]) -> Sequence[Sequence[str]]:
    """Rows of images: :data:`ROWS`, or for other cameras so many in a row, in their order."""
    names, width = list(cameras), len(ROWS[0])
    if {name for row in ROWS for name in row}.issuperset(names):
        return ROWS
    return [names[start : start + width] for start in range(0, len(names), width)]


@dataclass(frozen=True, eq=False)
class Scene:
    """One sample. Maps have rows forward and columns to the right, see :class:`Plane`.

    Attributes:
        images: by camera, (H, W, 3) in [0, 1].
        ground_truth: vehicle mask (rows, columns).
        total: the fused prediction, logits (rows, columns).
        parts: by name, (rows, columns); they sum to ``total``.
        plane: where the maps lie.
        title: scene and time; ``note``: small below it; ``warning``: a line in red, if any.
        outlines: annotated vehicles from above, (4, 2) metres (right, forward) each.
        overlays: by camera, what is drawn over its image.
        marks: where one sensor alone is decisive.
        truth: what ``ground_truth`` is called.
        criterion: what ``marks`` go by.
    """

    images: Mapping[str, Map]
    ground_truth: Map
    total: Map
    parts: Mapping[str, Map]
    plane: Plane
    title: str
    note: str = ""
    warning: str = ""
    outlines: Sequence[Map] = ()
    overlays: Mapping[str, Overlay] = field(default_factory=dict)
    marks: Sequence[Decisive] = ()
    truth: str = "ground truth"
    criterion: Criterion = field(default_factory=Criterion)


def title_of(split: SampleDecomposition) -> str:
    """Scene and time; the token where no time is known."""
    when = split.moment or f"sample {split.sample.token}"
    return ", ".join(filter(None, (split.sample.scene, when)))


def note_of(split: SampleDecomposition) -> str:
    """Which sample, and by which rules."""
    return f"sample {split.sample.token}, rules {split.variant}"


def scene_of(split: SampleDecomposition) -> Scene:
    """What the picture shows: the images as the network got them, and the maps."""
    warning = f"{split.built.checkpoint}: the maps mean nothing" if split.built.random else ""
    parts = {name: part.numpy() for name, part in split.parts.items()}
    plane, known = plane_of(split.config), split.ground_truth
    truth = f"ground truth{' (cars)' if truth_name(split.config) == 'cars' else ''}"
    outlines = [outline(box) for box in split.boxes]
    criterion = split.criterion
    tensors = {name: value.numpy() for name, value in split.sample.tensors.items()}
    return Scene(
        images=split.pictures,
        ground_truth=np.zeros(split.total.shape) if known is None else known.numpy(),
        total=split.total.numpy(),
        parts=parts,
        plane=plane,
        title=title_of(split),
        note=note_of(split),
        warning=warning,
        outlines=outlines,
        overlays=sample_overlays(
            split.boxes, tensors, split.radar_in_images(), list(split.pictures)
        ),
        truth="no annotations" if known is None else truth,
        marks=decisive_places(parts, split.config.model.modalities, plane, outlines, criterion),
        criterion=criterion,
    )
