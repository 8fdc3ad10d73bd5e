"""``lmd layers`` and ``lmd objects``: what ``--layer`` and ``--object`` of other commands take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmd_cli.assembly.build import build_dataset
from lmd_cli.config.schema import CustomModelConfig, RunConfig
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.evaluation.ground.vehicles import outline
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.inspect import at_sample


@dataclass(frozen=True)
class Layer:
    """A module that gives one map for each channel.

    Attributes:
        name: qualified; ``NAME#2`` the second time that it runs.
        kind: its class.
        shape: channels, rows and columns of its output.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class AnnotatedObject:
    """A vehicle of a sample.

    Attributes:
        token: the annotation's.
        category: e.g. ``vehicle.car``.
        distance: of its middle from the vehicle, metres on the ground.
        visibility: nuScenes level, 0 where unknown.
        on_map: whether it covers a cell of the output's map.
    """

    token: str
    category: str
    distance: float
    visibility: int
    on_map: bool


def list_layers(
    config: RunConfig, token: str | None = None, progress: Progress | None = None
) -> list[Layer]:
    """Modules behind the encoders whose output is (1, K, h, w), in the order in which they run.

    Args:
        token: of the sample that is run; the first if none.

    Raises:
        LmdError: what the building of data and network raises, or an unknown token.
    """
    network, fuse, features = at_sample(config, token, progress)
    with _watched(network) as runs, torch.no_grad():
        fuse(**features)
    return [
        Layer(name if len(shapes) == 1 else f"{name}#{run}", kind, shape)
        for (name, kind), shapes in runs.items()
        for run, shape in enumerate(shapes, start=1)
        if shape is not None
    ]


@contextmanager
def _watched(
    network: nn.Module,
) -> Iterator[dict[tuple[str, str], list[tuple[int, int, int] | None]]]:
    """For each module (name, class) the shapes that it gives in the block; none for other things
    than maps."""
    runs: dict[tuple[str, str], list[tuple[int, int, int] | None]] = {}

    def hook(name: str) -> Any:
        def note(module: nn.Module, _: Any, output: Any) -> None:
            maps = isinstance(output, Tensor) and output.ndim == 4 and len(output) == 1
            shape = (output.shape[1], output.shape[2], output.shape[3]) if maps else None
            runs.setdefault((name, type(module).__name__), []).append(shape)

        return note

    handles = [m.register_forward_hook(hook(name)) for name, m in network.named_modules() if name]
    try:
        yield runs
    finally:
        for handle in handles:
            handle.remove()


def list_objects(
    config: RunConfig, token: str | None = None, progress: Progress | None = None
) -> list[AnnotatedObject]:
    """A sample's annotated vehicles, the nearest first.

    Args:
        token: of the sample; the first if none.

    Raises:
        LmdError: what the building of the data set raises, or an unknown token.
    """
    dataset = build_dataset(config, progress)
    boxes = dataset.boxes_on_map(0 if token is None else dataset.index_of(token))
    plane = None if isinstance(config.model, CustomModelConfig) else plane_of(config)
    objects = [
        AnnotatedObject(
            box.token,
            box.category,
            float(np.hypot(box.center[0], box.center[2])),
            box.visibility,
            plane is not None and bool(plane.mask(outline(box)).any()),
        )
        for box in boxes
    ]
    return sorted(objects, key=lambda one: one.distance)
