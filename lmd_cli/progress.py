"""How far a long task is: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO, Protocol

#: Seconds between two lines.
INTERVAL = 5.0


class Progress(Protocol):
    """A task is started, advanced and closed; then another may be started."""

    def start(self, total: int, description: str) -> None:
        """Begin a task of ``total`` steps, closing the one before."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """``n`` more steps are done; ``note`` says what the last one was."""

    def close(self) -> None:
        """End the task, finished or not."""


class Silent:
    """Shows nothing."""

    def start(self, total: int, description: str) -> None:
        """Nothing to show."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


class Lines:
    """A line at the start, at most every few seconds or tenth of the task, and at the end."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock = stream, clock
        self._total = 0

    def start(self, total: int, description: str) -> None:
        """Begin a task of ``total`` steps."""
        self._total, self._done, self._description = total, 0, description
        self._shown, self._started = 0, self._clock()
        self._time = self._started
        self._write(f"{description}: {total} to do")

    def advance(self, n: int = 1, note: str = "") -> None:
        """``n`` more steps are done."""
        self._done += n
        now = self._clock()
        due = (self._done - self._shown) * 10 >= self._total or self._done >= self._total
        if due and (now - self._time >= INTERVAL or self._done >= self._total):
            self._shown, self._time = self._done, now
            tail = f", {note}" if note else ""
            seconds = now - self._started
            self._write(f"{self._description}: {self._done}/{self._total}, {seconds:.0f} s{tail}")

    def close(self) -> None:
        """Nothing to close."""

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Bar:
    """A bar with the time left, on standard error."""

    def __init__(self) -> None:
        self._bar: object | None = None

    def start(self, total: int, description: str) -> None:
        """Begin a task of ``total`` steps."""
        from rich import progress
        from rich.console import Console

        self.close()
        columns = (
            *progress.Progress.get_default_columns(),
            progress.TextColumn("{task.fields[note]}"),
        )
        self._bar = bar = progress.Progress(*columns, console=Console(stderr=True))
        self._task = bar.add_task(description, total=total, note="")
        bar.start()

    def advance(self, n: int = 1, note: str = "") -> None:
        """``n`` more steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, advance=n, note=note)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]
            self._bar = None


def make_progress(stream: IO[str] | None = None) -> Progress:
    """A bar if ``stream`` (standard error by default) is a terminal, else lines."""
    stream = stream if stream is not None else sys.stderr
    return Bar() if stream is sys.stderr and stream.isatty() else Lines(stream)


def counter(progress: Progress, description: str) -> Callable[[int, int], None]:
    """``report(done, total)`` for functions that count for themselves; starts with the first."""
    state = {"done": 0}

    def report(done: int, total: int) -> None:
        if not state["done"]:
            progress.start(total, description)
        progress.advance(done - state["done"])
        state["done"] = done

    return report
