"""Figure 5: what a layer's activations, and each sensor's part of them, give to a region."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.attribution.cam import ActivationMaps, Method, activation_maps, on_grid
from lmd_cli.config import OwnModelConfig, RunConfig
from lmd_cli.contract import forward_up, fuse_function
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.results import disk_errors, write_atomically
from lmd_cli.progress import Progress
from lmd_cli.report.drawing import Format, draw_map, draw_vehicles, figure_bytes, own_settings
from lmd_cli.report.looks import Map, from_white, part_title, positive_normalised
from lmd_cli.report.plane import Array, Plane, plane_of
from lmd_cli.report.regions import rectangle, vehicle
from lmd_cli.report.sample import scene_of
from lmd_cli.report.scene import Scene
from lmd_cli.report.sheet import WIDTH, image_note, make_sheet, title_size
from lmd_cli.single import SampleDecomposition, encode, make_ready

Mask = NDArray[np.bool_]
#: Methods as the paper writes them.
NAMES = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "scorecam": "Score-CAM"}


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
    forms: Sequence[Format] = ("png",),
) -> tuple[list[Path], ActivationMaps]:
    """Writes ``gradcam.npz`` (the layer's own grid) and ``gradcam.png`` (or the other ``forms``).

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
    scene, contents = scene_of(split), {"gradcam.npz": _npz(maps, region)}
    for form in forms:
        picture = _picture(scene, maps, shown, corners, request, form)
        contents[f"gradcam.{form}"] = picture
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
    form: Format,
) -> bytes:
    """Images above; prediction, the layer's map, and each sensor's map below."""
    size = scene.total.shape
    panels = [("", _name(request), _numpy(maps.whole, size))]
    panels += [(n, _part_name(n, request), _numpy(maps.parts[n], size)) for n in shown]
    top = max(float(values.max()) for _, _, values in panels)
    with own_settings():
        title = f"{scene.title}, layer {request.layer}"
        text = _text(scene, maps, corners, top)
        sheet = make_sheet(scene, 1 + len(panels), title, text, False)
        positive, largest = positive_normalised(scene.total)
        panels = [("prediction", "fused prediction", positive), *panels]
        for index, (name, label, values) in enumerate(panels):
            axes = sheet.figure.add_subplot(sheet.cells[index])
            scaled = values / (top or 1.0) if index else values
            draw_map(axes, scene, scaled, from_white(name), (0.0, 1.0))
            draw_vehicles(axes, scene, "#8a8a8a")
            _region(axes, corners)
            axes.set_xlabel("right (m)", labelpad=1)
            if index:
                axes.set_yticklabels([])
            else:
                axes.set_ylabel("forward (m)", labelpad=0)
            note = f" (max {float(values.max()) if index else largest:.3g})"
            letters = title_size(WIDTH / len(panels))
            axes.set_title(f"{label}{note}", fontsize=letters, pad=4, parse_math=False)
        return figure_bytes(sheet.figure, form)


def _name(request: CamRequest) -> str:
    """``Seg-Grad-CAM`` and its kin where the score is of some cells only."""
    somewhere = request.region is not None or request.target is not None
    return f"{'Seg-' if somewhere else ''}{NAMES[request.method]}"


def _part_name(part: str, request: CamRequest) -> str:
    """``Radar-GradCAM``, as the paper writes it."""
    shown = part_title(part)
    return f"{shown[0].upper()}{shown[1:]}-{NAMES[request.method].replace('-CAM', 'CAM')}"


def _text(scene: Scene, maps: ActivationMaps, corners: Array | None, top: float) -> list[str]:
    where = "the framed region" if corners is not None else "the whole map"
    return [
        f"Dark: activations of this layer that raise the score, the sum of the logits over {where} "
        f"({maps.score:.4g}). The activation maps share one scale, white (0) to darkest "
        f"({top:.3g}); the prediction shows its positive logits. Axes in metres, forward is up; "
        "triangle: ego vehicle.",
        f"Outlines: annotated vehicles{image_note([scene])}.",
    ]


def _region(axes: Axes, corners: Array | None) -> None:
    if corners is not None:
        axes.add_patch(Polygon(corners, closed=True, fill=False, edgecolor="#c00078", lw=1.4))


def _numpy(values: Tensor, size: tuple[int, ...]) -> Map:
    """A layer's map on the output's cells."""
    return on_grid(values, (size[0], size[1])).cpu().numpy()
