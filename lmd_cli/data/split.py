"""What datasets of a nuScenes split have in common: its samples, their order and their files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from lmd_cli.data.database import (
    CAMERAS,
    SampleRecord,
    SensorFrame,
    open_database,
    sample_records,
    split_scenes,
)
from lmd_cli.data.sample import Sample
from lmd_cli.errors import DataError


class SplitSamples(Dataset[Sample]):
    """The keyframes of a split, ordered by (scene token, timestamp).

    Holds plain values only, so it can be pickled to loader workers.

    Args:
        dataroot: the nuScenes root, which holds ``samples``, ``sweeps`` and the version's tables.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val`` or ``mini_val``.
        radar_sweeps: sweeps of each radar, the keyframe's included; 0 for no radar.
        lidar_sweeps: the same for the LiDAR; at least 1.

    Attributes:
        dataroot: the nuScenes root.
        tokens: sample tokens, in order.
        scenes: each sample's scene name, in the order of ``tokens``.
        descriptions: each sample's scene's description.
        scene_names: names of the scenes, in order, each once.
        absent_scenes: names of the split's scenes that the version does not hold, sorted.

    Raises:
        DataError: data root, version or split not found (says what is there), a split without a
            scene in this version, or tables that do not fit together.
    """

    def __init__(
        self,
        dataroot: Path | str,
        version: str,
        split: str,
        *,
        radar_sweeps: int,
        lidar_sweeps: int,
    ) -> None:
        self.dataroot = Path(dataroot).expanduser()
        database = open_database(self.dataroot, version)
        present, absent = split_scenes(split, [row["name"] for row in database.scene], version)
        self._records = sample_records(
            database,
            present,
            radar_sweeps=radar_sweeps,
            lidar_sweeps=lidar_sweeps,
        )
        self.tokens = [record.token for record in self._records]
        self.scenes = [record.scene for record in self._records]
        self.descriptions = [record.description for record in self._records]
        self.scene_names = list(dict.fromkeys(self.scenes))
        self.absent_scenes = sorted(absent)
        self._index = {token: i for i, token in enumerate(self.tokens)}
        self._source = f"split {split} of {version} in {self.dataroot}"

    def __len__(self) -> int:
        return len(self._records)

    def index_of(self, token: str) -> int:
        """Index of a sample.

        Raises:
            DataError: the split has no such sample; says how to list those it has.
        """
        if token not in self._index:
            listing = "list its samples with: lmd samples --config CONFIG"
            raise DataError(f"sample {token} is not in {self._source}; {listing}", token=token)
        return self._index[token]

    def missing_files(self) -> dict[str, int]:
        """Number of files that do not exist, for every channel that samples are loaded from.

        Sweeps are included; a file that several samples need counts once.
        """
        needed: dict[str, set[str]] = {}
        for channel, frame in self._frames():
            needed.setdefault(channel, set()).add(frame.filename)
        return {
            channel: sum(not os.path.exists(self.dataroot / name) for name in names)
            for channel, names in needed.items()
        }

    def _frames(self) -> Iterator[tuple[str, SensorFrame]]:
        """Every file that loading the split opens, with its channel."""
        for record in self._records:
            yield from self._opened(record)

    def _opened(self, record: SampleRecord) -> Iterator[tuple[str, SensorFrame]]:
        """The record's files that are opened, with their channels: cameras and radars."""
        yield from zip(CAMERAS, record.cameras, strict=True)
        for channel, sweeps in record.radars.items():
            yield from ((channel, sweep) for sweep in sweeps)


def check_modalities(modalities: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a modality that a dataset does not have.

    Raises:
        ValueError: names it, and those there are.
    """
    unknown = [name for name in modalities if name not in known]
    if unknown:
        raise ValueError(f"unknown modality {unknown[0]!r}; there are {', '.join(known)}")
