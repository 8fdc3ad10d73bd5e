"""Figure 5: what a layer's activations, and each sensor's part of them, give to a region."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.assembly.forward import forward_up, fuse_function
from lmd_cli.attribution.cam import ActivationMaps, Method, activation_maps, on_grid
from lmd_cli.config.schema import OwnModelConfig, RunConfig
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.decomposed_sample import SampleDecomposition
from lmd_cli.evaluation.ground.plane import Array, plane_of
from lmd_cli.evaluation.ground.regions import pixels, rectangle, vehicle
from lmd_cli.report.figures.axes import Format, draw_map, draw_vehicles, figure_bytes, own_settings
from lmd_cli.report.figures.generic_cam import own_picture
from lmd_cli.report.figures.scene import Scene
from lmd_cli.report.figures.sheet import WIDTH, image_note, make_sheet, title_size
from lmd_cli.report.figures.styles import Map, from_white, part_title, positive_normalised
from lmd_cli.report.sample import scene_of
from lmd_cli.results.run_folder import disk_errors, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.shown import shown
from lmd_cli.single import encode, make_ready

Mask = NDArray[np.bool_]
#: Methods as the paper writes them.
NAMES = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "scorecam": "Score-CAM"}


@dataclass(frozen=True)
class CamRequest:
    """What to explain, where.

    Attributes:
        layer: qualified name.
        region: ``x0,y0,x1,y1`` in metres, or in pixels of a map that is not on the ground; or
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
    region, corners = _region_of(request, split)
    maps = _maps(split, request, region, ready.device)
    contents = {"gradcam.npz": _npz(maps, region)}
    for form in forms:
        contents[f"gradcam.{form}"] = _drawn(split, maps, corners, request, form)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        write_atomically(folder / name, data)
    return [folder / name for name in contents], maps


def _require(request: CamRequest, config: RunConfig) -> None:
    names = config.model.modalities
    if request.region is not None and request.target is not None:
        raise ConfigError("give --region or --object, not both")
    if request.modality is not None and request.modality not in names:
        raise ConfigError(f"modality {request.modality!r} is none of {', '.join(names)}")


def _region_of(request: CamRequest, split: SampleDecomposition) -> tuple[Mask, Array | None]:
    """The cells that are explained, and their outline, if they are not all."""
    everything = np.ones(split.total.shape, bool)
    if not split.on_ground:
        return _pixels_of(request, split) or (everything, None)
    plane = plane_of(split.config)
    if request.target is not None:
        corners = vehicle(request.target, split.boxes, plane)
    elif request.region is not None:
        corners = rectangle(request.region, plane)
    else:
        return everything, None
    return plane.mask(corners), corners


def _pixels_of(request: CamRequest, split: SampleDecomposition) -> tuple[Mask, Array] | None:
    """The same where the map does not lie on the ground.

    Raises:
        ConfigError: an object, for none is known there; or an output that is no map.
    """
    if request.target is not None:
        raise ConfigError("--object needs annotated vehicles; give --region in pixels of the map")
    if split.total.ndim != 2:
        raise ConfigError(
            f"output {split.config.model.output} is {split.total.numel()} numbers and no map; "
            "lmd gradcam draws maps"
        )
    rows, columns = split.total.shape
    return None if request.region is None else pixels(request.region, (rows, columns))


def _maps(
    split: SampleDecomposition, request: CamRequest, region: Mask, device: torch.device
) -> ActivationMaps:
    network, model, output = split.built.network, split.config.model, split.config.model.output
    features, constants = encode(network, [split.sample], device)
    fuse = fuse_function(network, output, constants)

    def picked(**features: Any) -> Tensor:  # (1, 1, rows, columns), as it is shown
        maps = fuse(**features)
        if isinstance(model, OwnModelConfig):
            return shown(maps, model.channel, output)[None, None]
        return forward_up(network, maps)

    found = activation_maps(
        picked,
        features,
        network,
        request.layer,
        torch.from_numpy(region).to(device),
        method=request.method,
        variant=split.variant,
    )
    if not split.on_ground:
        return found
    turned = {name: forward_up(network, part) for name, part in found.parts.items()}
    return replace(found, whole=forward_up(network, found.whole), parts=turned)


def _npz(maps: ActivationMaps, region: Mask) -> bytes:
    arrays = {"whole": maps.whole, **maps.parts, "weights": maps.weights}
    plain = {name: value.cpu().numpy() for name, value in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, region=region, **plain)
    return buffer.getvalue()


def _drawn(
    split: SampleDecomposition,
    maps: ActivationMaps,
    corners: Array | None,
    request: CamRequest,
    form: Format,
) -> bytes:
    """The figure; the layer's map, and each sensor's that is asked for, on the output's cells."""
    size = tuple(split.total.shape)
    panels = [("", _name(request), _numpy(maps.whole, size))]
    wanted = [name for name in maps.parts if request.modality in (None, name)]
    panels += [(n, _part_name(n, request), _numpy(maps.parts[n], size)) for n in wanted]
    if split.on_ground:
        return _picture(scene_of(split), maps, panels, corners, request, form)
    return own_picture(split, panels, corners, request.layer, maps.score, form)


def _picture(
    scene: Scene,
    maps: ActivationMaps,
    panels: list[tuple[str, str, Map]],
    corners: Array | None,
    request: CamRequest,
    form: Format,
) -> bytes:
    """Images above; prediction, the layer's map, and each sensor's map below."""
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
