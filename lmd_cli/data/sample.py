"""One sample as named tensors, and how samples are put into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

#: Tensors whose first dimension is a number of points that differs between samples.
POINT_TENSORS = ("radar_xyz", "radar_features", "lidar_xyz")


@dataclass(frozen=True, eq=False)
class Sample:
    """One keyframe, unbatched.

    Attributes:
        token: the sample's nuScenes token.
        scene: its scene's name, e.g. ``scene-0103``; empty where there are no scenes.
        tensors: by name, all float32. Of :class:`~lmd_cli.data.simplebev.samples.NuScenesSamples`
            (reference camera's axes: x right, y down, z forward):

            - ``images`` (6, 3, H, W), pixels in [0, 1] minus 0.5; cameras in the order of
              :data:`lmd_cli.data.nuscenes.database.CAMERAS`, the reference camera first
            - ``pix_T_cams`` (6, 4, 4), intrinsics for the resized image, pixels
            - ``cam0_T_camXs`` (6, 4, 4), each camera to the reference camera, metres
            - ``radar_xyz`` (n, 3), metres, and ``radar_features`` (n, 16): the devkit's other
              fifteen fields, then the time lag in seconds; only with the radar
            - ``lidar_xyz`` (n, 3), metres; only with the LiDAR
            - ``segmentation``, ``valid``, ``center`` (1, Z, X) and ``offset`` (2, Z, X), see
              :func:`lmd_cli.data.simplebev.truth.vehicle_truth`

            Of :class:`~lmd_cli.data.crn.KeyframeSamples` (S key frames, the current one
            first; cameras in the order of ``PERSPECTIVE_CAMERAS``; ego frame: x forward, y left,
            z up):

            - ``imgs`` (S, 6, 3, H, W), normalised
            - ``sensor2ego_mats`` (S, 6, 4, 4), each camera to the current ego frame, metres;
              ``intrin_mats`` (S, 6, 4, 4), pixels of the camera; ``ida_mats`` (S, 6, 4, 4),
              these to pixels of ``imgs``; ``bda_mat`` (4, 4), identity
            - ``pts_pv`` (S, 6, P, 5), radar points in the perspective view, see
              :func:`lmd_cli.data.crn.radar.network_rows`; only with the radar
            - ``cars`` and ``vehicles`` (1, ny, nx), see
              :func:`lmd_cli.data.crn.truth.map_truth`
    """

    token: str
    scene: str
    tensors: dict[str, Tensor]
    #: The tensors are a batch of one already, made by a data set of the user's own.
    batched: bool = False

    @property
    def name(self) -> str:
        """``TOKEN of SCENE``, or the token where there are no scenes."""
        return f"{self.token} of {self.scene}" if self.scene else self.token


def collate(samples: Sequence[Sample]) -> dict[str, Tensor | list[Tensor]]:
    """Batch samples: tensors of fixed size get a leading B, point tensors become lists of B.

    Raises:
        ValueError: no samples, or samples that do not hold the same tensors.
    """
    if not samples:
        raise ValueError("collate needs at least one sample")
    if samples[0].batched:
        if len(samples) > 1:
            raise ValueError("samples that are batches already cannot be joined")
        return dict(samples[0].tensors)
    names = list(samples[0].tensors)
    for sample in samples:
        if list(sample.tensors) != names:
            held = ", ".join(sample.tensors)
            raise ValueError(f"sample {sample.token} holds {held}; the first has {names}")
    return {name: _join(name, [sample.tensors[name] for sample in samples]) for name in names}


def _join(name: str, tensors: list[Tensor]) -> Tensor | list[Tensor]:
    return tensors if name in POINT_TENSORS else torch.stack(tensors)


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A collated batch with every tensor, also nested ones, on ``device``.

    Tensors in page-locked memory are copied to a GPU while the CPU goes on.
    """

    def moved(value: Any) -> Any:
        return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

    return pytree.tree_map(moved, dict(batch))
