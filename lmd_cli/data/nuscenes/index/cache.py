"""The cache of indexes: each is looked up by what it was made from, and made if it is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lmd_cli.config.shipped import from_home
from lmd_cli.data.nuscenes.index.records import FORMAT, SplitIndex
from lmd_cli.data.nuscenes.index.splits import OWN_SPLITS, Split, split_name
from lmd_cli.data.nuscenes.index.storage import DamagedError, is_index, write_arrays
from lmd_cli.data.nuscenes.index.tables import Progress, build_index
from lmd_cli.data.nuscenes.index.validity import require_sound
from lmd_cli.data.nuscenes.roots import require_version
from lmd_cli.runtime.cache import CACHE_VARIABLE, cache_folder
from lmd_cli.runtime.locks import lock_file

#: The tables that an index is made from.
TABLES = (
    *("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor"),
    *("sample_annotation", "instance", "category"),
)
#: An index that was not opened for so long is removed when another one is made, seconds.
KEPT = 90 * 24 * 3600
#: Names of indexes, and of their drafts and locks.
_INDEX = re.compile(r"[\w.-]{1,80}-[0-9a-f]{24}\.lmdindex")
_DRAFT = re.compile(rf"\.{_INDEX.pattern}\.(\d+\.part|lock)")

log = logging.getLogger(__name__)


def open_index(
    dataroot: Path | str, version: str, split: Split, progress: Progress | None = None
) -> SplitIndex:
    """A split's index: from the cache folder, or made and put there.

    An index is found by the root's resolved path, version, split, and the sizes and times of the
    tables, so changed tables are read again. Several processes may ask at once: one makes it, the
    others wait. A damaged one is made again. Where the cache folder cannot be written, the index
    stays in memory, and a warning says so.

    Args:
        dataroot: the nuScenes root.
        version: e.g. ``v1.0-trainval``.
        split: e.g. ``val``, or names of scenes.
        progress: called with (finished steps, all steps) while an index is made.

    Raises:
        DataError: data root, version or split not found (says what is there), a split without a
            scene in this version, or tables that cannot be read.
    """
    root = from_home(dataroot)
    require_version(root, version)
    path = index_path(root, version, split)
    index = _load(path)
    if index is not None:
        return index
    with _alone(path):
        index = _load(path)  # another process may have made it meanwhile
        return index or _make(path, root, version, split, progress)


def index_path(root: Path, version: str, split: Split) -> Path:
    """Where the index of a split belongs, given its tables as they are now."""
    stamps = []
    for name in (*(f"{table}.json" for table in TABLES), OWN_SPLITS):
        with contextlib.suppress(FileNotFoundError):
            stat = (root / version / name).stat()
            stamps.append((name, stat.st_size, stat.st_mtime_ns))
    key = json.dumps([FORMAT, str(root.resolve()), version, split, stamps])
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    readable = re.sub(r"[^\w.-]", "_", f"{version}-{split_name(split)}")[:80]
    return cache_folder() / "indexes" / f"{readable}-{digest}.lmdindex"


def _load(path: Path) -> SplitIndex | None:
    """The index, or none where it is missing, damaged or unreadable."""
    try:
        index = SplitIndex.load(path)
        require_sound(index.arrays, index.meta)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (DamagedError, OSError) as error:
        log.warning("%s is damaged (%s) and is made again", path, error)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # says that it is in use
    return index


def _make(
    path: Path, root: Path, version: str, split: Split, progress: Progress | None
) -> SplitIndex:
    index = build_index(root, version, split, progress)
    try:
        write_arrays(path, index.arrays, index.meta)
        _remove_old(path.parent)
        return SplitIndex.load(path)
    except (DamagedError, OSError) as error:
        why = getattr(error, "strerror", None) or error
        log.warning(
            "the index of %s cannot be kept in %s (%s): it stays in memory, and every run makes "
            "it again; set %s to a folder that can be written",
            *(version, path.parent, why, CACHE_VARIABLE),
        )
        return index


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits while another process makes the same index; no lock where none can be had."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "ab")  # noqa: SIM115
    except OSError:
        yield
        return
    with file:
        with contextlib.suppress(OSError):  # a file system without locks: both make it
            _wait_for(file, path)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # some systems keep files that are open
                lock.unlink()


def _wait_for(file: IO[bytes], path: Path) -> None:
    try:
        lock_file(file)
    except BlockingIOError:
        log.warning("waiting for another process that makes %s", path.name)
        lock_file(file, wait=True)


def _remove_old(folder: Path) -> None:
    """Removes indexes (and drafts of killed processes) that nobody has opened for long.

    Whatever else lies there stays, links included.
    """
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            old = path.lstat().st_mtime < time.time() - KEPT
            if old and is_own_index(path):
                path.unlink()


def is_own_index(path: Path) -> bool:
    """Whether a path is an index of ours, or its draft or lock, and no link to one."""
    if path.is_symlink() or not path.is_file():
        return False
    if _DRAFT.fullmatch(path.name):
        return True
    return _INDEX.fullmatch(path.name) is not None and is_index(path)
