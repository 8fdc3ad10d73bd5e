"""The package's layers: imports point down only, as docs/architecture.md draws them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lmd_cli

PACKAGE = Path(lmd_cli.__file__).parent
#: From the top down; folders on one line do not meet.
LAYERS = (
    ("cli",),
    ("workflows",),
    ("report",),
    ("results",),
    ("evaluation",),
    ("assembly",),
    ("data", "networks"),
    ("runtime",),
    ("config",),
    ("attribution",),
    ("decomposition",),
)
LAYER = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}
FREE = {"errors", "geometry", "supported"}  # at the package's root, for all


def imports(file: Path) -> Iterator[str]:
    """Names under ``lmd_cli`` that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "lmd_cli":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lmd_cli."):
            yield str(node.module).removeprefix("lmd_cli.")
        elif isinstance(node, ast.Import):
            names = (name.name for name in node.names)
            yield from (n.removeprefix("lmd_cli.") for n in names if n.startswith("lmd_cli."))


def folder_imports(folder: str) -> dict[str, set[str]]:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    return {str(file.relative_to(PACKAGE)): set(imports(file)) for file in files}


def test_every_folder_has_its_layer():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(LAYER)
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", *FREE}


@pytest.mark.parametrize("folder", LAYER)
def test_imports_point_down(folder: str):
    below = {name for name, number in LAYER.items() if number > LAYER[folder]} | {folder, *FREE}
    upwards = {
        file: sorted(name for name in names if name.split(".")[0] not in below)
        for file, names in folder_imports(folder).items()
    }
    assert {file: names for file, names in upwards.items() if names} == {}


@pytest.mark.parametrize(
    ("folder", "never"),
    [
        ("decomposition", ("errors", "geometry")),  # the method needs torch only
        ("evaluation", ("runtime.files", "runtime.drafts", "runtime.locks")),  # it touches no file
        ("report", ("networks", "assembly.build")),  # it opens no network
    ],
)
def test_what_a_folder_does_without(folder: str, never: tuple[str, ...]):
    used = {name for names in folder_imports(folder).values() for name in names}
    assert [name for name in sorted(used) if name.startswith(never)] == []


def test_the_evaluation_touches_no_file():
    """Neither by itself nor with a reader of another folder."""
    readers = {
        "open",
        "Path",
        "pandas",
        "read_evidence",
        "read_instances",
        "has_evidence",
        "read_own",
    }
    for file in sorted((PACKAGE / "evaluation").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        assert not readers & names, file
