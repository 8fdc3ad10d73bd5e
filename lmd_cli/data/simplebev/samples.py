"""A split of a nuScenes root as a dataset of named tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.interventions import BoxRemoval, RemovalSettings, Removed, removal_of
from lmd_cli.data.nuscenes.database import Annotation, SampleRecord, SensorFrame
from lmd_cli.data.nuscenes.files import data_file
from lmd_cli.data.nuscenes.images import ImageEdit, load_image
from lmd_cli.data.nuscenes.index.splits import Split
from lmd_cli.data.nuscenes.lidar_files import read_lidar
from lmd_cli.data.nuscenes.radar_files import RadarFields, RadarFilters, read_radar
from lmd_cli.data.nuscenes.rig import Channels
from lmd_cli.data.nuscenes.split import SplitSamples, check_modalities
from lmd_cli.data.sample import Sample
from lmd_cli.data.simplebev.images import cam0_T_ego, camera_tensors
from lmd_cli.data.simplebev.lidar import lidar_for_network, lidar_points
from lmd_cli.data.simplebev.radar import radar_for_network, radar_points
from lmd_cli.data.simplebev.truth import camera_boxes, vehicle_truth
from lmd_cli.geometry import Grid

MODALITIES = ("camera", "radar", "lidar")
#: Axes x forward, y left, z up to a camera's x right, y down, z forward.
CAMERA_T_MAP = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])


class NuScenesSamples(SplitSamples):
    """The keyframes of a split, ordered by (scene token, timestamp).

    Loads what SimpleBEV's own loader yields at validation.

    Args:
        dataroot: the nuScenes root, which holds ``samples``, ``sweeps`` and the version's tables.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val`` or ``mini_val``, or names of scenes.
        modalities: of "camera", "radar", "lidar". Images are always loaded.
        nsweeps: sweeps of each radar and of the LiDAR, the keyframe's included.
        image_size: (H, W) to resize images to, pixels.
        grid: the grid of the ground truth.
        radar_filters: states of radar points to keep; all by default.
        radar_fields: what stands for nuScenes' fields in the files of another radar.
        channels: cameras, radars and LiDARs to read; those of nuScenes' that the tables have by
            default.
        progress: called with (finished steps, all steps) where the tables have to be indexed.

    Raises:
        DataError: data root, version, split or channel not found (says what is there), a split
            without a scene in this version, or tables that are none.
        ValueError: an unknown modality or less than one sweep.
    """

    def __init__(
        self,
        dataroot: Path | str,
        version: str,
        split: Split,
        *,
        modalities: Sequence[str],
        nsweeps: int,
        image_size: tuple[int, int],
        grid: Grid,
        radar_filters: RadarFilters | None = None,
        radar_fields: RadarFields | None = None,
        channels: Channels | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        check_modalities(modalities, MODALITIES)
        if nsweeps < 1:
            raise ValueError(f"nsweeps must be at least 1, not {nsweeps}")
        super().__init__(
            dataroot,
            version,
            split,
            modalities=modalities,
            radar_sweeps=nsweeps if "radar" in modalities else 0,
            lidar_sweeps=nsweeps if "lidar" in modalities else 1,
            channels=channels,
            progress=progress,
        )
        self.modalities = tuple(modalities)
        self.image_size = image_size
        self.grid = grid
        self.radar_filters = radar_filters
        self.radar_fields = radar_fields

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            DataError: a file is missing, truncated or of another kind; names it and the sample.
            IndexError: no such index.
        """
        record = self._records[index]
        tensors = camera_tensors(self.dataroot, record.cameras, self.image_size, record.token)
        tensors |= self._points(record)
        if self.annotated:
            tensors |= vehicle_truth(self.boxes(index), self.grid)
        return Sample(record.token, record.scene, tensors)

    def without(
        self, clean: Sample, index: int, token: str, modality: str, settings: RemovalSettings
    ) -> Removed:
        """A sample without one annotated vehicle in one sensor's data.

        Args:
            clean: the sample as it is.
            index: its number.
            token: the annotation's.
            modality: "camera", "radar" or "lidar".
            settings: how the evidence is taken away.

        Raises:
            DataError: a file is missing or damaged.
        """
        record = self._records[index]
        removal = removal_of([record], token, settings)
        if modality == "camera":
            images = self._images_without(clean.tensors["images"], record, removal)
            changed = {"images": images}
        else:
            changed = self._points(record, {modality: removal})
        sample = Sample(clean.token, clean.scene, {**clean.tensors, **changed})
        return Removed(sample, removal.amount, removal.clipped)

    def _images_without(self, images: Tensor, record: SampleRecord, removal: BoxRemoval) -> Tensor:
        """The images (S, 3, H, W), those that show an object read again without it."""

        def read(camera: SensorFrame, edit: ImageEdit) -> Tensor:
            return load_image(
                data_file(self.dataroot, camera.filename, record.token),
                self.image_size,
                token=record.token,
                recorded=(camera.width, camera.height),
                edit=edit,
            )

        return removal.images(images, record.cameras, read)

    def _points(
        self, record: SampleRecord, removals: Mapping[str, BoxRemoval] | None = None
    ) -> dict[str, Tensor]:
        """Point tensors of the modalities that have them, in the reference camera's axes; only of
        those with a removal, if any is given."""
        chosen = self.modalities if removals is None else tuple(removals)
        edits = {name: removal.points for name, removal in (removals or {}).items()}
        to_camera = cam0_T_ego(record.cameras)
        tensors = {}
        if "radar" in chosen:
            read = (self.radar_filters, self.radar_fields)
            edit = partial(edits["radar"], flat=True) if "radar" in edits else None
            points = radar_points(self.dataroot, record, *read, edit)
            xyz, features = radar_for_network(points, to_camera)
            tensors["radar_xyz"] = torch.from_numpy(xyz)
            tensors["radar_features"] = torch.from_numpy(features)
        if "lidar" in chosen:
            cloud = lidar_points(self.dataroot, record, edits.get("lidar"))
            xyz = lidar_for_network(cloud, to_camera)
            tensors["lidar_xyz"] = torch.from_numpy(xyz)
        return tensors

    def pictures(self, sample: Sample) -> dict[str, NDArray[np.float32]]:
        """A sample's images for a reader, by camera (H, W, 3), red, green, blue in [0, 1]."""
        images = (sample.tensors["images"] + 0.5).permute(0, 2, 3, 1).numpy()  # (S, H, W, 3)
        return dict(zip(self.rig.cameras, images, strict=True))

    def global_T_map(self, index: int) -> NDArray[np.float64]:
        """The pose of the maps on the ground, (4, 4): x forward and y left of the reference camera,
        the origin on the ground below it."""
        record = self._records[index]
        ego_T_map = self._ego_T_camera(index) @ CAMERA_T_MAP
        ego_T_map[2, 3] = 0.0
        return record.reference.global_T_ego() @ ego_T_map

    def camera_height(self, index: int) -> float:
        """Of the reference camera, whose axes the maps have, above the ground, metres."""
        return float(self._ego_T_camera(index)[2, 3])

    def _ego_T_camera(self, index: int) -> NDArray[np.float64]:
        return np.linalg.inv(cam0_T_ego(self._records[index].cameras).astype(np.float64))

    def boxes(self, index: int, others: Sequence[Annotation] | None = None) -> list[Box3D]:
        """The sample's annotated vehicles, or others, in the reference camera's axes; opens no data
        file."""
        record = self._records[index]
        record = record if others is None else replace(record, vehicles=tuple(others))
        return camera_boxes(record, cam0_T_ego(record.cameras))

    def boxes_on_map(self, index: int, others: Sequence[Annotation] | None = None) -> list[Box3D]:
        """:meth:`boxes`, whose axes are those of the maps: x right, z forward."""
        return self.boxes(index, others)

    def read_file(self, channel: str, name: str) -> None:
        """See :meth:`SplitSamples.read_file`."""
        path = data_file(self.dataroot, name, None)
        if channel in self.rig.cameras:
            load_image(path, self.image_size)
        elif channel in self.rig.radars:
            read_radar(path, fields=self.radar_fields)
        else:
            read_lidar(path)

    def _opened(self, record: SampleRecord) -> Iterator[tuple[str, SensorFrame]]:
        yield from super()._opened(record)
        if "lidar" in self.modalities:
            for channel, sweeps in record.lidars.items():
                yield from ((channel, sweep) for sweep in sweeps)
