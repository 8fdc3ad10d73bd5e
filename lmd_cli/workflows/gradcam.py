"""``lmd gradcam``: class activation maps of a layer, and of each sensor's part of it (figure 5)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.assembly.forward import forward_up, fuse_function
from lmd_cli.attribution.cam import ActivationMaps, activation_maps
from lmd_cli.config.schema import CustomModelConfig, RunConfig
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.decomposed_sample import SampleDecomposition, shown
from lmd_cli.evaluation.ground.plane import Array, plane_of
from lmd_cli.evaluation.ground.regions import pixels, rectangle, vehicle
from lmd_cli.report.figures.axes import Format
from lmd_cli.report.figures.cam import CamRequest, _name, _numpy, _part_name, _picture
from lmd_cli.report.figures.generic_cam import generic_picture
from lmd_cli.report.figures.scene import scene_of
from lmd_cli.runtime.files import disk_errors, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.ready import encode, make_ready

Mask = NDArray[np.bool_]


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
        if isinstance(model, CustomModelConfig):
            return shown(maps, model.channel, output)[None, None]
        return forward_up(network, maps)

    result = activation_maps(
        picked,
        features,
        network,
        request.layer,
        torch.from_numpy(region).to(device),
        method=request.method,
        variant=split.variant,
    )
    if not split.on_ground:
        return result
    turned = {name: forward_up(network, part) for name, part in result.parts.items()}
    return replace(result, whole=forward_up(network, result.whole), parts=turned)


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
    return generic_picture(split, panels, corners, request.layer, maps.score, form)
