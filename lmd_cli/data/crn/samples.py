"""A split of a nuScenes root as CRN's inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmd_cli.data.boxes import Box3D
from lmd_cli.data.crn.images import Window, as_rgb, normalise, read_window
from lmd_cli.data.crn.matrices import global_T_mean_ego, intrinsics, sensor2ego
from lmd_cli.data.crn.radar import (
    PERSPECTIVE_FILTERS,
    PERSPECTIVE_SWEEPS,
    RadarView,
    Reader,
    camera_rows,
    keyframe_points,
    network_rows,
    taken_rows,
)
from lmd_cli.data.crn.rig import USUAL, require_rig
from lmd_cli.data.crn.truth import EgoBox, ego_boxes, map_truth, turned
from lmd_cli.data.interventions import BoxRemoval, RemovalSettings, Removed, removal_of
from lmd_cli.data.nuscenes.database import Annotation, SampleRecord, SensorFrame
from lmd_cli.data.nuscenes.files import data_file
from lmd_cli.data.nuscenes.images import ImageEdit, load_image
from lmd_cli.data.nuscenes.index.splits import Split
from lmd_cli.data.nuscenes.radar_files import RadarFields, RadarFilters, read_radar
from lmd_cli.data.nuscenes.rig import Channels
from lmd_cli.data.nuscenes.split import SplitSamples, check_modalities
from lmd_cli.data.nuscenes.sweeps import PointEdit
from lmd_cli.data.sample import Sample
from lmd_cli.errors import DataError

MODALITIES = ("camera", "radar")
#: CRN takes every second key frame, one second apart.
KEY_FRAME_STEP = 2


class KeyframeSamples(SplitSamples):
    """The keyframes of a split, each with the key frames before it, as CRN's network takes them.

    Frame 0 is the current key frame, frame s the one 2 s key frames before it (a second each).
    Where the scene has none so early, its first key frame stands in, as in CRN; :attr:`padded`
    counts that. Sweeps of the radars between key frames are used, images between them are not.

    Args:
        dataroot: the nuScenes root, which holds ``samples``, ``sweeps`` and the version's tables.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val`` or ``mini_val``, or names of scenes.
        modalities: of "camera", "radar". Images are always loaded.
        nsweeps: sweeps of each radar around each key frame, the key frame's included.
        image_size: (H, W) of the network's images, pixels.
        key_frames: number of key frames S, the current one included.
        depth_bound: radar points of this depth and beyond are dropped, metres.
        radar_slots: rows P for the radar points of one view.
        extent: the maps of the ground truth go from ``-extent`` to ``extent``, metres.
        cells: number of the maps' cells along either axis.
        radar_filters: states of radar points to keep; CRN's by default.
        radar_fields: what stands for nuScenes' fields in the files of another radar.
        channels: as many cameras as CRN has been trained with, radars, and a LiDAR, whose place
            and time those of the radar points are; nuScenes' by default.
        progress: called with (finished steps, all steps) where the tables have to be indexed.

    Raises:
        DataError: data root, version, split or channel not found (says what is there), a split
            without a scene in this version, another number of cameras, or tables that are none.
        ValueError: an unknown modality, or a number below 1.
    """

    def __init__(
        self,
        dataroot: Path | str,
        version: str,
        split: Split,
        *,
        modalities: Sequence[str] = MODALITIES,
        nsweeps: int = PERSPECTIVE_SWEEPS,
        image_size: tuple[int, int] = (256, 704),
        key_frames: int = 4,
        depth_bound: float = 58.0,
        radar_slots: int = 1536,
        extent: float = 51.2,
        cells: int = 128,
        radar_filters: RadarFilters = PERSPECTIVE_FILTERS,
        radar_fields: RadarFields | None = None,
        channels: Channels | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        check_modalities(modalities, MODALITIES)
        numbers = {
            "nsweeps": nsweeps,
            "key_frames": key_frames,
            "radar_slots": radar_slots,
            "cells": cells,
        }
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        sweeps = nsweeps if "radar" in modalities else 0
        super().__init__(
            dataroot,
            version,
            split,
            modalities=modalities,
            radar_sweeps=sweeps,
            lidar_sweeps=1,
            channels=channels,
            usual=USUAL,
            progress=progress,
        )
        require_rig(self.rig, self._records.split.channels)
        self.modalities = tuple(modalities)
        self.image_size = image_size
        self.key_frames = key_frames
        self.extent = extent
        self.cells = cells
        self._view = RadarView(radar_slots, depth_bound, nsweeps)
        self._radar = (radar_filters, radar_fields)

    @cached_property
    def _first(self) -> list[int]:
        """For each of the split's samples, the number of its scene's first."""
        starts: dict[str, int] = {}
        scenes = self._records.split.of_scenes(0)
        return [starts.setdefault(scene, row) for row, scene in enumerate(scenes)]

    @cached_property
    def padded(self) -> dict[str, int]:
        """For each sample token, for how many of its past key frames the scene's first stands in.

        Those are the ones that would be before the scene's start.
        """
        return {
            token: sum(frame < self._first[row] for frame in self._wanted(row))
            for token, row in zip(self.tokens, self._records.rows, strict=True)
        }

    def _wanted(self, row: int) -> list[int]:
        """Numbers of a sample's key frames in the split, as if its scene had no start."""
        return [row - KEY_FRAME_STEP * s for s in range(self.key_frames)]

    def _key_frames(self, row: int) -> list[int]:
        """The same with the scene's first for those before it."""
        return [max(wanted, self._first[row]) for wanted in self._wanted(row)]

    def needed_rows(self) -> Sequence[int]:
        """See :meth:`SplitSamples.needed_rows`: also the key frames before those chosen."""
        return sorted({frame for row in self._records.rows for frame in self._key_frames(row)})

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            DataError: a file is missing, truncated or of another kind; names it and the sample.
            IndexError: no such index.
        """
        row = self._records.rows[index]
        record = self._records.at_row(row)
        frames = self._key_frames(row)
        read = self._reader(record.token)
        # A key frame that stands in several times is loaded once.
        loaded = {i: self._frame(self._records.at_row(i), record, read) for i in set(frames)}
        arrays = {
            name: np.stack([loaded[i][name] for i in frames])  # (S, 6, ...)
            for name in loaded[row]
        }
        tensors = {"imgs": normalise(arrays.pop("imgs"))}  # (S, 6, 3, H, W)
        tensors |= {name: torch.from_numpy(array) for name, array in arrays.items()}
        tensors["bda_mat"] = torch.eye(4)
        if self.annotated:
            tensors |= map_truth(self.boxes(index), self.extent, self.cells)
        return Sample(record.token, record.scene, tensors)

    def _frame(
        self, record: SampleRecord, current: SampleRecord, read: Reader
    ) -> dict[str, NDArray]:
        """Arrays (6, ...) of one key frame, for a sample whose current one is ``current``."""
        cameras = record.cameras
        windows = [Window.covering(camera, self.image_size) for camera in cameras]
        images = [self._image(camera, current.token) for camera in cameras]
        arrays: dict[str, NDArray] = {
            "imgs": np.stack(images),  # (6, H, W, 3) uint8
            "sensor2ego_mats": _stack(map(sensor2ego, cameras, current.cameras)),
            "intrin_mats": _stack(map(intrinsics, cameras)),
            "ida_mats": _stack(window.matrix() for window in windows),  # (6, 4, 4)
        }
        if "radar" in self.modalities:
            arrays["pts_pv"] = self._radar_rows(record, read)  # (6, P, 5)
        return arrays

    def without(
        self, clean: Sample, index: int, token: str, modality: str, settings: RemovalSettings
    ) -> Removed:
        """A sample without one annotated vehicle in one sensor's data, in all of its key frames.

        Args:
            clean: the sample as it is.
            index: its number.
            token: the annotation's.
            modality: "camera" or "radar".
            settings: how the evidence is taken away.

        Raises:
            DataError: a file is missing or damaged.
        """
        frames = self._key_frames(self._records.rows[index])
        records = {i: self._records.at_row(i) for i in dict.fromkeys(frames)}
        removal = removal_of(list(records.values()), token, settings)
        name, change = {
            "camera": ("imgs", self._images_without),
            "radar": ("pts_pv", self._radar_without),
        }[modality]
        values = clean.tensors[name].clone()
        for i, record in records.items():
            places = [place for place, frame in enumerate(frames) if frame == i]
            values[places] = change(values[places[0]], record, removal)
        sample = Sample(clean.token, clean.scene, {**clean.tensors, name: values})
        return Removed(sample, removal.amount, removal.clipped)

    def _images_without(self, images: Tensor, record: SampleRecord, removal: BoxRemoval) -> Tensor:
        """A key frame's images (6, 3, H, W), those that show an object read again without it."""
        return removal.images(
            images,
            record.cameras,
            lambda camera, edit: normalise(self._image(camera, record.token, edit)),
        )

    def _image(
        self, camera: SensorFrame, token: str, edit: ImageEdit | None = None
    ) -> NDArray[np.uint8]:
        """A camera's image as the network's window of it, (H, W, 3), for a sample."""
        return read_window(
            data_file(self.dataroot, camera.filename, token),
            Window.covering(camera, self.image_size),
            token=token,
            recorded=(camera.width, camera.height),
            edit=edit,
        )

    def _radar_without(self, points: Tensor, record: SampleRecord, removal: BoxRemoval) -> Tensor:
        """A key frame's radar points (6, P, 5) without those on an object."""
        edit = functools.partial(removal.points, flat=True)
        return torch.from_numpy(self._radar_rows(record, self._reader(record.token), edit))

    def _radar_rows(
        self, record: SampleRecord, read: Reader, edit: PointEdit | None = None
    ) -> NDArray[np.float32]:
        """A key frame's radar points as the network takes them, (6, P, 5)."""
        points = keyframe_points(record, read, edit)
        windows = [Window.covering(camera, self.image_size) for camera in record.cameras]
        seen = [camera_rows(points, record.reference, camera) for camera in record.cameras]
        rows = (network_rows(k, w, self._view) for k, w in zip(seen, windows, strict=True))
        return _stack(rows)

    def _reader(self, token: str) -> Reader:
        """Reads each radar file that a sample needs once: key frames may share sweeps."""
        return functools.cache(
            lambda name: self._read_radar(data_file(self.dataroot, name, token), token)
        )

    def _read_radar(self, path: Path, token: str | None) -> NDArray[np.float64]:
        filters, fields = self._radar
        return read_radar(path, filters, token=token, fields=fields)

    def read_file(self, channel: str, name: str) -> None:
        """See :meth:`SplitSamples.read_file`."""
        path = data_file(self.dataroot, name, None)
        if channel in self.rig.cameras:
            load_image(path, self.image_size)
        else:
            self._read_radar(path, None)

    def pictures(self, sample: Sample) -> dict[str, NDArray[np.float32]]:
        """The current frame's images for a reader, by camera (H, W, 3), RGB in [0, 1]."""
        images = as_rgb(sample.tensors["imgs"][0])  # (6, H, W, 3)
        return dict(zip(self.rig.cameras, images.numpy(), strict=True))

    def radar_in_images(self, index: int) -> dict[str, NDArray[np.float32]]:
        """Where the current frame's radar points that the network takes lie in its images.

        Returns:
            by camera (k, 3): u, v (the network's pixels) and depth (m); none without a radar.

        Raises:
            DataError: a radar file is missing or damaged.
        """
        if "radar" not in self.modalities:
            return {}
        record = self._records[index]
        points = keyframe_points(record, self._reader(record.token))
        rows = {}
        for name, camera in zip(self.rig.cameras, record.cameras, strict=True):
            seen = camera_rows(points, record.reference, camera)
            window = Window.covering(camera, self.image_size)
            rows[name] = taken_rows(seen, window, self._view)[:, :3]
        return rows

    def global_T_ego(self, index: int) -> NDArray[np.float64]:
        """The mean of the vehicle's poses at the cameras, (4, 4): CRN's frame for boxes."""
        return global_T_mean_ego(self._records[index].cameras)

    def boxes(self, index: int, others: Sequence[Annotation] | None = None) -> list[EgoBox]:
        """The sample's annotated vehicles, or others, in the ego frame; opens no data file."""
        record = self._records[index]
        return ego_boxes(record if others is None else replace(record, vehicles=tuple(others)))

    def boxes_on_map(self, index: int, others: Sequence[Annotation] | None = None) -> list[Box3D]:
        """The same boxes for maps turned forward up: axes x right, y down, z forward."""
        return [turned(box) for box in self.boxes(index, others)]

    def annotations(self, index: int) -> tuple[Annotation, ...]:
        """What a sample's predicted boxes are matched with: its vehicles, then the other classes of
        nuScenes' detection task, and bicycle racks.

        Raises:
            DataError: one of the tables' records cannot be used.
        """
        return super().annotations(index) + self._records.others(index)

    def require_annotations(self) -> None:
        """Make sure that :meth:`annotations` can be used.

        Raises:
            DataError: names table, record and field of the first that cannot, and counts the rest.
        """
        problems = self.index.problems_of_others(self._records.rows)
        if problems:
            (text, token), *rest = problems.items()
            more = f"; {len(rest)} more" if rest else ""
            raise DataError(f"{text} (needed by sample {token}){more}", token=token)


def _stack(arrays: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack(list(arrays))
