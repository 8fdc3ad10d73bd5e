"""What datasets of a nuScenes split have in common: its samples, their order and their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from lmd_cli.data.database import CAMERAS, SampleRecord, SensorFrame
from lmd_cli.data.index import Records, open_index
from lmd_cli.data.sample import Sample
from lmd_cli.errors import DataError
from lmd_cli.printable import one_line


class SplitSamples(Dataset[Sample]):
    """The keyframes of a split, ordered by (scene token, timestamp).

    Holds no records: they are made on demand from an index that is mapped into memory, so a
    pickled copy for a worker process is small.

    Args:
        dataroot: the nuScenes root, which holds ``samples``, ``sweeps`` and the version's tables.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val`` or ``mini_val``.
        radar_sweeps: sweeps of each radar, the keyframe's included; 0 for no radar.
        lidar_sweeps: the same for the LiDAR; at least 1, as ground truth is in its frame.
        progress: called with (finished steps, all steps) where the tables have to be indexed.

    Attributes:
        dataroot: the nuScenes root.

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
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.dataroot = Path(dataroot).expanduser()
        index = open_index(self.dataroot, version, split, progress)
        index.require(radar_sweeps, lidar_sweeps)
        self._records = Records(index, radar_sweeps, lidar_sweeps)
        self._source = f"split {split} of {version} in {self.dataroot}"

    def __getstate__(self) -> dict[str, Any]:
        """Without the lists that are made from the index when they are asked for."""
        cached = [
            name
            for kind in type(self).__mro__
            for name, value in vars(kind).items()
            if isinstance(value, cached_property)
        ]
        return {name: value for name, value in vars(self).items() if name not in cached}

    @cached_property
    def tokens(self) -> list[str]:
        """Sample tokens, in order.

        Raises:
            DataError: one of them is no single line of text.
        """
        tokens = self._records.split.tokens()
        for token in tokens:
            if not one_line(token):
                raise DataError(f"{self._source}: sample token {token!r} is no single line of text")
        return tokens

    @cached_property
    def scenes(self) -> list[str]:
        """Each sample's scene's name."""
        return self._records.split.of_scenes(0)

    @cached_property
    def descriptions(self) -> list[str]:
        """Each sample's scene's description."""
        return self._records.split.of_scenes(1)

    @property
    def scene_names(self) -> list[str]:
        """Names of the scenes, in order, each once."""
        return list(dict.fromkeys(self.scenes))

    @property
    def absent_scenes(self) -> list[str]:
        """Names of the split's scenes that the version does not hold, sorted."""
        return list(self._records.split.meta["absent"])

    @cached_property
    def _index(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

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
