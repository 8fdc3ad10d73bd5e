"""One more pass over an evaluation's samples, for what the tables do not show.

Kept apart from the evaluation: its rows and bytes stay what they are however a page is made, and a
pass costs a sample's encoding and one decomposition, about a fourteenth of its evaluation.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmd_cli.data.database import CAMERAS
from lmd_cli.decomposition import OperationRecord
from lmd_cli.progress import Progress, Silent
from lmd_cli.report.plane import Plane
from lmd_cli.report.vehicles import Weather, conflict, object_rows, outline
from lmd_cli.single import Ready, SampleDecomposition

#: Samples where the sensors disagree most that are always shown.
DISAGREEING = 10
JPEG_QUALITY = 80
SAMPLE_FIELDS = ("sample_token", "scene", "description", "vehicles", "conflict", "residual")
LAYER_FIELDS = ("order", "module", "operation")
#: Before the first sample has shown how large its maps are.
NOWHERE = Plane(0, 0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Shown:
    """One sample for the viewer.

    Attributes:
        index: in the dataset, the order of showing.
        token, scene, description: which sample.
        parts: (P, rows, columns) float32; their sum is the prediction.
        truth: (rows, columns) bool.
        outlines: (n, 4, 2) float32, vehicles from above, metres (right, forward).
        images: a JPEG for each of :data:`~lmd_cli.data.database.CAMERAS`, as the network saw it.
    """

    index: int
    token: str
    scene: str
    description: str
    parts: NDArray[np.float32]
    truth: NDArray[np.bool_]
    outlines: NDArray[np.float32]
    images: tuple[bytes, ...]


@dataclass(eq=False)
class Survey:
    """What the pass found.

    Attributes:
        plane: where the maps lie; in pixels if not on the ground, numbers are one row.
        variant: the rules.
        ground: whether the maps lie on the ground around a vehicle.
        parts: names, in the order of ``Shown.parts``.
        shown: samples for the viewer, in the dataset's order.
        objects: rows of ``objects.csv``, see :func:`~.vehicles.object_fields`.
        samples: rows in the order of :data:`SAMPLE_FIELDS`.
        layers: (order, module, operation), then each part's mean share of the L2 norms.
        layer_parts: whose shares.
    """

    plane: Plane
    variant: str
    ground: bool = True
    parts: list[str] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    objects: list[Sequence[Any]] = field(default_factory=list)
    samples: list[Sequence[Any]] = field(default_factory=list)
    layers: list[Sequence[Any]] = field(default_factory=list)
    layer_parts: list[str] = field(default_factory=list)


def survey(
    ready: Ready,
    tokens: Sequence[str],
    plane: Plane | None,
    *,
    viewer: int,
    progress: Progress | None = None,
) -> Survey:
    """Decomposes the samples one after another.

    Args:
        ready: data and network.
        tokens: samples, in the order of the evaluation.
        plane: where the output's maps lie; none if not on the ground.
        viewer: how many of the first samples to keep for the viewer, beside the
            :data:`DISAGREEING` where the sensors disagree most.

    Raises:
        DataError: a sample is unknown or its files are damaged.
    """
    found = Survey(plane or NOWHERE, ready.variant, ground=plane is not None)
    layers = LayerMeans()
    first: list[Shown] = []
    ranked: list[tuple[float, int, Shown]] = []
    for position, split in enumerate(_decompositions(ready, tokens, progress or Silent())):
        layers.add(split.result.operations)
        disagreement = _add(found, split)
        shown = _shown(split, ready.dataset.index_of(split.sample.token))
        if position < viewer:
            first.append(shown)
        ranked = sorted([*ranked, (-disagreement, position, shown)], key=lambda r: r[:2])
        ranked = ranked[:DISAGREEING]
    chosen = {shown.index: shown for shown in (*first, *(shown for _, _, shown in ranked))}
    found.shown = [chosen[index] for index in sorted(chosen)]
    found.layer_parts, found.layers = layers.names, layers.rows()
    return found


def _decompositions(
    ready: Ready, tokens: Sequence[str], progress: Progress
) -> Iterator[SampleDecomposition]:
    progress.start(len(tokens), "survey")
    try:
        for token in tokens:
            yield ready.decompose(ready.dataset.index_of(token))
            progress.advance(note=token)
    finally:
        progress.close()


def _add(found: Survey, split: SampleDecomposition) -> float:
    """Adds a sample's rows; returns how much its sensors disagree."""
    sample, total = split.sample, split.total.numpy()
    parts = {name: part.numpy() for name, part in split.parts.items()}
    found.parts = list(parts)
    if not found.ground:
        found.plane = _pixels(total)
    sensors = {name: parts[name] for name in split.config.model.modalities}
    disagreement = conflict(sensors, _relevant(split, total))
    named = (sample.token, sample.scene)
    weather = Weather.of(split.description)
    found.objects += object_rows(named, weather, split.boxes, found.plane, total, parts)
    found.samples.append(
        (*named, split.description, len(split.boxes), disagreement, split.residual)
    )
    return disagreement


def _pixels(total: NDArray[np.floating]) -> Plane:
    rows, columns = np.atleast_2d(total).shape
    return Plane(rows, columns, 0.0, float(columns), 0.0, float(rows))


def _relevant(split: SampleDecomposition, total: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where sensors can disagree: at vehicles; anywhere where the output is not about them."""
    if not split.on_ground or split.ground_truth is None:
        return np.ones(total.shape, dtype=bool)
    return (total > 0) | (split.ground_truth.numpy() > 0.5)


def _shown(split: SampleDecomposition, index: int) -> Shown:
    outlines = [outline(box) for box in split.boxes]
    cameras = [camera for camera in CAMERAS if camera in split.pictures]
    images = [np.clip(split.pictures[camera], 0, 1) for camera in cameras]  # (H, W, 3) each
    parts = np.stack([np.atleast_2d(part.numpy()) for part in split.parts.values()])
    truth = split.ground_truth
    known = np.zeros(parts.shape[1:]) if truth is None else np.atleast_2d(truth.numpy())
    return Shown(
        index,
        split.sample.token,
        split.sample.scene,
        split.description,
        parts.astype(np.float32),
        known > 0.5,
        np.array(outlines, dtype=np.float32).reshape(-1, 4, 2),
        tuple(_jpeg((image * 255).round().astype(np.uint8)) for image in images),
    )


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


class LayerMeans:
    """Each part's share after every operation, averaged over samples."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, str, str], dict[str, float]] = {}
        self._samples = 0

    @property
    def names(self) -> list[str]:
        """Parts that any operation has, in order of appearance."""
        return list(dict.fromkeys(name for sums in self._sums.values() for name in sums))

    def add(self, operations: Sequence[OperationRecord]) -> None:
        """One sample's audit."""
        self._samples += 1
        for record in operations:
            key = (record.order, record.module, record.operation)
            sums = self._sums.setdefault(key, {})
            for name, share in record.shares.items():
                sums[name] = sums.get(name, 0.0) + share

    def rows(self) -> list[Sequence[Any]]:
        """:data:`LAYER_FIELDS`, then the mean shares in the order of :attr:`names`."""
        names = self.names
        return [
            (*key, *(sums.get(name, 0.0) / self._samples for name in names))
            for key, sums in sorted(self._sums.items())
        ]
