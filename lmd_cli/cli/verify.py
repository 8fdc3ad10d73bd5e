"""``lmd verify``: checks a run's folder against its record."""

from __future__ import annotations

from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    run: options.RunFolder,
    where: options.WhereaboutsOptions,
    samples: Annotated[
        int, typer.Option(min=1, metavar="COUNT", help="Samples to compute again.")
    ] = 3,
    compute: Annotated[
        bool, typer.Option("--compute/--no-compute", help="Open data and network, too.")
    ] = True,
    debug: options.Debug = False,
) -> None:
    """Check a run: unedited results, the same data, weights and code, the same numbers again.

    Hashes in run.json are compared with the files; tables are made again from pairs.csv; data
    files are hashed; the network's outputs are compared with the fingerprint; some samples
    are computed again. Exit code 0, or 1 if something differs.
    """
    from lmd_cli.cli import show
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.verify import verify

    progress = make_progress()
    try:
        report = verify(run, where.resolved(), samples=samples, compute=compute, progress=progress)
    finally:
        progress.close()
    show.table(["check", "result", "detail"], [(c.name, c.status, c.detail) for c in report.checks])
    failed = [check.name for check in report.checks if check.status == "FAIL"]
    show.lines([f"verdict: {'not valid: ' + ', '.join(failed) if failed else 'valid'}"])
    raise typer.Exit(0 if report.ok else 1)
