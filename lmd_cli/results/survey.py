"""The values that the report page shows beside the tables: by vehicle, by layer and by sample.

Kept apart from the evaluation: its rows and bytes stay what they are however a page is made, and a
pass costs a sample's encoding (with it its partner's, where features are replaced), one
decomposition, and for each subset of the sensors one pass of the plain network behind the encoders.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lmd_cli.decomposition import OperationRecord
from lmd_cli.evaluation.decomposed_sample import SampleDecomposition
from lmd_cli.evaluation.ground.detection import Criterion, criterion_of
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.evaluation.ground.removal import (
    Removal,
    Removed,
    count_fields,
    false_counts,
    relative_change,
    removals,
    suffix,
)
from lmd_cli.evaluation.ground.vehicles import (
    FACT_FIELDS,
    SampleMaps,
    Weather,
    conflict,
    object_fields,
    object_rows,
    outline,
    sensors_of,
)

#: Samples where the sensors disagree most that are always shown.
DISAGREEING = 10
JPEG_QUALITY = 80
SAMPLE_FIELDS = (
    *("sample_token", "scene", "description", "moment", "vehicles", "conflict", "residual"),
)
LAYER_FIELDS = ("order", "module", "operation")


def sample_fields(parts: Sequence[str]) -> tuple[str, ...]:
    """The header of ``samples.csv``: facts, the output's relative change by removal, counts."""
    sensors = sensors_of(parts)
    changes = [f"change_{suffix(removed)}" for removed in removals(sensors)]
    return (*SAMPLE_FIELDS, *changes, *count_fields(sensors))


def conflict_of(row: Sequence[Any]) -> float:
    """How much the sensors contradict each other in a sample, by its row of ``samples.csv``."""
    return float(row[SAMPLE_FIELDS.index("conflict")])


@dataclass(frozen=True, eq=False)
class Shown:
    """One sample for the viewer.

    Attributes:
        index: in the dataset, the order of showing.
        token, scene, description: which sample.
        moment: when, in words; empty where nobody knows.
        parts: (P, rows, columns) float32; their sum is the prediction.
        truth: (rows, columns) bool.
        outlines: (n, 4, 2) float32, vehicles from above, metres (right, forward).
        frames: (k, 5) float32, where the rows of ``objects.csv`` of this sample are seen: the
            camera's place in ``images`` (-1: in none), then left, top, right and bottom, pixels.
        images: a JPEG for each camera, as the network saw it.
    """

    index: int
    token: str
    scene: str
    description: str
    moment: str
    parts: NDArray[np.float32]
    truth: NDArray[np.bool_]
    outlines: NDArray[np.float32]
    frames: NDArray[np.float32]
    images: Mapping[str, bytes]


@dataclass(eq=False)
class Survey:
    """The results of the pass.

    Attributes:
        plane: where the maps lie; in pixels if not on the ground, and numbers are one row.
        variant: the rules.
        parts: names, in the order of ``Shown.parts``.
        shown: samples for the viewer, in the dataset's order.
        objects: rows of ``objects.csv``, see :func:`~.vehicles.object_fields`.
        samples: rows in the order of :func:`sample_fields`.
        layers: (order, module, operation), then each part's mean share of the L2 norms.
        layer_parts: whose shares.
        output: of the network, that is split.
        ground: whether the maps lie on the ground around a vehicle.
        detection: the config's.
        removal: what takes the place of a removed sensor's features.
        pairs: rows of ``pairs.csv`` under the survey's rules, if the run's tables have none.
    """

    plane: Plane
    variant: str
    parts: list[str] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    objects: list[Sequence[Any]] = field(default_factory=list)
    samples: list[Sequence[Any]] = field(default_factory=list)
    layers: list[Sequence[Any]] = field(default_factory=list)
    layer_parts: list[str] = field(default_factory=list)
    output: str = "segmentation"
    ground: bool = True
    detection: float | Literal["auto"] = "auto"
    removal: Removal = "zeroed"
    pairs: list[Sequence[Any]] = field(default_factory=list)

    @property
    def criterion(self) -> Criterion:
        """When the output says that a vehicle is there."""
        return criterion_of(self.output, self.detection)

    @property
    def sensors(self) -> list[str]:
        """Those of the parts that are sensors'."""
        return sensors_of(self.parts)

    @property
    def vehicles(self) -> list[dict[str, Any]]:
        """Every annotated vehicle, by columns of ``objects.csv``."""
        return [row for row in self.by_column() if row["annotated"]]

    def by_column(self) -> list[dict[str, Any]]:
        """The rows of ``objects.csv``: vehicles, and detections without an annotation."""
        header = object_fields(self.parts)
        return [dict(zip(header, row, strict=True)) for row in self.objects]


class LayerMeans:
    """Each part's share after every operation, averaged over samples."""

    def __init__(self, state: Sequence[Any] = (0, ())) -> None:
        self._samples: int = state[0]
        self._sums: dict[tuple[int, str, str], dict[str, float]] = {
            (order, module, operation): dict(sums) for order, module, operation, sums in state[1]
        }

    def state(self) -> list[Any]:
        """Plain values, which JSON keeps exactly, to go on from."""
        return [self._samples, [[*key, sums] for key, sums in self._sums.items()]]

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


@dataclass(eq=False)
class Draft:
    """A survey as far as it has come: what the samples so far leave behind.

    Attributes:
        viewer: how many of the first samples can be looked at.
        parts: names, in order.
        indices: of the samples in the dataset.
        samples: rows, see :class:`Survey`.
        objects, pairs: each sample's rows.
        layers: running sums.
        shown: by position in the order of the pass; the first samples, and those of the samples
            so far where the sensors disagree most.
    """

    viewer: int
    parts: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    samples: list[Sequence[Any]] = field(default_factory=list)
    objects: list[Sequence[Sequence[Any]]] = field(default_factory=list)
    pairs: list[Sequence[Sequence[Any]]] = field(default_factory=list)
    layers: LayerMeans = field(default_factory=LayerMeans)
    shown: dict[int, Shown] = field(default_factory=dict)

    def add(self, split: SampleDecomposition, index: int, plane: Plane | None) -> None:
        """Takes one more sample.

        Args:
            index: of the sample in the dataset.
            plane: where the maps lie; none if not on the ground, and then there are no objects.
        """
        sample, total = split.sample, split.total.numpy()
        parts = {name: part.numpy() for name, part in split.parts.items()}
        sensors = {name: parts[name] for name in split.config.model.modalities}
        disagreement = conflict(sensors, _relevant(split, total))
        named, weather = (sample.token, sample.scene), Weather.of(split.description)
        self.parts = list(parts)
        self.indices.append(index)
        boxes = () if plane is None else split.boxes
        where = plane or _pixels(total.shape)
        outputs = {key: split.without(frozenset(key)) for key in removals(list(sensors))}
        without = {key: None if out is None else out.numpy() for key, out in outputs.items()}
        changes = [relative_change(total, output) for output in without.values()]
        what = (split.config.model.output, split.config.detection, split.instances)
        maps = SampleMaps(where, total, parts, without, *what)
        rows = [] if plane is None else object_rows(named, weather, boxes, maps)
        self.shown[len(self.samples)] = _shown(split, index, _places(rows, len(boxes)))
        facts = (split.description, split.moment, len(boxes), disagreement, split.residual)
        self.objects.append(rows)
        self.pairs.append(split.compared())
        self.samples.append((*named, *facts, *changes, *_counts(split, maps, outputs, plane)))
        self.layers.add(split.result.operations)
        for position in self.shown.keys() - self.wanted():
            del self.shown[position]

    def wanted(self) -> set[int]:
        """Positions of the samples to be shown."""
        count = len(self.samples)
        most = heapq.nsmallest(
            DISAGREEING, range(count), lambda p: (-conflict_of(self.samples[p]), p)
        )
        return {*range(min(self.viewer, count)), *most}

    def survey(
        self,
        plane: Plane | None,
        variant: str,
        output: str,
        detection: float | Literal["auto"] = "auto",
        removal: Removal = "zeroed",
    ) -> Survey:
        """The survey of the samples so far."""
        return Survey(
            plane or _pixels(next(iter(self.shown.values())).parts.shape[1:]),
            variant,
            self.parts,
            sorted(self.shown.values(), key=lambda one: one.index),
            [row for rows in self.objects for row in rows],
            self.samples,
            self.layers.rows(),
            self.layers.names,
            output,
            plane is not None,
            detection,
            removal,
            [row for rows in self.pairs for row in rows],
        )


def _counts(
    split: SampleDecomposition,
    maps: SampleMaps,
    outputs: Mapping[Removed, Tensor | None],
    plane: Plane | None,
) -> Iterator[int | None]:
    """The values of :func:`~.removal.count_fields`; ``None`` of what is not known."""
    masks = [maps.plane.mask(outline(box)) for box in split.boxes]
    own = None if plane is None else false_counts(maps.total, maps.total, masks, maps.criterion)[1]
    yield from (own, *split.overlap(split.total))
    for removed, output in outputs.items():
        after = maps.without[removed]
        if after is None or plane is None:
            yield from (None, None)
        else:
            yield from false_counts(maps.total, after, masks, maps.criterion)
        yield from split.overlap(output)


def _pixels(shape: Sequence[int]) -> Plane:
    """Of a map, or of numbers, which are one row."""
    rows, columns = shape if len(shape) == 2 else (1, shape[0])
    return Plane(rows, columns, 0.0, float(columns), 0.0, float(rows))


def _relevant(split: SampleDecomposition, total: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where sensors can disagree: at vehicles; anywhere where the output is not about them."""
    if not split.on_ground or split.ground_truth is None:
        return np.ones(total.shape, dtype=bool)
    predicted = total > split.criterion.threshold
    return predicted | (split.ground_truth.numpy() > 0.5)


def _places(rows: Sequence[Sequence[Any]], vehicles: int) -> list[tuple[float, float]]:
    """Where the detections without an annotation are, metres (right, forward)."""
    right, forward = map(FACT_FIELDS.index, ("right", "forward"))
    return [(row[right], row[forward]) for row in rows[vehicles:]]


def _shown(split: SampleDecomposition, index: int, places: Sequence[tuple[float, float]]) -> Shown:
    outlines = [outline(box) for box in split.boxes]
    parts = np.stack([np.atleast_2d(part.numpy()) for part in split.parts.values()])
    truth = split.ground_truth
    known = np.zeros(parts.shape[1:]) if truth is None else np.atleast_2d(truth.numpy())
    return Shown(
        index,
        split.sample.token,
        split.sample.scene,
        split.description,
        split.moment,
        parts.astype(np.float32),
        known > 0.5,
        np.array(outlines, dtype=np.float32).reshape(-1, 4, 2),
        np.array(split.frames(places), dtype=np.float32).reshape(-1, 5),
        {camera: _jpeg(image) for camera, image in split.pictures.items()},
    )


def _jpeg(image: NDArray[np.floating]) -> bytes:
    """A picture (H, W, 3) in [0, 1]."""
    pixels, buffer = (np.clip(image, 0, 1) * 255).round().astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
