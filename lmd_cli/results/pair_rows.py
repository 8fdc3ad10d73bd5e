"""The rows of ``pairs.csv``, ``samples.csv`` and ``timings.csv`` on disk, appended as they are
measured.

A stretch of rows begins at a position of the walk and grows at its end. ``samples.csv`` has one
line for each finished sample, written when its lines of ``pairs.csv`` are on the disk; what
follows the last finished sample is cut off before a stretch grows again. The first stretch is the
run's own ``samples.csv`` and ``pairs.csv``. Ranks and resumed runs that begin elsewhere write
stretches in ``rows/``, named by their first position, and :func:`merge` appends them to the first
in order.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from lmd_cli.results.journal import Journal
from lmd_cli.runtime.files import (
    csv_lines,
    disk_errors,
    make_folder,
    open_plain,
    read_own,
    read_text,
    remove_output,
    require_folder,
)

PAIR_FIELDS = (
    "sample_token",
    "perturbed_token",
    "offset",
    "variant",
    "perturbed",
    "target",
    "pcc",
    "mse",
)
SAMPLE_FIELDS = (
    "position",
    "sample_token",
    "status",
    "pairs",
    "missing_partners",
    "intersection",
    "union",
    "residual",
    "replay_deviation",
)
TIMING_FIELDS = ("sample_token", "read_s", "compute_s")
FOLDER = "rows"
_COUNT = re.compile(r"[0-9]{1,15}")


class Stretch:
    """Rows of the positions from ``first`` on.

    Args:
        folder: the run's.
        first: position of its first sample (files such as ``rows/000120.samples.csv``); none for
            the run's own files (``samples.csv``), which begin at the first of all.
    """

    def __init__(self, folder: Path, first: int | None = None):
        self.first, self._inside = first or 0, first is not None
        prefix = "" if first is None else f"{FOLDER}/{first:06d}."
        self.samples = Journal(folder / f"{prefix}samples.csv", csv_lines([SAMPLE_FIELDS]))
        self.pairs = Journal(folder / f"{prefix}pairs.csv", csv_lines([PAIR_FIELDS]))
        self.timings = Journal(folder / f"{prefix}timings.csv", csv_lines([TIMING_FIELDS]))

    def finished(self) -> list[dict[str, str]]:
        """Rows of the samples file up to the first that is torn or out of order."""
        if not os.path.lexists(self.samples.path):
            return []
        whole = read_own(self.samples.path).rpartition(b"\n")[0].decode(errors="replace")
        good: list[dict[str, str]] = []
        with suppress(csv.Error):  # a torn line too
            for row in csv.DictReader(whole.split("\n")):
                if not _whole(row) or row["position"] != str(self.first + len(good)):
                    break
                row["sample_token"] = read_text(row["sample_token"])
                good.append(row)
        return good

    def trim(self) -> int:
        """Cuts off what was not finished and returns how many samples are done.

        A sample is finished if its line is whole and so are its pairs, whichever file lost its end.

        Raises:
            ResultsError: a file has other columns than this version writes.
        """
        if self._inside:
            with disk_errors(self.samples.path.parent):
                make_folder(self.samples.path.parent)
        self.samples.begin()
        self.pairs.begin()
        self.timings.begin(strict=False)
        done, pairs = self._backed()
        self.samples.keep(done)
        self.timings.keep()
        self.pairs.keep(pairs)
        return done

    def _backed(self) -> tuple[int, int]:
        """How many samples have all their pairs, and how many pairs these are."""
        lines = self.pairs.lines()
        done = pairs = 0
        for row in self.finished():
            begins = csv_lines([[row["sample_token"]]])[:-1] + b","
            own_lines = list(islice(lines, int(row["pairs"])))
            whole = all(line.startswith(begins) for line in own_lines)
            if len(own_lines) < int(row["pairs"]) or not whole:
                break
            done, pairs = done + 1, pairs + len(own_lines)
        return done, pairs

    def append(
        self,
        pairs: Iterable[Sequence[Any]],
        sample: Sequence[Any],
        timing: Sequence[Any] | None = None,
    ) -> None:
        """One more sample; returns when it is on the disk."""
        self.pairs.append(csv_lines(pairs))
        self.samples.append(csv_lines([sample]))
        if timing is not None:
            self.timings.append(csv_lines([timing]), wait=False)

    def absorb(self, other: Stretch, skip: int, end: int | None = None) -> None:
        """Appends the rows of another stretch, which is trimmed: from sample ``skip`` to ``end``,
        both counted from its first (all by default)."""
        rows = other.finished()[:end]
        before, more = _pairs(rows[:skip]), _pairs(rows[skip:])
        self.pairs.append(other.pairs.read(before, before + more))
        self.samples.append(other.samples.read(skip, len(rows)))
        self.timings.append(other.timings.read(skip, len(rows)))

    def cut(self, count: int) -> None:
        """Keeps only the first samples."""
        self.samples.keep(count)
        self.trim()

    def remove(self) -> None:
        """Deletes the files: the samples first, so that no pairs are missed in between."""
        for journal in (self.samples, self.pairs, self.timings):
            with disk_errors(journal.path):
                remove_output(journal.path)


def stretches(folder: Path) -> list[Stretch]:
    """Those in ``rows/``, by their first position."""
    require_folder(folder / FOLDER)
    names = {path.name.partition(".")[0] for path in (folder / FOLDER).glob("*.csv")}
    return [Stretch(folder, int(name)) for name in sorted(names) if name.isdecimal()]


def merge(folder: Path) -> int:
    """Appends to the run's own files every stretch that follows on, and deletes what is in there.

    Cut off anywhere, it can be done again: a stretch is deleted once its rows are on the disk.

    Returns:
        How many samples the run's own files have.

    Raises:
        ResultsError: a file has other columns than this version writes.
    """
    main = Stretch(folder)
    done = main.trim()
    for stretch in sorted(stretches(folder), key=lambda each: each.first):
        rows = stretch.trim()
        end = stretch.first + rows
        if stretch.first <= done < end:
            main.absorb(stretch, done - stretch.first)
            done = end
        if end <= done or not rows:
            stretch.remove()
    _remove_if_empty(folder / FOLDER)
    return done


def missing(folder: Path, done: int, last: int) -> list[range]:
    """Positions before ``last`` that no stretch has.

    Args:
        done: samples in the run's own files, which :func:`merge` gives.
    """
    gaps: list[range] = []
    for stretch in sorted(stretches(folder), key=lambda each: each.first):
        gaps.append(range(done, min(stretch.first, last)))
        done = max(done, stretch.first + len(stretch.finished()))
    gaps.append(range(done, last))
    return [gap for gap in gaps if gap]


def remove_stretches(folder: Path) -> None:
    """Deletes all of ``rows/`` that is ours."""
    for stretch in stretches(folder):
        stretch.remove()
    _remove_if_empty(folder / FOLDER)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


class Watch:
    """Counts the samples that other ranks have finished.

    Args:
        paths: files with a line for each.
        headers: lines before them in each file.
    """

    def __init__(self, paths: Iterable[Path], headers: int = 1):
        self._paths, self._headers = list(paths), headers
        self._read = dict.fromkeys(self._paths, 0)
        self._lines = dict.fromkeys(self._paths, 0)
        self._reported = 0

    def count_new(self) -> int:
        """How many more since the last call."""
        for path in self._paths:
            if path.exists():
                with open(path, "rb", opener=open_plain) as file:
                    file.seek(self._read[path])
                    data = file.read()
                self._read[path] += len(data)
                self._lines[path] += data.count(b"\n")
        total = sum(max(lines - self._headers, 0) for lines in self._lines.values())
        new, self._reported = max(total - self._reported, 0), max(total, self._reported)
        return new


def sample_paths(folder: Path, parts: Iterable[range]) -> list[Path]:
    """The files of finished samples of some ranges of positions."""
    return [Stretch(folder, part.start).samples.path for part in parts]


def _pairs(rows: Iterable[Mapping[str, str]]) -> int:
    return sum(int(row["pairs"]) for row in rows)


def _whole(row: dict[Any, Any]) -> bool:
    """A line with every field and none more, and numbers where they belong."""
    if set(row) != set(SAMPLE_FIELDS) or None in row.values() or not _COUNT.fullmatch(row["pairs"]):
        return False
    counts = all(_COUNT.fullmatch(row[name] or "0") for name in ("intersection", "union"))
    return counts and all(_is_float(row[name] or "0") for name in ("residual", "replay_deviation"))


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
