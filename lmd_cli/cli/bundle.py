"""``lmd bundle``: packs a run into one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmd_cli.cli import options


def command(
    run: options.RunFolder,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="The archive (default: RUN.zip)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the archive.")] = False,
    debug: options.Debug = False,
) -> None:
    """Pack a run into one ZIP archive: results, records, page, and a manifest with hashes.

    A page that is not there yet is made without opening data or network. Results that were edited
    are refused.
    """
    from lmd_cli.cli import show
    from lmd_cli.data.content import file_sha256
    from lmd_cli.workflows.bundle import bundle

    archive = bundle(run, output, overwrite=overwrite)
    size = archive.stat().st_size / 1e3
    digest = file_sha256(archive)
    show.written([archive], f"archive: {archive} ({size:.0f} kB), sha256 {digest}")
    show.value("sha256", digest)
