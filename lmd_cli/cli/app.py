"""The Typer application with all commands."""

from __future__ import annotations

from typing import Annotated

import typer

import lmd_cli
from lmd_cli.cli import (
    bundle,
    check,
    convert,
    decompose,
    demo,
    detect,
    evaluate,
    gradcam,
    inspect,
    layers,
    objects,
    report,
    rerun,
    samples,
    sanity,
    score,
    synthesize,
    table,
    verify,
)
from lmd_cli.cli.errors import handled
from lmd_cli.cli.help import Command, Commands
from lmd_cli.cli.options import expanded

app = typer.Typer(
    name="lmd",
    cls=Commands,
    help="Layer-Wise Modality Decomposition: which sensor carried this prediction?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    demo,
    evaluate,
    table,
    score,
    sanity,
    report,
    rerun,
    verify,
    bundle,
    detect,
    decompose,
    gradcam,
    inspect,
    check,
    convert,
    samples,
    layers,
    objects,
    synthesize,
):
    name = module.__name__.rpartition(".")[2]
    app.command(name, cls=Command)(handled(expanded(module.command)))


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"lmd-cli {lmd_cli.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    """Runs before every command."""
