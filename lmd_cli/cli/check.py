"""``lmd check``: would a run work, and is the decomposition exact?"""

from __future__ import annotations

from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmd_cli.cli import options

if TYPE_CHECKING:
    from lmd_cli.workflows.check import Preflight


def command(
    given: options.NetworkOptions,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Also write checks.csv, coverage.csv."),
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Read every data file, too; takes as long as that does.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List every operation with its rule.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Check data files, weights, rules, conservation and replay before a run.

    Exit code 0, or 1 if something would fail.
    """
    from lmd_cli.cli import show

    run = given.load()
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.check import preflight

    report = preflight(run, make_progress(), files=files)
    if verbose and report.coverage:
        show.table(
            ["module", "operation", "kind", "rule"], map(astuple, report.coverage), "operations"
        )
    rows = [(c.name, c.status, c.detail) for c in report.checks]
    show.table(["check", "result", "details"], rows, "checks")
    if output is not None:
        show.files(_write(report, output))
    show.lines([_verdict(report)])
    raise typer.Exit(0 if report.ok else 1)


def _verdict(report: Preflight) -> str:
    failed = list(dict.fromkeys(c.name for c in report.checks if c.status == "FAIL"))
    notes = sum(check.status == "note" for check in report.checks)
    if failed:
        return f"verdict: a run would fail: {', '.join(failed)}"
    return f"verdict: a run would work{f' ({notes} to note)' if notes else ''}"


def _write(report: Preflight, folder: Path) -> list[Path]:
    from lmd_cli.runtime.files import csv_lines, disk_errors, write_atomically
    from lmd_cli.workflows.check import Covered
    from lmd_cli.workflows.check_data import Check

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, tuple[Any, list[Any]]] = {
        "checks.csv": (Check, report.checks),
        "coverage.csv": (Covered, report.coverage),
    }
    for name, (kind, entries) in rows.items():
        header = [column.name for column in fields(kind)]
        write_atomically(folder / name, csv_lines([header, *map(astuple, entries)]))
    return [folder / name for name in rows]
