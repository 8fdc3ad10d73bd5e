"""Prints the ten longest functions, the ten longest files and the import cycles of the code.

    python scripts/drift.py

It enforces nothing: it shows where the code grows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("lmd_cli", "scripts")
SHOWN = 10
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(root: Path = ROOT) -> dict[Path, str]:
    """Every file of the package and of the scripts, relative to the root, with its text."""
    files = (file for folder in FOLDERS for file in sorted((root / folder).rglob("*.py")))
    return {file.relative_to(root): file.read_text() for file in files}


def functions(texts: Mapping[Path, str]) -> Iterator[tuple[int, str]]:
    """Lines of every function with its docstring and decorators, and where it starts."""
    for file, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                first = min(n.lineno for n in (node, *node.decorator_list))
                yield (node.end_lineno or first) - first + 1, f"{file}:{first} {node.name}"


def imports(tree: ast.AST) -> Iterator[str]:
    """Names that a module imports when it runs, those inside its functions as well."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        return
    if isinstance(tree, ast.ImportFrom) and tree.module:
        yield from (f"{tree.module}.{name.name}" for name in tree.names)
    elif isinstance(tree, ast.Import):
        yield from (name.name for name in tree.names)
    for child in ast.iter_child_nodes(tree):
        yield from imports(child)


def import_graph(texts: Mapping[Path, str]) -> dict[str, set[str]]:
    """For every module, the modules among these that it imports."""
    trees = {_module(file): ast.parse(text) for file, text in texts.items()}

    def home(name: str) -> str:
        """The module that holds a name; scripts import each other without their folder's name."""
        whole = f"scripts.{name}" if f"scripts.{name.partition('.')[0]}" in heads else name
        return whole if whole in trees else whole.rpartition(".")[0]

    heads = {".".join(module.split(".")[:2]) for module in trees}

    return {
        module: {home(name) for name in imports(tree)} & trees.keys() - {module}
        for module, tree in trees.items()
    }


def _module(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which imports all others of its group, directly or not."""
    reached = {module: _reachable(graph, module) for module in graph}
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
        if module in reached[module]
    }
    return sorted(map(list, groups))


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    to_visit = [start]
    while to_visit:
        new = graph[to_visit.pop()] - reached
        reached |= new
        to_visit += new
    return reached


def main() -> None:
    """Prints the three lists."""
    texts = sources()
    lengths = [(len(text.splitlines()), str(file)) for file, text in texts.items()]
    for title, entries in (("functions", functions(texts)), ("files", iter(lengths))):
        print(f"longest {title}:")
        for lines, name in sorted(entries, key=lambda entry: (-entry[0], entry[1]))[:SHOWN]:
            print(f"  {lines:4} {name}")
    print("import cycles:")
    for group in cycles(import_graph(texts)) or [["none"]]:
        print(f"  {', '.join(group)}")


if __name__ == "__main__":
    main()
