"""Pictures of some detections, so that each count has one to be looked at."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lmd_cli.assembly.forward import forward_up, fuse_several
from lmd_cli.data import NuScenesSamples
from lmd_cli.data.boxes import Box3D
from lmd_cli.data.crn.truth import EgoBox, turned
from lmd_cli.evaluation.detections.counts import Key, Row, members
from lmd_cli.evaluation.ground.plane import Plane, plane_of
from lmd_cli.evaluation.ground.vehicles import outline
from lmd_cli.report.figures.projection import overlay, perspective_views, reference_views
from lmd_cli.results.detection_run import Example, Outline
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.detect_sample import Setting
from lmd_cli.workflows.ready import encode

#: Pictures for each count, and the most of all.
EACH, MOST = 2, 80
#: Metres around a detection that its map shows.
AROUND = 15.0
JPEG_QUALITY = 80
Segment = tuple[tuple[float, float], tuple[float, float]]
#: Intrinsics, and camera to the map's axes, (4, 4) each.
View = tuple[NDArray[np.floating], NDArray[np.floating]]


def chosen(rows: Sequence[Row], method: str) -> list[Row]:
    """Up to :data:`EACH` detections behind each count, the surest and nearest first."""
    taken: dict[int, Row] = {}
    for _, own in sorted(members(rows, method).items(), key=_rare_first):
        ranked = sorted(own, key=lambda row: (-(row["score"] or 0.0), row["distance"]))
        lacking = EACH - sum(row["detection"] in taken for row in own)
        fresh = [row for row in ranked if row["detection"] not in taken]
        for row in fresh[: max(lacking, 0)]:
            if len(taken) < MOST:
                taken[row["detection"]] = row
    return [taken[number] for number in sorted(taken)]


def _rare_first(item: tuple[Key, list[Row]]) -> tuple[int, Key]:
    return len(item[1]), item[0]


def examples(setting: Setting, rows: Sequence[Row], progress: Progress) -> list[Example]:
    """Each chosen detection in the camera that shows it best, and on the map.

    Raises:
        DataError: a sample cannot be read again.
    """
    picked = chosen(rows, setting.names[0])
    by_sample: dict[str, list[Row]] = {}
    for row in picked:
        by_sample.setdefault(row["sample"], []).append(row)
    progress.start(len(by_sample), "pictures of detections")
    made = []
    try:
        for token, wanted in by_sample.items():
            around = [row for row in rows if row["sample"] == token]
            made += _of_sample(setting, token, wanted, around)
            progress.advance(note=f"sample {token}")
    finally:
        progress.close()
    return made


def _of_sample(
    setting: Setting, token: str, wanted: Sequence[Row], around: Sequence[Row]
) -> list[Example]:
    dataset, network = setting.dataset, setting.built.network
    index = dataset.index_of(token)
    sample = dataset[index]
    features, constants = encode(
        network, [sample], setting.device, setting.config.compute.precision
    )
    outputs = list(dict.fromkeys(row["output"] for row in wanted))
    with torch.no_grad():
        made = fuse_several(network, outputs, constants)(**features)
    maps = {name: forward_up(network, value[0].cpu()).numpy() for name, value in made.items()}
    solid = solid_boxes(dataset, index, around)
    pictures, views = dataset.pictures(sample), views_of(sample.tensors, dataset)
    plane = plane_of(setting.config)
    return [_example(row, solid, pictures, views, maps, plane) for row in wanted]


def solid_boxes(dataset: Any, index: int, rows: Sequence[Row]) -> list[tuple[Row, Box3D]]:
    """Each row of a sample with its box in the axes of the maps."""
    annotated = any(row["kind"] == "annotation" for row in rows)
    boxes = dataset.boxes_on_map(index, dataset.annotations(index)) if annotated else []
    annotations = {box.token: box for box in boxes}
    lift = dataset.camera_height(index) if isinstance(dataset, NuScenesSamples) else 0.0
    return [
        (row, annotations[row["annotation"]] if row["kind"] == "annotation" else _box(row, lift))
        for row in rows
    ]


def views_of(tensors: Mapping[str, Any], dataset: Any) -> Mapping[str, View]:
    """A sample's cameras by name."""
    arrays = {name: value.numpy() for name, value in tensors.items() if hasattr(value, "numpy")}
    cameras = dataset.rig.cameras
    find = perspective_views if "imgs" in arrays else reference_views
    return find(arrays, cameras)


def _box(row: Row, lift: float) -> Box3D:
    """A row's box in the axes of the maps, whose origin is ``lift`` metres above the boxes'."""
    x, y, z, length, width, height, yaw = (
        row[name] for name in ("x", "y", "z", "length", "width", "height", "yaw")
    )
    known = ("", row["class"], row["class"], 0)
    ego = EgoBox(*known, (x, y, z - lift), (length, width, height), yaw, (math.nan, math.nan), 0, 0)
    return turned(ego)


def _example(
    row: Row,
    boxes: Sequence[tuple[Row, Box3D]],
    pictures: Mapping[str, NDArray[np.floating]],
    views: Mapping[str, View],
    maps: Mapping[str, NDArray[np.floating]],
    plane: Plane,
) -> Example:
    own = next(box for other, box in boxes if other is row)
    camera = best_camera(own, pictures, views)
    image = pictures.get(camera)
    near = [
        (other, box)
        for other, box in boxes
        if np.hypot(*(box.center[[0, 2]] - own.center[[0, 2]])) < AROUND
    ]
    size = (0, 0) if image is None else (image.shape[1], image.shape[0])
    return Example(
        detection=row["detection"],
        camera=camera,
        image=None if image is None else _jpeg(image),
        size=size,
        in_image=[
            _outline(other, row, edges(box, views[camera], size))
            for other, box in near
            if image is not None
        ],
        map=_png(maps[row["output"]][row["channel"]]),
        extent=plane.extent,
        on_map=[_outline(other, row, ring(box)) for other, box in near],
        centre=(float(own.center[0]), float(own.center[2])),
    )


def best_camera(box: Box3D, pictures: Mapping[str, Any], views: Mapping[str, View]) -> str:
    """The camera with the box's middle nearest to its own; none if no camera shows it."""
    seen = {}
    for camera, (pix_T_cam, map_T_cam) in views.items():
        at = np.linalg.inv(np.asarray(map_T_cam, dtype=np.float64)) @ np.append(box.center, 1.0)
        u, v, depth = np.asarray(pix_T_cam, dtype=np.float64)[:3, :3] @ at[:3]
        height, width = pictures[camera].shape[:2]
        if depth > 1.0 and 0 <= u / depth < width and 0 <= v / depth < height:
            seen[camera] = abs(u / depth / width - 0.5)
    return min(seen, key=lambda camera: seen[camera], default="")


def edges(box: Box3D, view: View, size: tuple[int, int]) -> list[Segment]:
    """A box's lines in an image of (width, height) pixels."""
    pix_T_cam, map_T_cam = view
    none = np.zeros((0, 3))
    return _segments(overlay([box], none, pix_T_cam, map_T_cam, (size[1], size[0])).segments)


def ring(box: Box3D) -> list[Segment]:
    """A box's lines from above, metres (right, forward)."""
    corners = outline(box)
    return _segments(np.stack([corners, np.roll(corners, -1, axis=0)], axis=1))


def _segments(pairs: NDArray[np.floating]) -> list[Segment]:
    """Pairs of points (n, 2, 2) as plain numbers to two digits."""
    rounded = np.round(pairs.astype(np.float64), 2).tolist()
    return [((a[0], a[1]), (b[0], b[1])) for a, b in rounded]


def _outline(other: Row, row: Row, lines: list[Segment]) -> Outline:
    shown = other["detection"] == row["detection"]
    return Outline(outcome=other["outcome"], kind=other["kind"], shown=shown, lines=lines)


def _jpeg(image: NDArray[np.floating]) -> str:
    pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return _encoded(Image.fromarray(pixels), "JPEG", quality=JPEG_QUALITY)


def _png(values: NDArray[np.floating]) -> str:
    """Logits (rows forward, columns right) from blue through white to red, forward up."""
    scale = float(np.quantile(np.abs(values), 0.999)) or 1.0
    level = np.clip(values / scale, -1, 1)[::-1]
    fade = 1 - np.abs(level)
    red, blue = np.where(level > 0, 1.0, fade), np.where(level < 0, 1.0, fade)
    pixels = np.stack([red, fade, blue], axis=-1)
    return _encoded(Image.fromarray((pixels * 255).round().astype(np.uint8)), "PNG")


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
