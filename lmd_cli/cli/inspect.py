"""``lmd inspect``: lists the rule of every operation, and operations without a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lmd_cli.cli import options

if TYPE_CHECKING:
    from lmd_cli.decomposition import Coverage


def command(
    given: options.NetworkOptions,
    sample_token: options.SampleToken = None,
    debug: options.Debug = False,
) -> None:
    """List every operation behind the encoders with its rule, and every gap at once.

    Exit code 0, or 1 if an operation has no rule; the call that would fill each gap is printed.
    """
    run = given.load()
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.inspect import inspect_network

    coverage = inspect_network(run, sample_token, make_progress())
    _show(coverage)
    raise typer.Exit(1 if coverage.gaps else 0)


def _show(coverage: Coverage) -> None:
    from dataclasses import asdict

    from lmd_cli.cli import show

    rows = [
        (r.module or "(root)", r.operation, str(r.calls), r.kind, r.equation) for r in coverage.rows
    ]
    header = ["module", "operation", "calls", "kind", "rule"]
    show.table(header, rows, "operations", [asdict(row) for row in coverage.rows])
    show.value("gaps", len(coverage.gaps))
    for gap in coverage.gaps:
        show.lines([f"gap: {gap.operation} in {gap.module or '(root)'}: {gap.reason}"])
        if gap.register:
            show.lines([f"     fill it with: {gap.register}"])
    calls = sum(row.calls for row in coverage.rows)
    gaps = f"{len(coverage.gaps)} without a rule" if coverage.gaps else "every one has a rule"
    show.lines([f"{len(coverage.rows)} operations, {calls} calls: {gaps}"])
