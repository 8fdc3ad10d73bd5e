"""``lmd decompose --detection``: one row of ``detections.csv``, in each sensor's part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lmd_cli.assembly.forward import forward_up, fuse_function
from lmd_cli.config.schema import CustomModelConfig, RunConfig
from lmd_cli.data import Sample
from lmd_cli.decomposition import Decomposition, decompose
from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.errors import ConfigError, MethodError
from lmd_cli.evaluation.detections.counts import Row
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.report.figures.detection import AROUND, Look, detection_figure
from lmd_cli.results.detection_rows import read_detections
from lmd_cli.results.detection_run import ROWS
from lmd_cli.runtime.files import disk_errors, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.decompose import Pictures
from lmd_cli.workflows.detect_examples import best_camera, edges, ring, solid_boxes, views_of
from lmd_cli.workflows.ready import Ready, encode, make_ready


@dataclass(frozen=True)
class OneDetection:
    """What was drawn: the row, and the files."""

    row: Row
    files: list[Path]

    @property
    def lines(self) -> list[str]:
        """What the command prints."""
        row = self.row
        score = "" if row["score"] is None else f", score {row['score']:.2g}"
        return [
            f"detection {row['detection']}: {row['kind']} of {row['class'] or row['category']}, "
            f"{row['outcome'] or 'not matched'}, {row['distance']:.1f} m away{score}",
            f"sample {row['sample']} of {row['scene']}; decided at {row['output']}",
        ]


def draw_detection(
    config: RunConfig,
    number: int,
    detections: Path,
    folder: Path,
    pictures: Pictures,
    progress: Progress | None = None,
) -> OneDetection:
    """Draws ``detection_NUMBER.png``.

    Args:
        number: in ``detections.csv``.
        detections: the folder of ``lmd detect``.
        folder: where the picture goes.

    Raises:
        ResultsError: there is no ``detections.csv``.
        ConfigError: no such row, or one that the network decides nowhere.
        MethodError: a network of the user's own, whose maps lie nowhere.
    """
    if isinstance(config.model, CustomModelConfig):
        raise MethodError(
            "--detection draws the maps of simplebev and crn, which lie on the ground"
        )
    rows = read_detections(detections / ROWS)
    row = _row(rows, number, detections / ROWS)
    ready = make_ready(config, None, progress)
    around = [other for other in rows if other["sample"] == row["sample"]]
    look = _look(ready, row, around)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = []
    for form in pictures.forms:
        files.append(folder / f"detection_{number}.{form}")
        write_atomically(files[-1], detection_figure(look, form))
    return OneDetection(row, files)


def _row(rows: Sequence[Row], number: int, path: Path) -> Row:
    if not 0 <= number < len(rows):
        raise ConfigError(f"{path} has the detections 0 to {len(rows) - 1}, not {number}")
    if not rows[number]["output"]:
        raise ConfigError(
            f"detection {number} is outside the map, or of a class that the network does not have: "
            "no part of the output decides it"
        )
    return rows[number]


def _look(ready: Ready, row: Row, around: Sequence[Row]) -> Look:
    dataset, config = ready.dataset, ready.config
    index = dataset.index_of(row["sample"])
    sample = dataset[index]
    result = _decomposed(ready, sample, row["output"])
    named = {**result.parts, BIAS: result.bias}
    if config.bilinear == INTERACTION:
        named[INTERACTION] = result.interaction
    turned = {
        name: forward_up(ready.built.network, part[0, row["channel"]]).cpu().numpy()
        for name, part in {"prediction": result.total, **named}.items()
    }
    boxes = solid_boxes(dataset, index, around)
    own = next(box for other, box in boxes if other is row)
    pictures, views = dataset.pictures(sample), views_of(sample.tensors, dataset)
    camera = best_camera(own, pictures, views)
    known = [
        box
        for other, box in boxes
        if other["kind"] == "annotation" and np.hypot(*(box.center - own.center)[[0, 2]]) < AROUND
    ]
    image = pictures.get(camera)
    size = (0, 0) if image is None else (image.shape[1], image.shape[0])
    lines = {"box": [own], "annotations": known}
    return Look(
        title=f"Detection {row['detection']}: {row['outcome']}, {row['class']}, "
        f"{row['distance']:.0f} m; sample {row['sample']}; rules {ready.variant}",
        image=image,
        camera=camera,
        total=turned.pop("prediction"),
        parts=turned,
        values=_values(row, ready.variant, result, named),
        plane=plane_of(config),
        centre=(float(own.center[0]), float(own.center[2])),
        in_image={
            name: np.array([s for b in some for s in edges(b, views[camera], size)]).reshape(
                -1, 2, 2
            )
            for name, some in lines.items()
            if image is not None
        },
        on_map={
            name: np.array([s for b in some for s in ring(b)]).reshape(-1, 2, 2)
            for name, some in lines.items()
        },
    )


def _decomposed(ready: Ready, sample: Sample, output: str) -> Decomposition:
    network, config = ready.built.network, ready.config
    precision = config.compute.precision
    features, constants = encode(network, [sample], ready.device, precision)
    return decompose(
        fuse_function(network, output, constants),
        features,
        ready.variant,
        root=network,
        bilinear=config.bilinear,
    )


def _values(
    row: Row, variant: str, result: Decomposition, parts: dict[str, torch.Tensor]
) -> dict[str, float]:
    """At the place: as the row has them, or, of other rules, at the place's middle cell."""
    if all(f"{variant}.{name}" in row for name in parts):
        return {"prediction": row["logit"], **{n: row[f"{variant}.{n}"] for n in parts}}
    at = (0, row["channel"], round(row["row"]), round(row["column"]))
    return {name: float(part[at]) for name, part in {"prediction": result.total, **parts}.items()}
