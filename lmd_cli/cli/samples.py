"""``lmd samples``: which samples a config means."""

from __future__ import annotations

from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    given: options.DataOptions,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="Only the first COUNT.")
    ] = None,
    debug: options.Debug = False,
) -> None:
    """List the samples in order, one a line: index, token, scene."""
    run = given.load()
    from lmd_cli.assembly.build import build_dataset
    from lmd_cli.cli import show
    from lmd_cli.runtime.progress import make_progress

    dataset = build_dataset(run, make_progress())
    listed = enumerate(dataset.tokens[:limit])
    rows = [(index, token, dataset.scenes[index]) for index, token in listed]
    show.plain("samples", ("index", "token", "scene"), rows)
