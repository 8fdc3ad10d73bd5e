"""Reads data files, and explains those that cannot be used."""

from __future__ import annotations

import errno
import stat
from contextlib import suppress
from pathlib import Path

from lmd_cli.data.nuscenes.roots import missing_hint
from lmd_cli.errors import DataError
from lmd_cli.runtime.files import is_inside, kind_of
from lmd_cli.runtime.printable import in_one_line

#: Bytes at a file's begin that show its format.
HEAD = 4096
IMAGE, PCD = "it is an image", "it is a .pcd file"
#: Formats of packed files, by their first bytes.
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
#: Errors where a limit of the system is reached, whatever the file.
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def file_error(path: Path, problem: str, token: str | None) -> DataError:
    """A :class:`DataError` that names the file and, where known, the sample that needs it."""
    return DataError(f"{path}: {problem}{_needed(token)}", path=path, token=token)


def _needed(token: str | None) -> str:
    return "" if token is None else f" (needed by sample {in_one_line(token)})"


def data_file(root: Path, name: str, token: str | None) -> Path:
    """The file that a table names; links may lead anywhere, names only into the data root.

    Raises:
        DataError: the name leads out of the root, or to a pipe, a device or a folder.
    """
    path = root / name
    if not is_inside(name):
        problem = f"the tables name {name!r}, which is not inside the data root {root}"
        raise DataError(f"{problem}{_needed(token)}", path=path, token=token)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise file_error(path, f"is {kind_of(path.resolve())}; expected a file", token)
    except FileNotFoundError:
        raise file_error(path, f"file not found{missing_hint(root, name)}", token) from None
    except OSError:  # reported when it is read
        pass
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


def wrong_format(content: bytes, expected: str = "") -> str:
    """What a file is that is not what is ``expected``, if its content (or its begin) shows it."""
    kind = _kind(content, content[:HEAD])
    return "" if kind == expected else kind


def _kind(content: bytes, head: bytes) -> str:
    if not content:
        return "truncated: the file is empty"
    if not any(head) and content.count(0) == len(content):
        return "it holds nothing but zeros"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, whose file was not fetched"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if packed := next((name for begin, name in _PACKED.items() if head.startswith(begin)), ""):
        return f"it is packed ({packed}): unpack it"
    if head.startswith(b"\x89PNG\r\n\x1a\n") or head[6:10] in (b"JFIF", b"Exif"):
        return IMAGE
    if all(word in head for word in (b"\nFIELDS ", b"\nSIZE ", b"\nDATA ")):
        return PCD
    return ""


def read_head(path: Path) -> bytes:
    """A file's begin; nothing where it cannot be read."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read(HEAD)
    return b""
