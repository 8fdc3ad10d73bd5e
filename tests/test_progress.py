"""Progress on a terminal and in a log."""

from __future__ import annotations

import io
import itertools

from lmd_cli.progress import Bar, Lines, Silent, counter, make_progress


def test_a_log_gets_few_lines_and_always_the_last():
    stream, clock = io.StringIO(), itertools.count()  # a second for each look at it
    lines = Lines(stream, clock=lambda: float(next(clock)))
    lines.start(100, "work")
    for i in range(100):
        lines.advance(note=f"item {i}")
    lines.close()
    written = stream.getvalue().splitlines()
    assert written[0] == "work: 100 to do"
    assert written[-1] == "work: 100/100, 100 s, item 99"
    assert len(written) == 11  # every tenth of the task


def test_a_quick_task_gets_a_first_and_a_last_line():
    stream = io.StringIO()
    lines = Lines(stream, clock=lambda: 0.0)
    lines.start(50, "work")
    for _ in range(50):
        lines.advance()
    assert stream.getvalue().splitlines() == ["work: 50 to do", "work: 50/50, 0 s"]


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


def test_counts_become_steps():
    steps: list[int] = []

    class Recorder(Silent):
        def advance(self, n: int = 1, note: str = "") -> None:
            steps.append(n)

    report = counter(Recorder(), "work")
    for done in (1, 4, 6):
        report(done, 6)
    assert steps == [1, 3, 2]
