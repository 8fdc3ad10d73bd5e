"""Replacing files so that nobody ever sees a torn one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """A new file, to write and read, that takes a path's place in one step after the block.

    Readers see the old bytes or the new. If the block raises, the old file stays and nothing else
    is left; only a killed process leaves a ``.NAME.part`` behind.

    Args:
        path: the file to replace.
        shared: other processes may write the same path at the same time; the last one wins.

    Raises:
        OSError: it cannot be written.
    """
    own = f".{os.getpid()}" if shared else ""
    draft = path.with_name(f".{path.name}{own}.part")
    try:
        with open(draft, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
