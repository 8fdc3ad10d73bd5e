"""Time spent waiting for data, apart from time spent computing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds since the last :meth:`lap`, and how many of them went into reading."""

    def __init__(self) -> None:
        self._start, self._read = time.monotonic(), 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Counts the block as reading."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._read += time.monotonic() - begin

    def lap(self) -> tuple[float, float]:
        """Seconds (reading, computing) since the last lap."""
        now = time.monotonic()
        read, rest = self._read, now - self._start - self._read
        self._start, self._read = now, 0.0
        return read, rest
