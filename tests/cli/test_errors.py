"""Which error becomes which message and exit code."""

from __future__ import annotations

import errno

import pytest
import typer
from typer.testing import CliRunner, Result

from lmd_cli.cli.errors import handled
from lmd_cli.cli.options import Debug
from lmd_cli.decomposition import NoRuleError
from lmd_cli.errors import ConfigError, RunError


def run(error: BaseException, *arguments: str) -> Result:
    """A command that fails, called with these arguments."""

    def command(debug: Debug = False) -> None:
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(handled(command))
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("a key"), 2, "error: a key"),
        (RunError("a failure"), 1, "error: a failure"),
        (NoRuleError("no rule for f"), 1, "error: no rule for f"),
        (OSError(errno.ENOSPC, "No space", "f.csv"), 1, "error: f.csv: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 1, "error: f: Permission denied"),
        (OSError(errno.ENAMETOOLONG, "too long", "f" * 999), 2, f"error: {'f' * 300}...: too long"),
        (MemoryError("9 GB"), 1, "error: out of memory: 9 GB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), 1, "error: out of memory: "),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("rows are kept"), 130, "rows are kept"),
    ],
)
def test_message_and_exit_code(error: BaseException, code: int, message: str):
    result = run(error)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(message)


def test_a_bug_keeps_its_traceback():
    assert isinstance(run(ZeroDivisionError()).exception, ZeroDivisionError)


def test_debug_shows_the_traceback_of_any_error():
    assert isinstance(run(ConfigError("x"), "--debug").exception, ConfigError)


def test_exit_codes_pass():
    assert run(typer.Exit(3)).exit_code == 3
