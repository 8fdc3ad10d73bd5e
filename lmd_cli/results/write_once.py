"""The folder of a command that writes once: it is written again for the same request only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmd_cli.errors import ResultsError
from lmd_cli.results.record import differences
from lmd_cli.runtime.files import disk_errors, read_own, write_atomically


def write_results(
    folder: Path,
    record: str,
    request: Mapping[str, Any],
    contents: Mapping[str, bytes],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Writes files into a folder that holds none, or those of the same request.

    Args:
        folder: made if it is not there.
        record: name of the JSON file that says what was asked: one of ``contents``.
        request: its entries that say so.
        contents: of each file.
        overwrite: whatever is there.

    Raises:
        ResultsError: the folder holds the results of another request; says what differs.
        RunError: the disk is full or the folder cannot be written.
    """
    if not overwrite:
        _require_same(folder, record, request, contents)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        write_atomically(folder / name, data)
    return [folder / name for name in contents]


def _require_same(
    folder: Path, record: str, request: Mapping[str, Any], names: Iterable[str]
) -> None:
    hint = "use another --output, or --overwrite to replace them"
    there = _recorded(folder / record)
    if there is None:
        if any(os.path.lexists(folder / name) for name in names):
            raise ResultsError(f"{folder} holds results without a {record}; {hint}")
        return
    plain = json.loads(json.dumps(request))
    different = differences({key: there.get(key) for key in plain}, plain)
    if different:
        lines = "".join(f"\n  {line}" for line in different)
        raise ResultsError(f"{folder} holds the results of another request:{lines}\n{hint}")


def _recorded(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(read_own(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
