"""The Typer application with all commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import lmd_cli
from lmd_cli.cli import (
    bundle,
    cache,
    check,
    compare,
    completion,
    convert,
    decompose,
    demo,
    detect,
    evaluate,
    gate,
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
from lmd_cli.cli.output import COMPLETE_VARIABLE, with_output_options

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
    compare,
    gate,
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
    cache,
    completion,
):
    name = module.__name__.rpartition(".")[2]
    app.command(name, cls=Command)(with_output_options(name, handled(expanded(module.command))))


if COMPLETE_VARIABLE in os.environ:
    from typer.completion import completion_init

    completion_init()  # the forms in which shells ask


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
