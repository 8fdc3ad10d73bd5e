"""The command line, called as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lmd_cli.cli.app import app
from tests.support.calling import Lmd


@pytest.fixture
def lmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lmd:
    """Runs a command in an empty working directory; no error may show a traceback."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert "Traceback" not in result.output
        return result

    return call
