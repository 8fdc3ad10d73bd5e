"""The base class of data sets of a nuScenes split: its samples, their order and their files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lmd_cli.config.shipped import from_home
from lmd_cli.data.nuscenes.database import Annotation, SampleRecord, SensorFrame
from lmd_cli.data.nuscenes.index import Records, SplitIndex, open_index
from lmd_cli.data.nuscenes.index.splits import Split, split_name
from lmd_cli.data.nuscenes.rig import NUSCENES, Channels, left_out, resolve_rig
from lmd_cli.data.nuscenes.roots import missing_hint
from lmd_cli.data.sample import Sample
from lmd_cli.errors import DataError
from lmd_cli.runtime.printable import in_one_line, one_line

log = logging.getLogger(__name__)


class SplitSamples(Dataset[Sample]):
    """The keyframes of a split, ordered by (scene token, timestamp).

    Holds no records: they are made on demand from an index that is mapped into memory, so a
    pickled copy for a worker process is small.

    Args:
        dataroot: the nuScenes root, which holds ``samples``, ``sweeps`` and the version's tables.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val`` or ``mini_val``, or names of scenes.
        modalities: those that are read.
        radar_sweeps: sweeps of each radar, the keyframe's included; 0 for no radar.
        lidar_sweeps: the same for the LiDAR; at least 1, as ground truth is in its frame.
        channels: to read; those of nuScenes' that the tables have by default.
        usual: nuScenes' channels in the network's order.
        progress: called with (finished steps, all steps) where the tables have to be indexed.

    Attributes:
        dataroot: the nuScenes root.
        version: as given.
        rig: the channels that are read.
        left_out: nuScenes' channels that the tables lack and nobody asked for.

    Raises:
        DataError: data root, version, split or channel not found (says what is there), a split
            without a scene in this version, or tables that are none.
    """

    def __init__(
        self,
        dataroot: Path | str,
        version: str,
        split: Split,
        *,
        modalities: Sequence[str],
        radar_sweeps: int,
        lidar_sweeps: int,
        channels: Channels | None = None,
        usual: Channels = NUSCENES,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.dataroot, self.version = from_home(dataroot), version
        index = open_index(self.dataroot, version, split, progress)
        asked = channels or Channels()
        self.rig = resolve_rig(index.channels, asked, usual, modalities)
        self.left_out = left_out(self.rig, asked, modalities)
        if self.left_out:
            log.warning(
                "the tables have no %s: samples are read without. Name the channels to read with "
                "data.cameras or data.radars",
                ", ".join(self.left_out),
            )
        self._records = Records(index, self.rig, radar_sweeps, lidar_sweeps)
        self._source = f"split {split_name(split)} of {version} in {self.dataroot}"

    def choose(self, rows: Sequence[int]) -> None:
        """Leaves only some samples, by their numbers; call it before anything is read."""
        self._records = self._records.chosen(rows)
        for name in self._cached():
            vars(self).pop(name, None)

    def needed_rows(self) -> Sequence[int]:
        """Numbers of the split's samples whose records are read."""
        return self._records.rows

    @property
    def index(self) -> SplitIndex:
        """What the split needs of the tables."""
        return self._records.split

    def __getstate__(self) -> dict[str, Any]:
        """Without the lists that are made from the index when they are asked for."""
        cached = self._cached()
        return {name: value for name, value in vars(self).items() if name not in cached}

    def _cached(self) -> set[str]:
        """Names of those lists."""
        return {
            name
            for kind in type(self).__mro__
            for name, value in vars(kind).items()
            if isinstance(value, cached_property)
        }

    @cached_property
    def tokens(self) -> list[str]:
        """Sample tokens, in order.

        Raises:
            DataError: one of them is no single line of text.
        """
        tokens = self._records.tokens()
        for token in tokens:
            if not one_line(token):
                raise DataError(f"{self._source}: sample token {token!r} is no single line of text")
        return tokens

    @cached_property
    def scenes(self) -> list[str]:
        """Each sample's scene's name."""
        return self._records.of_scenes(0)

    @cached_property
    def descriptions(self) -> list[str]:
        """Each sample's scene's description."""
        return self._records.of_scenes(1)

    @property
    def scene_names(self) -> list[str]:
        """Names of the scenes, in order, each once."""
        return list(dict.fromkeys(self.scenes))

    @property
    def absent_scenes(self) -> list[str]:
        """Names of the split's scenes that the version does not hold, sorted."""
        return list(self._records.split.meta["absent"])

    @property
    def annotated(self) -> bool:
        """Whether any sample has annotations: without one nothing is known of the truth."""
        return bool(self._records.split.meta["annotated"])

    def moment(self, index: int) -> str:
        """When a sample was recorded: ``12.5 s, 2018-08-01 19:26:21 UTC``, the
        seconds from its scene's first sample of the split.

        Raises:
            DataError: its records, or those of its scene's first sample, cannot be used.
        """
        first, now = (
            self._records[i].reference.timestamp
            for i in (self.scenes.index(self.scenes[index]), index)
        )
        date = datetime.fromtimestamp(now // 10**6, tz=timezone.utc)
        return f"{1e-6 * (now - first):.1f} s, {date:%Y-%m-%d %H:%M:%S} UTC"

    def global_T_ego(self, index: int) -> NDArray[np.float64]:
        """The pose of the frame in which a sample's boxes are predicted, (4, 4)."""
        return self._records[index].reference.global_T_ego()

    def instances(self, index: int) -> dict[str, str]:
        """For each of a sample's annotated vehicles, the token of its object."""
        return {vehicle.token: vehicle.instance for vehicle in self._records[index].vehicles}

    def annotations(self, index: int) -> tuple[Annotation, ...]:
        """What a sample's predicted boxes are matched with: its vehicles."""
        return self._records[index].vehicles

    def problems(self) -> list[str]:
        """Records of the tables that samples need and that cannot be used."""
        problems = self._records.problems(self.needed_rows()).items()
        return [f"{text} (needed by sample {in_one_line(token)})" for text, token in problems]

    def require_records(self) -> None:
        """Make sure that every record that samples need can be used.

        Raises:
            DataError: names table, record and field of the first that cannot, and counts the rest.
        """
        problems = self.problems()
        if problems:
            more = f"; {len(problems) - 1} more, which lmd check lists" if len(problems) > 1 else ""
            raise DataError(f"{problems[0]}{more}")

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
        return {
            channel: sum(not os.path.exists(self.dataroot / name) for name in names)
            for channel, names in self.needed_files().items()
        }

    def missing_hint(self) -> str:
        """What to do about files that are missing: words that follow on, or nothing."""
        needed = (self.dataroot / n for names in self.needed_files().values() for n in names)
        first = next((path for path in needed if not os.path.exists(path)), None)
        name = None if first is None else first.relative_to(self.dataroot).as_posix()
        return "" if name is None else missing_hint(self.dataroot, name)

    def empty_files(self) -> list[str]:
        """Names of needed files that are there and hold nothing."""
        names = (name for group in self.needed_files().values() for name in group)
        return [name for name in names if _size(self.dataroot / name) == 0]

    def needed_files(self) -> dict[str, list[str]]:
        """Names of the files that loading the split opens, by channel, each once.

        Samples whose records cannot be used are left out.
        """
        needed: dict[str, dict[str, None]] = {}
        for channel, frame in self._frames():
            needed.setdefault(channel, {})[frame.filename] = None
        return {channel: list(names) for channel, names in needed.items()}

    def files_of(self, index: int) -> list[str]:
        """Names of the files that loading one sample opens; none if its records cannot be used."""
        with suppress(DataError):
            return [frame.filename for _, frame in self._opened(self._records[index])]
        return []

    def read_file(self, channel: str, name: str) -> None:
        """Reads one of :meth:`needed_files` as samples would.

        Raises:
            DataError: it is missing or damaged.
        """
        raise NotImplementedError

    def _frames(self) -> Iterator[tuple[str, SensorFrame]]:
        """Every file that loading the split opens, with its channel."""
        for row in self.needed_rows():
            with suppress(DataError):
                yield from self._opened(self._records.at_row(row))

    def _opened(self, record: SampleRecord) -> Iterator[tuple[str, SensorFrame]]:
        """The record's files that are opened, with their channels: cameras and radars."""
        yield from zip(self.rig.cameras, record.cameras, strict=True)
        for channel, sweeps in record.radars.items():
            yield from ((channel, sweep) for sweep in sweeps)


def _size(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # also a name that no file can have
        return path.stat().st_size
    return None


def check_modalities(modalities: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a modality that a dataset does not have.

    Raises:
        ValueError: names it, and those there are.
    """
    unknown = [name for name in modalities if name not in known]
    if unknown:
        raise ValueError(f"unknown modality {unknown[0]!r}; there are {', '.join(known)}")
