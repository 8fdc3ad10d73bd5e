"""What is said of a data file that cannot be used."""

from __future__ import annotations

from pathlib import Path

from lmd_cli.errors import DataError


def file_error(path: Path, problem: str, token: str | None) -> DataError:
    """A :class:`DataError` that names the file and, where known, the sample that needs it."""
    needed = "" if token is None else f" (needed by sample {token})"
    return DataError(f"{path}: {problem}{needed}", path=path, token=token)


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
        raise file_error(path, f"cannot be read: {error.strerror}", token) from error
