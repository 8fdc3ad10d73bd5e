"""``lmd rerun``: computes a recorded run once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmd_cli.cli import options

if TYPE_CHECKING:
    from lmd_cli.workflows.rerun import Repeated


def command(
    run: options.RunFolder,
    where: options.WhereaboutsOptions,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Where files go (default: RUN-rerun)."),
    ] = None,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Repeat a run from its record, and say whether the results are the same bytes.

    For the folders of evaluate, score, sanity and detect. Weights, data and code must be the
    run's. Exit code 0, or 1 if a result differs.
    """
    from lmd_cli.cli import show
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.rerun import rerun

    progress = make_progress()
    try:
        done = rerun(run, output, where.resolved(), overwrite=overwrite, progress=progress)
    finally:
        progress.close()
    rows = [(name, "same") for name in done.same] + [(name, "different") for name in done.different]
    show.table(["file", "result"], rows)
    show.lines(f"recorded otherwise: {line}" for line in done.changed)
    show.lines(
        [f"verdict: {_verdict(done) if rows else 'nothing to compare: no hashes in run.json'}"]
    )
    show.ending(done.output, "verify", done.output)
    raise typer.Exit(1 if done.different else 0)


def _verdict(done: Repeated) -> str:
    """What differs; notes are sentences, which another version of the program words otherwise."""
    if not done.different:
        return "the same results, byte for byte"
    if done.different == ["notes.txt"]:
        return "the same numbers in every table; notes.txt reads otherwise"
    return f"not the same results: {', '.join(done.different)}"
