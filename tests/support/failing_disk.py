"""A disk that fails at a moment of one's choice, under the modules that write results."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from lmd_cli.results import journal, rows
from lmd_cli.results import run_folder as results
from lmd_cli.runtime import files


class DiedError(BaseException):
    """The process is gone: nothing that it would still do reaches the files."""


class FailingDisk:
    """Counts opens, writes, truncations, syncs, renames and removals, and fails at one of them.

    A failing write leaves half of its bytes. A process that has died changes nothing any more; on
    a full disk, nothing can be written any more but files can be removed.

    Args:
        fail_at: which of the moments, from 1; 0 for none.
        full: the disk is full, else the process dies.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int = 0, *, full: bool = False):
        self.count, self._fail_at, self._full, self._failed = 0, fail_at, full, False
        for module in (files, results, rows, journal):
            monkeypatch.setattr(module, "open", self._open, raising=False)
        for owner, name in ((os, "fsync"), (os, "replace"), (Path, "mkdir")):
            monkeypatch.setattr(owner, name, self._guarded(getattr(owner, name)))
        for name in ("unlink", "rmdir"):
            monkeypatch.setattr(Path, name, self._guarded(getattr(Path, name), removes=True))

    def step(self, removes: bool = False) -> None:
        """One more moment."""
        if self._failed and not self._full:
            raise DiedError
        if self._full and removes:
            return
        self.count += 1
        if self._failed or self.count == self._fail_at:
            self._failed = True
            raise OSError(errno.ENOSPC, "No space left on device") if self._full else DiedError

    def _guarded(self, function: Any, removes: bool = False) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.step(removes)
            return function(*args, **kwargs)

        return call

    def _open(self, path: Path, mode: str = "r", **options: Any) -> Any:
        if mode in ("r", "rb"):
            return open(path, mode, **options)
        self.step()
        return _File(self, open(path, mode, buffering=0, **options))


class _File:
    """An unbuffered file: what is written before a failure is there."""

    def __init__(self, failing: FailingDisk, raw: Any):
        self._failing, self._raw = failing, raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._raw.close()

    def __iter__(self) -> Any:
        return iter(self._raw)

    def write(self, data: bytes) -> None:
        try:
            self._failing.step()
        except BaseException:
            self._raw.write(data[: len(data) // 2])
            raise
        self._raw.write(data)

    def truncate(self, size: int) -> None:
        self._failing.step()
        self._raw.truncate(size)
