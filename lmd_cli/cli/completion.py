"""``lmd completion``: the shell completes commands and options."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from lmd_cli.cli import options


class Shell(str, Enum):
    """Whose script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def command(
    shell: Annotated[Shell, typer.Argument(help="Whose script.")], debug: options.Debug = False
) -> None:
    """Print the script that makes a shell complete lmd's commands and options.

    For bash: lmd completion bash >> ~/.bashrc
    """
    from typer.completion import get_completion_script

    from lmd_cli.cli import show
    from lmd_cli.cli.output import COMPLETE_VARIABLE

    script = get_completion_script(
        prog_name="lmd", complete_var=COMPLETE_VARIABLE, shell=shell.value
    )
    show.text("script", script)
