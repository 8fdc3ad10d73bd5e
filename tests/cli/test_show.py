"""Tables on terminals of any width."""

from __future__ import annotations

import re

import pytest

from lmd_cli.cli import show

HEADER = ["variant", *(f"PCC {name}" for name in ("R_p/R", "R_p/C", "C_p/R", "C_p/C"))]
ROWS = [["identity-ratio", *["-0.03 ± 0.00"] * 4], ["bad\x1b[2J", *["1.00 ± 0.00"] * 4]]


@pytest.mark.parametrize("columns", [20, 36, 60, 120])
def test_no_number_is_torn(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    show.table(HEADER, ROWS)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert text.count("-0.03") == 4
    assert text.count("1.00") == 4
    assert "\\x1b[2J" in text
    assert max(map(len, text.splitlines())) <= max(columns, 24)
