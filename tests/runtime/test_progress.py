"""Progress on a terminal and in a log."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmd_cli.runtime.progress import (
    Bar,
    Lines,
    Meter,
    Silent,
    counter,
    duration,
    make_progress,
    rate,
)


class FakeClock:
    """Tells the time that it is given."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def written(total: int, seconds: float, **said: float) -> list[str]:
    """The lines of a task whose steps take so long."""
    stream, clock = io.StringIO(), FakeClock()
    lines = Lines(stream, clock)
    lines.start(total, "work")
    for i in range(total):
        clock.now += seconds
        lines.advance(note=f"item {i}", **said)
    lines.close()
    return stream.getvalue().splitlines()


def test_a_log_gets_a_line_every_few_seconds_that_says_everything():
    assert written(10, 2.0, waiting=0.25) == [
        "work: 10 to do",
        "work: 3/10, 2 s each, 14 s left, 25% waiting for data, item 2",
        "work: 6/10, 2 s each, 8 s left, 25% waiting for data, item 5",
        "work: 9/10, 2 s each, 2 s left, 25% waiting for data, item 8",
        "work: 10/10, 2 s each, 20 s in all, 25% waiting for data, item 9",
    ]


def test_a_long_task_gets_a_line_a_minute():
    lines = written(6019, 10.0)
    assert 1000 < len(lines) < 1100
    assert lines[-1] == "work: 6019/6019, 10 s each, 16 h 43 min in all, item 6018"


def test_a_quick_task_gets_a_first_and_a_last_line():
    assert written(50, 0.0) == ["work: 50 to do", "work: 50/50, 0 s in all, item 49"]


def test_a_task_that_is_done_already_says_no_more():
    assert written(0, 1.0) == ["work: 0 to do"]


def test_a_clock_that_jumps_breaks_nothing():
    clock = FakeClock()
    meter = Meter(4, clock)
    seen = []
    for jump in (1.0, -5000.0, 1.0, 1.0):
        clock.now += jump
        meter.done += 1
        seen.append((meter.elapsed(), meter.status()))
    assert [seconds for seconds, _ in seen] == [1.0, 1.0, 2.0, 3.0]
    assert seen[1][1] == "2/s, 1 s left"
    assert seen[3][1] == "1.33/s, 3 s in all"
    assert Meter(4, clock).status(waiting=7.0) == "100% waiting for data"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.7, "1 min 0 s"), (185, "3 min 5 s"), (7805, "2 h 10 min")],
)
def test_durations(seconds: float, said: str):
    assert duration(seconds) == said


def test_rates():
    assert [rate(steps) for steps in (12.345, 1.0, 0.25)] == ["12.3/s", "1/s", "4 s each"]


def test_what_is_not_a_terminal_gets_lines():
    assert isinstance(make_progress(io.StringIO()), Lines)


def test_a_bar_can_be_started_again_and_closed_twice(capsys):
    bar = Bar()
    bar.advance()
    for total in (2, 3):
        bar.start(total, "work")
        bar.advance(2, "note")
    bar.close()
    bar.close()
    assert "work" in capsys.readouterr().err


def on_a_terminal(code: str, width: int) -> str:
    """What a process writes to a terminal of its own, without colours and movements."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "TERM": "xterm"}
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=slave, stdout=slave, env=environment, cwd=root
    )
    os.close(slave)
    actual = b""
    try:
        while piece := os.read(master, 65536):
            actual += piece
    except OSError:  # Linux says so at the end of a terminal
        pass
    os.close(master)
    assert process.wait() == 0, actual.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", actual.decode())


def test_a_terminal_gets_a_bar_that_says_the_same():
    code = """
from lmd_cli.runtime.progress import Bar, make_progress
bar = make_progress()
assert isinstance(bar, Bar)
now = iter(range(100))
bar._clock = lambda: float(next(now))
bar.start(3, "work [b]")
bar.advance(note="token [1]", waiting=0.5)
bar.advance(2, note="last", waiting=0.25)
bar.close()
"""
    shown = on_a_terminal(code, 120)
    last = [line for line in shown.replace("\r", "\n").splitlines() if line.strip()][-1]
    assert last.startswith("work [b] ━━━━")
    assert re.search(r"3/3 1\.5/s, 2 s in all, 25% waiting for data, last *$", last)
    narrow = on_a_terminal(code, 60)
    assert all(len(line) <= 60 for line in narrow.replace("\r", "\n").splitlines())
    assert "…" in narrow


def test_counts_become_steps():
    steps: list[int] = []

    class Recorder(Silent):
        def advance(self, n: int = 1, note: str = "", waiting: float | None = None) -> None:
            steps.append(n)

    report = counter(Recorder(), "work")
    for done in (1, 4, 6):
        report(done, 6)
    assert steps == [1, 3, 2]
