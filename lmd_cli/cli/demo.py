"""``lmd demo``: a first result, without data, weights or options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options
from lmd_cli.cli.ranks import stoppable

CONFIG = "demo.yaml"


def command(
    output: options.Output = None,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open", help="Open the page in a browser (default: when run in a terminal)."
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Evaluate the demo network on synthetic data, make the page, and open it.

    The same as lmd evaluate --config demo.yaml and lmd report results/demo. Nothing is downloaded;
    a run that was interrupted goes on with the same command.
    """
    from lmd_cli.cli import show
    from lmd_cli.config.loading import load_config
    from lmd_cli.runtime.progress import make_progress
    from lmd_cli.workflows.evaluate import evaluate
    from lmd_cli.workflows.report import make_report

    run = load_config(CONFIG)
    folder = output or Path("results") / run.name
    progress = make_progress()
    try:
        with stoppable(folder):
            summary = evaluate(run, folder, progress=progress)
            page = make_report(folder, progress=progress)
    finally:
        progress.close()
    header = [str(name) for name in summary.table.columns]
    show.table(header, [[str(cell) for cell in row] for row in summary.table.to_numpy()])
    show.lines(summary.notes)
    if sys.stdout.isatty() if browser is None else browser:
        typer.launch(page.resolve().as_uri())
    show.ending(page, "decompose", "--config", CONFIG)
