"""What is said of a data file that cannot be used."""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from pathlib import Path, PurePath

from lmd_cli.errors import DataError
from lmd_cli.files import kind_of

#: Errors where a limit of the system is reached, whatever the file.
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def file_error(path: Path, problem: str, token: str | None) -> DataError:
    """A :class:`DataError` that names the file and, where known, the sample that needs it."""
    needed = "" if token is None else f" (needed by sample {token})"
    return DataError(f"{path}: {problem}{needed}", path=path, token=token)


def data_file(root: Path, name: str, token: str | None) -> Path:
    """The file that a table names; links may lead anywhere, names only into the data root.

    Raises:
        DataError: the name leads out of the root, or to a pipe, a device or a folder.
    """
    path = root / name
    inside = PurePath(name)
    if inside.is_absolute() or ".." in inside.parts or "\0" in name or not inside.parts:
        problem = f"the tables name {name!r}, which is not inside the data root {root}"
        raise DataError(f"{problem} (needed by sample {token})", path=path, token=token)
    with suppress(OSError):  # said when it is read
        if not stat.S_ISREG(path.stat().st_mode):
            raise file_error(path, f"is {kind_of(path.resolve())}; expected a file", token)
    return path


def read_bytes(path: Path, token: str | None) -> bytes:
    """The whole file.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise file_error(path, "file not found", token) from None
    except OSError as error:
        if error.errno in SCARCE:
            raise  # says nothing of the file
        raise file_error(path, f"cannot be read: {error.strerror}", token) from error
