"""Temporary folders for large results, which are moved to their place once complete."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from lmd_cli.errors import ForeignFileError
from lmd_cli.runtime.files import open_plain
from lmd_cli.runtime.locks import lock_file

#: Says, as long as it is locked, that the maker is alive.
LOCK = "maker.lock"
_ENDING = ".making"
#: Seconds after which a folder without a lock is nobody's: its maker died before it had one.
_LONG = 3600.0


@contextmanager
def making(parent: Path, name: str) -> Iterator[Path]:
    """A new hidden folder for the making of ``parent / name``, gone after the block.

    Those that dead processes left there go first.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _clear(parent, name)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=_ENDING, dir=parent))
    try:
        with open(folder / LOCK, "xb", opener=open_plain) as lock:
            with suppress(OSError):  # a file system without locks: nothing is ever cleared there
                lock_file(lock)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear(parent: Path, name: str) -> None:
    for folder in parent.glob(f".{escape(name)}-*{_ENDING}"):
        if not folder.is_symlink() and abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def abandoned(folder: Path, lock_path: Path | None = None) -> bool:
    """Whether nobody makes anything there any more.

    Args:
        lock_path: what its maker locks; :data:`LOCK` in the folder if none.
    """
    try:
        with open(lock_path or folder / LOCK, "rb", opener=open_plain) as lock:
            lock_file(lock)
        return True
    except FileNotFoundError:
        with suppress(OSError):
            return folder.stat().st_mtime < time.time() - _LONG
    except (OSError, ForeignFileError):
        pass
    return False
