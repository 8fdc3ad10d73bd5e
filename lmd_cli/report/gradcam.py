"""Figure 5: what a layer's activations, and each sensor's part of them, give to a region."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.attribution.cam import ActivationMaps, Method, activation_maps, on_grid
from lmd_cli.config import OwnModelConfig, RunConfig
from lmd_cli.contract import forward_up, fuse_function
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.results import disk_errors, write_atomically
from lmd_cli.progress import Progress
from lmd_cli.report.drawing import (
    DPI,
    draw_images,
    draw_map,
    draw_vehicles,
    figure_bytes,
    own_settings,
)
from lmd_cli.report.looks import Map, from_white, positive_normalised
from lmd_cli.report.plane import Array, Plane, plane_of
from lmd_cli.report.regions import rectangle, vehicle
from lmd_cli.report.sample import scene_of
from lmd_cli.report.scene import Scene
from lmd_cli.single import SampleDecomposition, encode, make_ready

Mask = NDArray[np.bool_]
WIDTH = 13.0


@dataclass(frozen=True)
class CamRequest:
    """What to explain, where.

    Attributes:
        layer: qualified name.
        region: ``x0,y0,x1,y1`` in metres, or
        target: the token of an annotated vehicle; all cells if neither.
        method: where the weights come from.
        modality: the only sensor to draw; all if none.
    """

    layer: str
    region: str | None = None
    target: str | None = None
    method: Method = "gradcam"
    modality: str | None = None


def write_gradcam(
    config: RunConfig,
    token: str | None,
    request: CamRequest,
    folder: Path,
    progress: Progress | None = None,
) -> tuple[list[Path], ActivationMaps]:
    """Writes ``gradcam.npz`` (the layer's own grid) and ``gradcam.png``.

    Raises:
        LmdError: unknown sample, layer, object or modality, or a region outside the grid.
        RunError: the disk is full or the folder cannot be written.
    """
    _require(request, config)
    ready = make_ready(config, None, progress)
    split = ready.decompose(0 if token is None else ready.dataset.index_of(token))
    plane = plane_of(config)
    corners = _corners(request, split, plane)
    region = plane.mask(corners) if corners is not None else np.ones(split.total.shape, bool)
    maps = _maps(split, request, region, ready.device)
    shown = {name: m for name, m in maps.parts.items() if request.modality in (None, name)}
    contents = {
        "gradcam.npz": _npz(maps, region),
        "gradcam.png": _picture(scene_of(split), maps, shown, corners, request),
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        write_atomically(folder / name, data)
    return [folder / name for name in contents], maps


def _require(request: CamRequest, config: RunConfig) -> None:
    names = config.model.modalities
    if isinstance(config.model, OwnModelConfig):
        raise ConfigError(
            f"lmd gradcam draws maps on the ground, and {config.model.target} is not known to give "
            "any; in Python, lmd_cli.attribution.cam.activation_maps takes any network"
        )
    if request.region is not None and request.target is not None:
        raise ConfigError("give --region or --object, not both")
    if request.modality is not None and request.modality not in names:
        raise ConfigError(f"modality {request.modality!r} is none of {', '.join(names)}")


def _corners(request: CamRequest, split: SampleDecomposition, plane: Plane) -> Array | None:
    if request.target is not None:
        return vehicle(request.target, split.boxes, plane)
    return None if request.region is None else rectangle(request.region, plane)


def _maps(
    split: SampleDecomposition, request: CamRequest, region: Mask, device: torch.device
) -> ActivationMaps:
    network, output = split.built.network, split.config.model.output
    features, constants = encode(network, [split.sample], device)
    fuse = fuse_function(network, output, constants)
    found = activation_maps(
        lambda **features: forward_up(network, fuse(**features)),
        features,
        network,
        request.layer,
        torch.from_numpy(region).to(device),
        method=request.method,
        variant=split.variant,
    )
    turned = {name: forward_up(network, part) for name, part in found.parts.items()}
    return replace(found, whole=forward_up(network, found.whole), parts=turned)


def _npz(maps: ActivationMaps, region: Mask) -> bytes:
    arrays = {"whole": maps.whole, **maps.parts, "weights": maps.weights}
    plain = {name: value.cpu().numpy() for name, value in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, region=region, **plain)
    return buffer.getvalue()


def _picture(
    scene: Scene,
    maps: ActivationMaps,
    shown: Mapping[str, Tensor],
    corners: Array | None,
    request: CamRequest,
) -> bytes:
    """Images above; prediction, the layer's map, and each sensor's map below."""
    size = scene.total.shape
    panels: list[tuple[str, str, Map]] = [("prediction", "fused prediction", scene.total)]
    panels.append(("", f"{request.method} of the layer", _numpy(maps.whole, size)))
    panels += [(n, f"{n}-{request.method}", _numpy(maps.parts[n], size)) for n in shown]
    top = max(float(values.max()) for _, _, values in panels[1:]) or 1.0
    with own_settings():
        figure = Figure(figsize=(WIDTH, 8.9), dpi=DPI, facecolor="white")
        grid = figure.add_gridspec(1, 1, left=0.01, right=0.99, bottom=0.45, top=0.93)
        draw_images(figure, grid[0], scene)
        cells = figure.add_gridspec(
            1, len(panels), left=0.04, right=0.99, bottom=0.07, top=0.41, wspace=0.06
        )
        for index, (name, title, values) in enumerate(panels):
            axes = figure.add_subplot(cells[0, index])
            scaled = positive_normalised(values)[0] if index == 0 else values / top
            draw_map(axes, scene, scaled, from_white(name), (0.0, 1.0))
            draw_vehicles(axes, scene, "#8a8a8a")
            _region(axes, corners)
            if index:
                axes.set_yticklabels([])
            note = "" if index == 0 else f" (max {float(values.max()):.3g})"
            axes.set_title(f"{title}{note}", fontsize=9.5, pad=4, parse_math=False)
        where = "the framed region" if corners is not None else "the whole map"
        figure.text(0.5, 0.975, f"{scene.title}, layer {request.layer}", ha="center", va="top")
        figure.text(
            *(0.01, 0.02),
            f"Score: sum of the logits over {where} = {maps.score:.4g}. The activation maps share "
            "one scale; the prediction shows its positive values. Axes in metres.",
            fontsize=8,
        )
        return figure_bytes(figure, "png")


def _region(axes: Axes, corners: Array | None) -> None:
    if corners is not None:
        axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor="#c00078", lw=1.4))


def _numpy(values: Tensor, size: tuple[int, ...]) -> Map:
    """A layer's map on the output's cells."""
    return on_grid(values, (size[0], size[1])).cpu().numpy()
