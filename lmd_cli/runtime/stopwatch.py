"""Measures the time spent waiting for data apart from the time spent computing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds since the last :meth:`lap`, and how many of them went into reading."""

    def __init__(self) -> None:
        self._start, self._read = time.monotonic(), 0.0
        self._begin, self._read_in_all = self._start, 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Counts the block as reading."""
        begin = time.monotonic()
        try:
            yield
        finally:
            seconds = max(time.monotonic() - begin, 0.0)  # should a clock ever jump back
            self._read += seconds
            self._read_in_all += seconds

    @property
    def waiting_share(self) -> float:
        """Of the time since the start, the fraction that went into reading."""
        return self._read_in_all / max(time.monotonic() - self._begin, 1e-9)

    def lap(self) -> tuple[float, float]:
        """Seconds (reading, computing) since the last lap."""
        now = time.monotonic()
        read, rest = self._read, max(now - self._start - self._read, 0.0)
        self._start, self._read = now, 0.0
        return read, rest
