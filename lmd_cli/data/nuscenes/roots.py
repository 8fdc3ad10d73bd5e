"""Suggests the data root that was meant: one level off, or archives in separate folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from lmd_cli.errors import DataError

#: Folders that are looked into for what is not where it should be, at most.
_MOST = 200
#: Where nuScenes keeps what was recorded between key frames; its archives are apart.
SWEEPS = "sweeps"


def require_version(root: Path, version: str) -> None:
    """Refuses a root without the version's tables.

    Raises:
        DataError: says which folder to give, or what is there.
    """
    if _has_tables(root / version):
        return
    beside = any(os.path.isdir(root / name) for name in ("samples", SWEEPS))
    meant = next((f for f in _near(root, beside) if _has_tables(f / version)), None)
    if meant is not None:
        raise DataError(
            f"version {version} not found in {root}, but in {meant}: give {meant} as --dataroot",
            path=root / version,
        )
    if not os.path.isdir(root):  # pathlib's fails on names that are too long
        raise DataError(f"data root {root} not found; {_there(root.parent)}", path=root)
    versions = sorted(folder.name for folder in _folders(root) if _has_tables(folder))
    what = f"versions there: {', '.join(versions)}" if versions else _there(root)
    raise DataError(f"version {version} not found in {root}; {what}", path=root / version)


def missing_hint(root: Path, name: str) -> str:
    """What to do about a file that is not in the root: nothing, or words that follow on."""
    top = Path(name).parts[:1] == (SWEEPS,)
    folders = (folder for folder in _near(root, True) if os.path.exists(folder / name))
    holder = next((folder for folder in folders if not _is_root(folder)), None)
    if holder is not None:
        return (
            f", but in {holder}: put the folders samples and sweeps of all archives together into "
            f"{root}, or link them there"
        )
    if top and not (root / SWEEPS).exists():
        return (
            f"; {root} has no sweeps, which are archives of their own (data.nsweeps=1 needs none)"
        )
    return ""


def _near(root: Path, beside: bool) -> Iterator[Path]:
    """Folders that may have been meant: those above, inside, inside these, and beside."""
    resolved = root.absolute()
    yield from islice(resolved.parents, 3)
    inside = list(_folders(root))
    yield from inside
    for folder in inside:
        yield from _folders(folder)
    if beside:
        yield from _folders(resolved.parent)


def _folders(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        names = sorted(islice((f for f in folder.iterdir() if f.is_dir()), _MOST))
        yield from names


def _has_tables(folder: Path) -> bool:
    with suppress(OSError):
        return os.path.isfile(folder / "scene.json")
    return False


def _is_root(folder: Path) -> bool:
    """Whether it is a data root of its own."""
    return any(map(_has_tables, _folders(folder)))


def _there(folder: Path) -> str:
    """What a folder holds, in words."""
    if not os.path.isdir(folder):
        return f"nor does {folder} exist"
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{folder} holds {', '.join(names[:10]) + more if names else 'nothing'}"
