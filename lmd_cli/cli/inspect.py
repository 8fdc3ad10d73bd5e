"""``lmd inspect``: lists the rule of every operation, and operations without a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lmd_cli.cli import options

if TYPE_CHECKING:
    from lmd_cli.decomposition import Coverage


def command(
    given: options.NetworkOptions,
    sample_token: options.SampleToken = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    debug: options.Debug = False,
) -> None:
    """List every operation behind the encoders with its rule, and every gap at once.

    Exit code 0, or 1 if an operation has no rule; the call that would fill each gap is printed.
    """
    run = given.load()
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.inspect import inspect_network

    coverage = inspect_network(run, sample_token, make_progress())
    if json:
        typer.echo(_json(coverage))
    else:
        _show(coverage)
    raise typer.Exit(1 if coverage.gaps else 0)


def _json(coverage: Coverage) -> str:
    from dataclasses import asdict
    from json import dumps

    operations = [asdict(row) for row in coverage.rows]
    return dumps({"gaps": len(coverage.gaps), "operations": operations}, indent=2)


def _show(coverage: Coverage) -> None:
    from lmd_cli.cli import show

    rows = [
        (r.module or "(root)", r.operation, str(r.calls), r.kind, r.equation) for r in coverage.rows
    ]
    show.table(["module", "operation", "calls", "kind", "rule"], rows)
    for gap in coverage.gaps:
        show.lines([f"gap: {gap.operation} in {gap.module or '(root)'}: {gap.reason}"])
        if gap.register:
            typer.echo(f"     fill it with: {gap.register}")
    calls = sum(row.calls for row in coverage.rows)
    gaps = f"{len(coverage.gaps)} without a rule" if coverage.gaps else "every one has a rule"
    typer.echo(f"{len(coverage.rows)} operations, {calls} calls: {gaps}")
