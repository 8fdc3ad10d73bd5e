"""The part of ``lmd check`` that checks a data set: its tables, then its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.split import SplitSamples
from lmd_cli.decomposition import DecompositionError
from lmd_cli.errors import LmdError
from lmd_cli.runtime.progress import Progress

#: Of many problems of one kind so many are listed.
LISTED = 50

Status = Literal["ok", "note", "FAIL"]
T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One check and its outcome."""

    name: str
    status: Status
    detail: str


@dataclass
class Checks:
    """The checks so far.

    Attributes:
        checks: in the order in which they were made.
    """

    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing would fail."""
        return all(check.status != "FAIL" for check in self.checks)

    def add(self, name: str, passed: bool, detail: str) -> None:
        """A check that can fail."""
        self.checks.append(Check(name, "ok" if passed else "FAIL", detail))

    def note(self, name: str, detail: str) -> None:
        """Something to know that stops nothing."""
        self.checks.append(Check(name, "note", detail))

    def attempt(self, name: str, action: Callable[[], T]) -> T | None:
        """The result of ``action``; or none, and a failed check with its message."""
        try:
            return action()
        except (LmdError, DecompositionError) as error:
            self.add(name, False, str(error))
            return None


def check_tables(checks: Checks, dataset: SplitSamples) -> None:
    """Every record that samples need, and what the tables lack."""
    problems = dataset.problems()
    checks.add("tables", not problems, _listed(problems) or "every record can be used")
    if dataset.left_out:
        lacking = ", ".join(dataset.left_out)
        checks.note("channels", f"the tables have no {lacking}: samples are read without")
    if not dataset.annotated:
        checks.note("annotations", "there are none: nothing is compared with the truth, no IoU")


def check_files(checks: Checks, dataset: SplitSamples) -> None:
    """Every file by its name and size, without reading it."""
    missing = dataset.missing_files()
    lacking = [f"{channel} {count}" for channel, count in missing.items() if count]
    if lacking:
        checks.add("data files", False, f"missing: {', '.join(lacking)}{dataset.missing_hint()}")
    else:
        checks.add("data files", True, f"none missing, {len(missing)} channels")
    empty = dataset.empty_files()
    if empty:
        checks.add("empty files", False, _listed(empty))


def check_contents(
    checks: Checks, dataset: SplitSamples | CustomSamples, progress: Progress
) -> None:
    """Reads every file, or every item of a data set of the user's own."""
    jobs: list[tuple[Callable[..., Any], tuple[Any, ...]]]
    if isinstance(dataset, SplitSamples):
        needed = dataset.needed_files().items()
        jobs = [(dataset.read_file, (channel, name)) for channel, names in needed for name in names]
    else:
        jobs = [(dataset.__getitem__, (index,)) for index in range(len(dataset))]
    progress.start(len(jobs), "reading every file")
    try:
        damaged = [
            message
            for message in _attempted(jobs, isinstance(dataset, SplitSamples), progress)
            if message
        ]
    finally:
        progress.close()
    what = "files" if isinstance(dataset, SplitSamples) else "items"
    checks.add(
        "file contents", not damaged, _listed(damaged) or f"all {len(jobs)} {what} are readable"
    )


def _attempted(
    jobs: list[tuple[Callable[..., Any], tuple[Any, ...]]], together: bool, progress: Progress
) -> Iterator[str]:
    """For each job, what is wrong, or nothing."""
    with ThreadPoolExecutor(os.cpu_count() if together else 1) as pool:
        for message in pool.map(lambda job: _attempt(*job), jobs):
            progress.advance()
            yield message


def _attempt(action: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    try:
        action(*arguments)
    except LmdError as error:
        return str(error)
    return ""


def _listed(problems: list[str]) -> str:
    """So many of them, and how many more."""
    more = len(problems) - LISTED
    return "\n".join([*problems[:LISTED], *([f"and {more} more"] if more > 0 else [])])
