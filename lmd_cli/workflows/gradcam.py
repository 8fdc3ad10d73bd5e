"""``lmd gradcam``: class activation maps of a layer, and of each sensor's part of it (figure 5)."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from lmd_cli.report.figures.styles import Map
from lmd_cli.results.write_once import write_results
from lmd_cli.runtime.files import file_name
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.decompose import request_of
from lmd_cli.workflows.ready import encode, make_ready

Mask = NDArray[np.bool_]
#: Part (empty for the whole layer), label, map.
Panel = tuple[str, str, Map]


@dataclass(frozen=True)
class DrawnMaps:
    """What :func:`write_gradcam` wrote.

    Attributes:
        files: paths.
        score: sum of the output over the region.
        largest: largest value of each map on the output's cells, as the figure shows it.
    """

    files: list[Path]
    score: float
    largest: dict[str, float]


def write_gradcam(
    config: RunConfig,
    token: str | None,
    request: CamRequest,
    folder: Path | None = None,
    progress: Progress | None = None,
    forms: Sequence[Format] = ("png",),
    *,
    overwrite: bool = False,
) -> DrawnMaps:
    """Writes ``gradcam.npz`` (the layer's own grid), ``gradcam.png`` (or the other ``forms``) and
    ``gradcam.json``, what was asked.

    Args:
        folder: none for ``results/CONFIG/gradcam/SAMPLE/REQUEST``.
        overwrite: also the results of another request.

    Raises:
        LmdError: unknown sample, layer, object or modality, or a region outside the grid.
        ResultsError: the folder holds the results of another request.
        RunError: the disk is full or the folder cannot be written.
    """
    _require(request, config)
    ready = make_ready(config, None, progress)
    split = ready.decompose(0 if token is None else ready.dataset.index_of(token))
    region, corners = _region_of(request, split)
    maps = _maps(split, request, region, ready.device)
    panels = _panels(split, maps, request)
    asked = {**request_of(split), "request": asdict(request)}
    contents = {"gradcam.npz": _npz(maps, region)}
    for form in forms:
        contents[f"gradcam.{form}"] = _drawn(split, maps, panels, corners, request, form)
    contents["gradcam.json"] = json.dumps(asked, indent=2).encode() + b"\n"
    usual = Path("results") / config.name / "gradcam" / file_name(split.sample.token)
    target = folder or usual / folder_name(request)
    files = write_results(target, "gradcam.json", asked, contents, overwrite=overwrite)
    largest = {name or "the layer": float(values.max()) for name, _, values in panels}
    return DrawnMaps(files, maps.score, largest)


def folder_name(request: CamRequest) -> str:
    """What was asked of a sample, as a folder's name."""
    method = None if request.method == "gradcam" else request.method
    asked = (request.layer, method, request.target, request.region, request.modality)
    return file_name("-".join(word for word in asked if word is not None))


def _require(request: CamRequest, config: RunConfig) -> None:
    names = config.model.modalities
    if request.region is not None and request.target is not None:
        raise ConfigError("give --region or --object, not both")
    if request.modality is not None and request.modality not in names:
        raise ConfigError(f"modality {request.modality!r} is not one of {', '.join(names)}")


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


def _panels(split: SampleDecomposition, maps: ActivationMaps, request: CamRequest) -> list[Panel]:
    """The layer's map, and each sensor's that is asked for, on the output's cells."""
    size = tuple(split.total.shape)
    wanted = [name for name in maps.parts if request.modality in (None, name)]
    parts = [(n, _part_name(n, request), _numpy(maps.parts[n], size)) for n in wanted]
    return [("", _name(request), _numpy(maps.whole, size)), *parts]


def _drawn(
    split: SampleDecomposition,
    maps: ActivationMaps,
    panels: list[Panel],
    corners: Array | None,
    request: CamRequest,
    form: Format,
) -> bytes:
    """The figure."""
    if split.on_ground:
        return _picture(scene_of(split), maps, panels, corners, request, form)
    return generic_picture(split, panels, corners, request.layer, maps.score, form)
