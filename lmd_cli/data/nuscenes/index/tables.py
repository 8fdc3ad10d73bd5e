"""From a version's tables to the arrays of an index."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lmd_cli.data.nuscenes.database import CAMERAS, LIDAR, RADARS
from lmd_cli.data.nuscenes.index import values
from lmd_cli.data.nuscenes.index.annotations import OTHERS, Annotations, Boxes
from lmd_cli.data.nuscenes.index.columns import named_rows
from lmd_cli.data.nuscenes.index.frames import Frames
from lmd_cli.data.nuscenes.index.reader import Row, Tables, table_rows
from lmd_cli.data.nuscenes.index.records import SplitIndex
from lmd_cli.data.nuscenes.index.splits import Split, split_scenes
from lmd_cli.errors import DataError

Progress = Callable[[int, int], None]

SAMPLE = [
    *[("scene", "<i4"), ("first_annotation", "<i8"), ("annotations", "<i4"), ("problem", "<i4")]
]


def build_index(
    root: Path, version: str, split: Split, progress: Progress | None = None
) -> SplitIndex:
    """A split's index, in memory.

    Args:
        root: the nuScenes root.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val``, or names of scenes.
        progress: called with (finished steps, all steps): the tables read, then each scene.

    Raises:
        DataError: an unknown split, one without a scene in this version, or tables that do not
            fit together.
    """
    with _as_nuscenes(root / version):
        return _built(root, version, split, progress or (lambda done, total: None))


@contextlib.contextmanager
def _as_nuscenes(tables: Path) -> Iterator[None]:
    """What we stumble over in tables of another kind, as a message."""
    try:
        yield
    except values.RecordError as error:
        raise DataError(f"{tables.name}/{error}", path=tables) from error
    except (TypeError, AttributeError, LookupError, ArithmeticError, ValueError) as error:
        raise DataError(
            f"{tables}: the tables hold something else than nuScenes' tables do ({error}); is a "
            "file damaged, or made by another program?",
            path=tables,
        ) from error
    except (RecursionError, AssertionError) as error:
        raise DataError(f"{tables}: the tables cannot be read: {error}", path=tables) from error


def _built(root: Path, version: str, split: Split, report: Progress) -> SplitIndex:
    folder = root / version
    # Read apart, so that a mistyped split is refused before gigabytes are read.
    names = [values.text("scene", row, "name") for row in table_rows(folder, "scene")]
    present, absent = split_scenes(folder, split, names)
    steps = 1 + len(present)
    report(0, steps)
    with _no_collection():
        builder = _Builder(Tables(folder, present))
        report(1, steps)
        for done, scene in enumerate(builder.tables.scenes, start=2):
            builder.add_scene(scene)
            report(done, steps)
        return builder.finish(sorted(absent))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of records make the garbage collector search for cycles that are not there."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Builder:
    """Collects rows, scene by scene; what cannot be used becomes a problem of those who need it."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.channels = tables, _ordered(tables.channels)
        self.problems: dict[str, int] = {}
        self.key_frames: list[list[int]] = []
        self._add_boxes(Annotations(tables))
        self.frames = Frames(tables, self.problems)

    def _add_boxes(self, annotations: Annotations) -> None:
        """All samples and their annotations."""
        vehicles, others = Boxes(annotations, self.problems), Boxes(annotations, {})
        samples, tokens = [], []
        for number, scene in enumerate(self.tables.scenes):
            for sample in self.tables.samples(scene):
                others.add(annotations.others[sample])
                samples.append((number, *vehicles.add(annotations.vehicles[sample])))
                tokens.append(sample.encode())
        rows = named_rows("token", tokens, SAMPLE)
        rows[[name for name, _ in SAMPLE]] = np.array(samples, dtype=SAMPLE)
        self.samples, self.of_others = rows, np.array(others.ranges, dtype=OTHERS)
        self.vehicles, self.others = vehicles.table(), others.table()
        self.annotated, self.problems_of_others = annotations.any, others.problems

    def add_scene(self, scene: Row) -> None:
        """The frames of a scene's samples."""
        for sample in self.tables.samples(scene):
            self.key_frames.append([self.frames.add(sample, c) for c in self.channels])

    def finish(self, absent: list[str]) -> SplitIndex:
        """Everything so far as arrays; channels that no sample has are left out."""
        every, channels = self.tables.channels, self.channels
        there = [i for i, channel in enumerate(channels) if channel in self.frames.used]
        key_frames = np.array(self.key_frames, dtype="<i4").reshape(-1, len(channels))
        (vehicles, names), (others, names_of_others) = self.vehicles, self.others
        meta = {
            "version": self.tables.folder.name,
            "scenes": [(row["name"], _description(row)) for row in self.tables.scenes],
            "absent": absent,
            **names,
            "problems": list(self.problems),
            "channels": {channels[i]: every[channels[i]] for i in there},
            "annotated": self.annotated,
            "others": {**names_of_others, "problems": list(self.problems_of_others)},
        }
        arrays = {
            "samples": self.samples,
            "key_frames": np.ascontiguousarray(key_frames[:, there]),
            **self.frames.table(),
            "annotations": vehicles,
            "others": others,
            "others_of": self.of_others,
        }
        return SplitIndex(arrays, meta)


def _description(scene: Row) -> str:
    return values.optional("scene", scene, "description")


def _ordered(channels: Mapping[str, str]) -> list[str]:
    """Channels of the sensors that are read: nuScenes' first, then by name."""
    known = [channel for channel in (*CAMERAS, *RADARS, LIDAR) if channel in channels]
    read = ("camera", "radar", "lidar")
    return known + sorted(c for c, kind in channels.items() if kind in read and c not in known)
