"""What a run's results came from and whether they are still what was written.

``run.json`` is the same whenever the same is computed. What differs from start to start (date,
machine, command line, time taken) is in ``invocations.jsonl``, one line for each start and end.
``data.sha256`` lists hashes of data files, as ``sha256sum -c`` reads them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lmd_cli
from lmd_cli.config.shipped import PACKAGE
from lmd_cli.data.content import file_sha256
from lmd_cli.errors import ForeignFileError, ResultsError
from lmd_cli.results.journal import Journal
from lmd_cli.runtime.files import read_own, write_atomically
from lmd_cli.runtime.revision import revision

#: What is said of a run of which every sample was there.
FINISHED = "already finished, nothing computed"
INVOCATIONS, DATA = "invocations.jsonl", "data.sha256"
#: In the survey's folder, how it was made.
MADE = "made.json"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


# -- results ------------------------------------------------------------------------------


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those files of a folder that are there."""
    hashes = {n: file_sha256(folder / n) for n in names if not (folder / n).is_symlink()}
    return {name: value for name, value in hashes.items() if value is not None}


def edited(folder: Path, record: Mapping[str, Any] | None) -> dict[str, str]:
    """Result files that are not what the record says: by name ``changed`` or ``removed``."""
    recorded = (record or {}).get("files") or {}
    now = hashes_of(folder, recorded)
    return {
        name: "changed" if name in now else "removed"
        for name, value in recorded.items()
        if now.get(name) != value
    }


def require_unedited(folder: Path, record: Mapping[str, Any] | None) -> None:
    """Refuses result files that somebody changed; those that are gone can be made again.

    Raises:
        ResultsError: names them.
    """
    different = [n for n, what in edited(folder, record).items() if what == "changed"]
    if different:
        raise ResultsError(
            f"{folder}: {', '.join(different)} changed after the run ended (by the hashes in "
            "run.json). Put the file back, or compute again with --overwrite"
        )


# -- data ---------------------------------------------------------------------------------


def read_data_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of data files by name; nothing without a list."""
    try:
        text = read_own(folder / DATA).decode(errors="replace")
    except FileNotFoundError:
        return {}
    matches = (_LINE.fullmatch(line) for line in text.split("\n"))
    return {match[2]: match[1] for match in matches if match}


def claim_data(folder: Path, hashes: Mapping[str, str]) -> None:
    """Writes the list of data files, together with those that are listed already.

    Raises:
        ResultsError: a file is another than it was; names it.
        RunError: the disk is full.
    """
    before = read_data_hashes(folder)
    different = [n for n, value in hashes.items() if before.get(n, value) != value]
    if different:
        raise ResultsError(
            f"{folder} holds results of other data: {different[0]} has changed since"
            f"{f', and {len(different) - 1} more files' if different[1:] else ''}. Use another "
            "--output, or --overwrite to replace them"
        )
    listed = before | dict(hashes)
    if listed != before:
        lines = "".join(f"{value}  {name}\n" for name, value in sorted(listed.items()))
        write_atomically(folder / DATA, lines.encode())


# -- invocations --------------------------------------------------------------------------


def note_start(folder: Path) -> None:
    """Adds a line: when, by which command, on which machine, with which code.

    Raises:
        RunError: the disk is full.
    """
    _note(
        folder,
        {
            "event": "started",
            "date": _now(),
            "command": sys.argv,
            "machine": machine(),
            "code": revision(PACKAGE),
        },
    )


def note_end(folder: Path, status: str, seconds: float) -> None:
    """Adds a line: when, and with which status."""
    _note(
        folder,
        {"event": "ended", "date": _now(), "status": status, "seconds": round(seconds, 1)},
    )


def note_survey(folder: Path, seconds: float) -> None:
    """Writes :data:`MADE`: when, by which command and program, on which machine, in what time.

    Raises:
        RunError: the disk is full.
    """
    made = {
        "date": _now(),
        "command": " ".join(sys.argv),
        "version": lmd_cli.__version__,
        "code": revision(PACKAGE),
        "machine": machine(),
        "seconds": round(seconds, 1),
    }
    write_atomically(folder / MADE, json.dumps(made, indent=2, default=str).encode() + b"\n")


def survey_made(folder: Path) -> dict[str, Any]:
    """What :func:`note_survey` wrote; nothing if it cannot be read."""
    try:
        made = json.loads(read_own(folder / MADE))
    except (OSError, ValueError, RecursionError, ForeignFileError):
        return {}
    return made if isinstance(made, dict) else {}


def machine() -> dict[str, Any]:
    """The machine, in plain values."""
    import torch

    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(number) for number in gpus],
    }


def _note(folder: Path, entry: Mapping[str, Any]) -> None:
    journal = Journal(folder / INVOCATIONS)
    journal.keep()  # a line that was cut off is no entry
    journal.append(json.dumps(entry, ensure_ascii=False, default=str).encode() + b"\n", wait=False)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def invocations(folder: Path) -> list[dict[str, Any]]:
    """The lines that can be read."""
    entries = []
    for line in Journal(folder / INVOCATIONS).lines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
