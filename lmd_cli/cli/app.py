"""The Typer application with all commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lmd_cli.cli import (
    cache,
    check,
    compare,
    completion,
    convert,
    decompose,
    detect,
    evaluate,
    gate,
    gradcam,
    inspect,
    report,
    samples,
    sanity,
    score,
    synthesize,
    table,
)
from lmd_cli.cli.errors import handled
from lmd_cli.cli.options import expanded
from lmd_cli.cli.output import COMPLETE_VARIABLE, with_output_options

app = typer.Typer(
    name="lmd",
    help="Layer-Wise Modality Decomposition: which sensor carried this prediction?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    evaluate,
    table,
    score,
    sanity,
    report,
    compare,
    gate,
    detect,
    decompose,
    gradcam,
    inspect,
    check,
    convert,
    samples,
    synthesize,
    cache,
    completion,
):
    name = module.__name__.rpartition(".")[2]
    app.command(name)(with_output_options(name, handled(expanded(module.command))))


if COMPLETE_VARIABLE in os.environ:
    from typer.completion import completion_init

    completion_init()  # the forms in which shells ask


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("lmd-cli")
        except PackageNotFoundError:
            number = "(run from a checkout that is not installed)"
        typer.echo(f"lmd-cli {number}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    """Runs before every command."""
