"""``lmd cache``: what is in the cache folder, and clearing it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmd_cli.data.nuscenes.index.cache import is_own_index
from lmd_cli.data.synthetic.root import MANIFEST
from lmd_cli.errors import ConfigError
from lmd_cli.runtime.cache import cache_folder
from lmd_cli.runtime.drafts import abandoned
from lmd_cli.runtime.files import disk_errors, read_own

#: Kinds of entries, which ``lmd cache clear`` takes as well as names.
SYNTHETIC, INDEX, UNFINISHED, FOREIGN = "synthetic", "index", "unfinished", "foreign"
KINDS = {
    SYNTHETIC: "a synthetic nuScenes, made by demo configs and data.dataroot=synthetic",
    INDEX: "the index of a split's tables, made when a nuScenes root is opened",
    UNFINISHED: "left by a process that was killed, or being made",
    FOREIGN: "not lmd's: it is never deleted",
}
_SYNTHETIC_NAME = re.compile(r"synthetic-\w+-\d+-seed\d+-\d+x\d+")
_MAKING_NAME = re.compile(rf"\.{_SYNTHETIC_NAME.pattern}-\w+\.making")


@dataclass(frozen=True)
class Entry:
    """One thing in the cache folder.

    Attributes:
        name: below the folder, ``indexes/...`` say.
        kind: one of :data:`KINDS`.
        size: bytes of all its files.
        changed: seconds since it was made or opened.
        origin: what it was made of, as far as it says.
    """

    name: str
    kind: str
    size: int
    changed: float
    origin: str


def entries(folder: Path | None = None) -> list[Entry]:
    """What is in the cache folder, by name; nothing if there is none."""
    folder = folder or cache_folder()
    return [_entry(path, folder) for path in sorted(_paths(folder))]


def _paths(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == "indexes" and path.is_dir() and not path.is_symlink():
            yield from path.iterdir()
        else:
            yield path


def _entry(path: Path, folder: Path) -> Entry:
    kind = _kind(path, folder)
    age = max(time.time() - path.lstat().st_mtime, 0.0)
    origin = _parameters(path) if kind == SYNTHETIC else KINDS[kind]
    return Entry(str(path.relative_to(folder)), kind, _size(path), age, origin)


def _kind(path: Path, folder: Path) -> str:
    if path.parent != folder:
        if not is_own_index(path):
            return FOREIGN
        return UNFINISHED if path.name.startswith(".") else INDEX
    if path.is_symlink() or not path.is_dir():
        return FOREIGN
    if _MAKING_NAME.fullmatch(path.name):
        return UNFINISHED
    made = _SYNTHETIC_NAME.fullmatch(path.name) and (path / MANIFEST).is_file()
    return SYNTHETIC if made else FOREIGN


def _size(path: Path) -> int:
    """Of its files, links not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    folders = os.walk(path)
    return sum((Path(at) / name).lstat().st_size for at, _, names in folders for name in names)


def _parameters(root: Path) -> str:
    """What a synthetic root says that it was made with."""
    try:
        made = json.loads(read_own(root / MANIFEST))["parameters"]
        height, width = made["image_size"]
        scenes, samples, seed = len(made["scenes"]), made["samples"], made["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its synthetic.json cannot be read"
    return f"{scenes} scenes of {samples} samples, seed {seed}, images {height} x {width}"


def clear(wanted: Sequence[str] = (), folder: Path | None = None) -> tuple[list[Entry], list[str]]:
    """Deletes entries of ours.

    Args:
        wanted: their names or kinds; all of ours if none.

    Returns:
        What was deleted, and why something was not.

    Raises:
        ConfigError: a name is none of the entries, or not ours.
        RunError: it cannot be deleted.
    """
    folder = folder or cache_folder()
    there = entries(folder)
    _require_known(wanted, there, folder)
    chosen = [e for e in there if not wanted or e.name in wanted or e.kind in wanted]
    kept = [f"{e.name} is not lmd's and stays" for e in chosen if e.kind == FOREIGN]
    deleted = []
    for entry in (e for e in chosen if e.kind != FOREIGN):
        if entry.kind == UNFINISHED and not _abandoned(folder / entry.name):
            kept.append(f"{entry.name} is being made and stays")
            continue
        with disk_errors(folder / entry.name):
            _delete(folder / entry.name)
        deleted.append(entry)
    return deleted, kept


def _require_known(wanted: Sequence[str], there: Sequence[Entry], folder: Path) -> None:
    names = {entry.name: entry.kind for entry in there}
    for one in wanted:
        if names.get(one) == FOREIGN:
            raise ConfigError(f"{folder / one} is not lmd's; delete it yourself if you mean it")
        if one not in names and one not in (SYNTHETIC, INDEX, UNFINISHED):
            kinds = ", ".join((SYNTHETIC, INDEX, UNFINISHED))
            raise ConfigError(
                f"{one!r} is neither in {folder} nor a kind ({kinds}); lmd cache lists what is"
            )


def _abandoned(path: Path) -> bool:
    """Whether nobody makes it any more; a file's maker holds a lock on it or beside it."""
    return abandoned(path, path if path.is_file() else None)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
