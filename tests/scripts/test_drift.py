"""What the script says of the code's growth."""

from __future__ import annotations

from pathlib import Path

import drift
import pytest

TEXTS = {
    Path("lmd_cli/__init__.py"): "",
    Path("lmd_cli/a.py"): "from lmd_cli import b\nimport lmd_cli.c\n",
    Path("lmd_cli/b.py"): "def late():\n    from lmd_cli.c import name\n",
    Path("lmd_cli/c.py"): "import lmd_cli.b\nif TYPE_CHECKING:\n    import lmd_cli.a\n",
    Path("scripts/d.py"): "@once\ndef f():\n    from room import e\n\nfrom room import e\n",
    Path("scripts/room/e.py"): "import d\n",
}


def test_cycles_are_of_imports_at_run_time():
    graph = drift.import_graph(TEXTS)
    assert graph["lmd_cli.a"] == {"lmd_cli.b", "lmd_cli.c"}
    assert drift.cycles(graph) == [["lmd_cli.b", "lmd_cli.c"], ["scripts.d", "scripts.room.e"]]


def test_a_function_is_as_long_as_its_lines_with_decorators():
    assert (3, "scripts/d.py:1 f") in list(drift.functions(TEXTS))


def test_three_lists_are_printed(capsys: pytest.CaptureFixture[str]):
    drift.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == [
        *("longest functions:", "longest files:", "import cycles:")
    ]
    assert len(lines) >= 2 * (1 + drift.SHOWN) + 2
