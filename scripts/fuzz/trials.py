"""Trials with damaged input: each must end in a result or in one of our messages, and soon."""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmd_cli.errors import LmdError

#: Seconds of computing that a trial may take; and of waiting, which a busy machine causes too.
LONGEST, LONGEST_WAIT = 30, 240
#: What may stand where anything else belongs.
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 2**31, 10**30, 1e308, float("nan"), float("inf"), [], {}, [[]]),
    *("", "x", "../../x", "/dev/zero", "=1+1", "two\nlines", "\x1b[2J", "\ud800", "\0", "a" * 5000),
    *({"a": None}, [None] * 50, "1e999", "-5", "٣"),
)

Trial = Callable[[random.Random, Path], None]


class TooSlowError(Exception):
    """A trial that takes longer than :data:`LONGEST` or :data:`LONGEST_WAIT`."""


def main(description: str, trial: Trial) -> None:
    """Runs trials until the time is over; ends with 1 if any fails.

    Args:
        description: of the script.
        trial: what to do with random numbers in an empty folder; may raise :class:`LmdError`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--seconds", type=float, default=60.0, help="when to stop")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    attempt(trial, given.seed)  # imports what is needed, which takes its time
    deadline, seed, refused, failed = time.monotonic() + given.seconds, given.seed, 0, 0
    while time.monotonic() < deadline:
        outcome = attempt(trial, seed)
        refused += outcome == "refused"
        failed += outcome not in ("refused", "done")
        if outcome not in ("refused", "done"):
            print(f"seed {seed}:\n{outcome}")
        seed += 1
    print(f"{seed - given.seed} trials: {refused} refused, {failed} failed")
    raise SystemExit(1 if failed else 0)


def attempt(trial: Trial, seed: int) -> str:
    """``done``, ``refused``, or the traceback of what went wrong."""
    _limit_time(LONGEST, LONGEST_WAIT)
    try:
        with tempfile.TemporaryDirectory() as folder:
            trial(random.Random(seed), Path(folder))
        return "done"
    except LmdError as error:
        return "refused" if str(error) and error.exit_code == 2 else traceback.format_exc()
    except Exception:
        return traceback.format_exc()
    finally:
        _limit_time(0, 0)


def _limit_time(computing: float, waiting: float) -> None:
    """Raises :class:`TooSlowError` after so many seconds; 0 for never."""
    timers = ((signal.SIGPROF, signal.ITIMER_PROF), (signal.SIGALRM, signal.ITIMER_REAL))
    for (number, timer), seconds in zip(timers, (computing, waiting), strict=True):
        signal.signal(number, _too_slow)
        signal.setitimer(timer, seconds)


def _too_slow(number: int, _: Any) -> None:
    kind, limit = ("computing", LONGEST) if number == signal.SIGPROF else ("waiting", LONGEST_WAIT)
    raise TooSlowError(f"more than {limit} s of {kind}")


def damage_json(value: Any, chance: random.Random) -> Any:
    """The value with something else, nothing, or something twice at a random place inside it."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return chance.choice(VALUES)
    places = list(value) if isinstance(value, dict) else range(len(value))
    place = chance.choice(places)
    if chance.random() < 0.15:
        del value[place]
    else:
        value[place] = damage_json(value[place], chance)
    return value


def damage_bytes(data: bytes, chance: random.Random) -> bytes:
    """The bytes cut, changed, or with lines lost, doubled or swapped."""
    kind = chance.randrange(6)
    place = chance.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + chance.randbytes(chance.randint(1, 8)) + data[place:]
    if kind == 2:
        return data[:place] + b"\0" * min(40, len(data) - place) + data[place + 40 :]
    lines = data.splitlines(keepends=True) or [b""]
    line = chance.randrange(len(lines))
    if kind == 3:
        del lines[line]
    elif kind == 4:
        lines.insert(line, lines[line])
    else:
        cells = lines[line].rstrip(b"\n").split(b",")
        text = str(chance.choice(VALUES)).encode(errors="replace")
        cells[chance.randrange(len(cells))] = text
        lines[line] = b",".join(cells) + b"\n"
    return b"".join(lines)


def damage_file(path: Path, chance: random.Random) -> None:
    """Damages a file's JSON, if it is some, or its bytes."""
    try:
        value = json.loads(path.read_text()) if chance.random() < 0.7 else None
    except ValueError:
        value = None
    if value is None:
        path.write_bytes(damage_bytes(path.read_bytes(), chance))
    else:
        path.write_text(json.dumps(damage_json(value, chance)))
