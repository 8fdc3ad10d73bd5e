"""What the script says of the code's growth."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = {
    Path("lmd_cli/__init__.py"): "",
    Path("lmd_cli/a.py"): "from lmd_cli import b\nimport lmd_cli.c\n",
    Path("lmd_cli/b.py"): "def late():\n    from lmd_cli.c import name\n",
    Path("lmd_cli/c.py"): "import lmd_cli.b\nif TYPE_CHECKING:\n    import lmd_cli.a\n",
    Path("scripts/d.py"): "@once\ndef f():\n    from room import e\n\nfrom room import e\n",
    Path("scripts/room/e.py"): "import d\n",
}


@pytest.fixture(scope="module")
def drift() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    yield import_module("drift")
    sys.path.remove(str(ROOT / "scripts"))


def test_cycles_are_of_imports_at_run_time(drift: ModuleType):
    graph = drift.import_graph(TEXTS)
    assert graph["lmd_cli.a"] == {"lmd_cli.b", "lmd_cli.c"}
    assert drift.cycles(graph) == [["lmd_cli.b", "lmd_cli.c"], ["scripts.d", "scripts.room.e"]]


def test_a_function_is_as_long_as_its_lines_with_decorators(drift: ModuleType):
    assert (3, "scripts/d.py:1 f") in list(drift.functions(TEXTS))


def test_three_lists_are_printed(drift: ModuleType, capsys: pytest.CaptureFixture[str]):
    drift.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == [
        *("longest functions:", "longest files:", "import cycles:")
    ]
    assert len(lines) >= 2 * (1 + drift.SHOWN) + 2
