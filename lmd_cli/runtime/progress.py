"""Progress of a long task: a bar on a terminal, a line now and then anywhere else.

Both say the same: steps done, rate, time left, the share of the time spent waiting for data, and
what the last step was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import IO, Any, Protocol

from lmd_cli.runtime.printable import printable

#: Least and most seconds between two lines, and the share of the time passed that lies between.
SHORTEST, LONGEST, GROWTH = 5.0, 60.0, 1 / 20
#: Width of the bar, characters.
BAR = 20
Clock = Callable[[], float]
#: Whether :func:`make_progress` shows nothing.
hidden: ContextVar[bool] = ContextVar("hidden", default=False)


class Progress(Protocol):
    """A task is started, advanced and closed; then another may be started."""

    def start(self, total: int, description: str) -> None:
        """Begin a task of ``total`` steps, closing the one before."""

    def advance(self, n: int = 1, note: str = "", waiting: float | None = None) -> None:
        """``n`` more steps are done.

        Args:
            n: how many.
            note: what the last one was.
            waiting: share of the time, from 0 to 1, that the task has waited for data so far.
        """

    def close(self) -> None:
        """End the task, finished or not."""


class Silent:
    """Shows nothing."""

    def start(self, total: int, description: str) -> None:
        """Nothing to show."""

    def advance(self, n: int = 1, note: str = "", waiting: float | None = None) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


class Meter:
    """Counts steps and time. A clock that goes back stands still; one that jumps ahead counts."""

    def __init__(self, total: int, clock: Clock = time.monotonic):
        self.total, self.done = total, 0
        self._clock, self._latest, self._elapsed = clock, clock(), 0.0

    def elapsed(self) -> float:
        """Seconds since the start, never fewer than before."""
        now = self._clock()
        self._elapsed += max(now - self._latest, 0.0)
        self._latest = now
        return self._elapsed

    def status(self, note: str = "", waiting: float | None = None) -> str:
        """``0.5/s, 20 s left, 3 % waiting for data, NOTE``; what is not known is left out."""
        seconds, pieces = self.elapsed(), []
        if self.done and seconds > 0:
            pieces.append(rate(self.done / seconds))
        if self.done >= self.total:
            pieces.append(f"{duration(seconds)} in all")
        elif self.done:
            pieces.append(f"{duration((self.total - self.done) * seconds / self.done)} left")
        if waiting is not None:
            pieces.append(f"{min(max(waiting, 0.0), 1.0):.0%} waiting for data")
        return ", ".join([*pieces, *([printable(note)] if note else [])])


def rate(steps: float) -> str:
    """Steps a second, or seconds a step if it is slower than that."""
    return f"{steps:.3g}/s" if steps >= 1 else f"{1 / steps:.3g} s each"


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Lines:
    """A line at the start, every few seconds (every minute in a long task), and at the end."""

    def __init__(self, stream: IO[str], clock: Clock = time.monotonic):
        self._stream, self._clock = stream, clock
        self._meter = Meter(0, clock)

    def start(self, total: int, description: str) -> None:
        """Begin a task of ``total`` steps."""
        self._meter, self._description = Meter(total, self._clock), description
        self._due = SHORTEST
        self._write(f"{description}: {total} to do")

    def advance(self, n: int = 1, note: str = "", waiting: float | None = None) -> None:
        """``n`` more steps are done."""
        meter = self._meter
        before, meter.done = meter.done, meter.done + n
        seconds, finished = meter.elapsed(), before < meter.total <= meter.done
        if finished or seconds >= self._due:
            self._due = seconds + min(max(SHORTEST, GROWTH * seconds), LONGEST)
            status = meter.status(note, waiting)
            self._write(f"{self._description}: {meter.done}/{meter.total}, {status}")

    def close(self) -> None:
        """Nothing to close."""

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Bar:
    """A bar with the same status beside it, on standard error."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._bar: Any = None

    def start(self, total: int, description: str) -> None:
        """Begin a task of ``total`` steps."""
        from rich import progress
        from rich.console import Console
        from rich.table import Column

        self.close()
        rest = Column(no_wrap=True, overflow="ellipsis")
        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(BAR),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[status]}", markup=False, table_column=rest),
        )
        self._meter = Meter(total, self._clock)
        self._bar = progress.Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(description, total=total, status="")
        self._bar.start()

    def advance(self, n: int = 1, note: str = "", waiting: float | None = None) -> None:
        """``n`` more steps are done."""
        if self._bar is not None:
            self._meter.done += n
            status = self._meter.status(note, waiting)
            self._bar.update(self._task, completed=self._meter.done, status=status)

    def close(self) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def make_progress(stream: IO[str] | None = None) -> Progress:
    """A bar if ``stream`` (standard error by default) is a terminal, else lines; none if hidden."""
    if hidden.get():
        return Silent()
    stream = stream if stream is not None else sys.stderr
    return Bar() if stream is sys.stderr and stream.isatty() else Lines(stream)


def counter(progress: Progress, description: str) -> Callable[[int, int], None]:
    """``report(done, total)`` for functions that count for themselves; starts with the first."""
    state = {"done": -1}

    def report(done: int, total: int) -> None:
        if state["done"] < 0:
            progress.start(total, description)
            state["done"] = 0
        progress.advance(done - state["done"])
        state["done"] = done

    return report
