"""Writes files atomically, and never through a link."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape as glob_escape
from pathlib import Path, PurePath
from typing import IO, Any

from lmd_cli.errors import ForeignFileError, RunError
from lmd_cli.runtime.locks import lock_file

#: A link is not followed; a pipe without a second end does not hold us up.
_NO_LINK, _NO_WAIT = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)
#: Characters of a name made from a text.
_LONGEST = 100
#: What opening says of a link (two systems), of a pipe or socket that nobody reads, and of a
#: folder.
_NO_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR)
#: A text that a spreadsheet would run as a formula; one that was made harmless.
_FORMULA, _QUOTED_FORMULA = re.compile(r"'*[=+\-@\t\r]"), re.compile(r"'+[=+\-@\t\r]")
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISBLK(mode) or stat.S_ISCHR(mode), "a device"),
)


def open_plain(path: str | os.PathLike[str], flags: int) -> int:
    """Opener (see :func:`open`) for a plain file, which a folder from elsewhere may lack.

    Raises:
        ForeignFileError: it is a link, a pipe, a device or a folder.
        OSError: it cannot be opened.
    """
    if os.path.islink(path):
        raise _foreign(path)
    return _opened(path, flags | _NO_LINK)


def open_given(path: str | os.PathLike[str], flags: int) -> int:
    """Opener (see :func:`open`) for a plain file of somebody else's, or a link to one.

    Raises:
        ForeignFileError: it is a pipe, a device or a folder.
        OSError: it cannot be opened.
    """
    true = os.path.realpath(path)
    try:
        return _opened(true, flags)
    except ForeignFileError:
        raise ForeignFileError(f"it is {kind_of(true)}; expected a file") from None


def _opened(path: str | os.PathLike[str], flags: int) -> int:
    try:
        descriptor = os.open(path, flags | _NO_WAIT, 0o666)
    except OSError as error:
        raise (_foreign(path) if error.errno in _NO_FILE else error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _foreign(path)
    return descriptor


def kind_of(path: str | os.PathLike[str]) -> str:
    """``a pipe``, say, of what is no plain file."""
    mode = os.lstat(path).st_mode
    return next((name for test, name in _KINDS if test(mode)), "no plain file")


def is_inside(name: str) -> bool:
    """Whether a name from a file leads to something below the folder that it is joined to."""
    path = PurePath(name)
    return bool(path.parts) and not path.is_absolute() and not {"..", "\0"} & {*path.parts, *name}


def _foreign(path: str | os.PathLike[str]) -> ForeignFileError:
    return ForeignFileError(
        f"{os.fspath(path)} is {kind_of(path)}; expected a plain file. Nothing is read or written "
        "through it: remove it, or use another folder"
    )


def file_name(text: str) -> str:
    """A token or another text from a file as the name of one file or folder, never a path.

    Nothing changes where it is a plain name; a name that had to be changed ends with a digest of
    the text, so that different texts stay different.
    """
    plain = re.sub(r"[^\w.+-]", "_", text)[:_LONGEST].lstrip(".-")
    if text and plain == text:
        return text
    return f"{plain or '_'}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


def read_own(path: Path) -> bytes:
    """A plain file's bytes.

    Raises:
        ForeignFileError: it is none.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=open_plain) as file:
        return file.read()


def make_folder(path: Path) -> Path:
    """A folder inside an output folder, made if it is not there.

    Raises:
        ForeignFileError: it is a link, to a folder that may be anybody's, or a file.
        OSError: it cannot be made.
    """
    require_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def require_folder(path: Path) -> None:
    """Refuses anything but a folder in the place of an output folder.

    Raises:
        ForeignFileError: it is a link, to a folder that may be anybody's, or a file.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
        kind = "a file" if path.is_file() and not path.is_symlink() else kind_of(path)
        raise ForeignFileError(
            f"{path} is {kind}; expected a folder. Nothing is read, written or deleted through it: "
            "remove it, or use another folder"
        )


def remove_output(path: Path) -> None:
    """Removes an output file, or a link in its place, but never what it leads to.

    Raises:
        ForeignFileError: it is a folder.
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        raise _foreign(path)
    path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """A new file, to write and read, that takes a path's place in one step after the block.

    Readers see the old bytes or the new. If the block raises, the old file stays and nothing else
    is left; only a killed process leaves a ``.NAME.part`` behind, which the next one clears.

    Args:
        path: the file to replace.
        shared: other processes may write the same path at the same time; the last one wins.

    Raises:
        OSError: it cannot be written.
    """
    mark = f".{os.getpid()}" if shared else ""
    draft = path.with_name(f".{path.name}{mark}.part")
    if shared:
        _clear_drafts(path)
    draft.unlink(missing_ok=True)
    try:
        with open(draft, "x+b", opener=open_plain) as file:
            if shared:
                with suppress(OSError):  # a file system without locks
                    lock_file(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _clear_drafts(path: Path) -> None:
    """Removes what killed processes left; the living hold a lock."""
    for draft in path.parent.glob(f".{glob_escape(path.name)}.*.part"):
        with suppress(OSError, ForeignFileError), open(draft, "rb", opener=open_plain) as file:
            lock_file(file)
            draft.unlink(missing_ok=True)


#: A number, or a mean with its deviation, is no formula.
_NUMBER = re.compile(r"'*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?( ± [\d.eE+–-]+)?\*?")


def format_value(value: Any) -> str:
    """``repr`` for floats (they read back exactly), nothing for what is undefined.

    Text that a spreadsheet would take for a formula gets an apostrophe in front, see
    :func:`read_text`.
    """
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value
    return repr(value) if isinstance(value, float) else str(value)


def read_text(cell: str) -> str:
    """The text that :func:`format_value` wrote."""
    return cell[1:] if _QUOTED_FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as CSV bytes with ``\\n`` line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([format_value(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a failed write into a message.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free some space and run the same command again to go on"
        else:
            why = error.strerror or str(error)
        raise RunError(f"cannot write {path}: {why}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file in one step: readers see the old bytes or the new, never a torn file.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    with disk_errors(path), replacing(path) as file:
        file.write(data)


def append_synced(path: Path, data: bytes) -> None:
    """Appends, and returns when the bytes are on the disk.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    with disk_errors(path), open(path, "ab", opener=open_plain) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
