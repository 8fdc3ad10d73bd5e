"""The pages inside the package: examples run, links lead somewhere, and what is said of the code is
what the code says."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reference
import torch
import typer

from lmd_cli.decomposition import Variant, rules, variant_names
from lmd_cli.decomposition.registry import KINDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lmd_cli"
DOCS = PACKAGE / "docs"
MATHEMATICS = DOCS / "mathematics.md"
PAGES = tuple(sorted(DOCS.glob("*.md")))
LINKED = (*PAGES, ROOT / "README.md", ROOT / "models" / "README.md")
LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\s]+)\)")


def examples() -> list[Any]:
    actual = [
        pytest.param(page.name, block, id=f"{page.stem}-{index}")
        for page in PAGES
        for index, block in enumerate(
            re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
        )
    ]
    assert len(actual) > 10
    return actual


@pytest.mark.parametrize(("page", "example"), examples())
def test_example_runs(page: str, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "from scanner import" in example:  # the page's first file
        scanner = ModuleType("scanner")
        first = next(p.values[1] for p in examples() if p.values[0] == page)
        exec(compile(str(first), page, "exec"), vars(scanner))
        monkeypatch.setitem(sys.modules, "scanner", scanner)
    exec(compile(example, page, "exec"), {})


# -- links --------------------------------------------------------------------------------


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in kept}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for _, target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_is_linked_from_the_readme_and_from_the_index(page: Path) -> None:
    index = DOCS / "README.md"
    if page != index:
        assert f"(lmd_cli/docs/{page.name})" in (ROOT / "README.md").read_text()
        assert f"]({page.name}" in index.read_text()


def code_references() -> list[Any]:
    """Links whose text is a name in the file that they lead to: [`name`](file.py)."""
    actual = []
    for page in PAGES:
        for text, target in LINK.findall(prose(page)):
            name = re.fullmatch(r"`([\w.]+)`", text)
            if name and target.endswith(".py"):
                actual.append((page, name[1], target))
    assert len(actual) > 50
    return sorted(set(actual))


def test_named_code_exists() -> None:
    missing = []
    for page, name, target in code_references():
        file = (page.parent / target).resolve().relative_to(ROOT)
        actual: Any = import_module(".".join(file.with_suffix("").parts))
        for word in name.split("."):
            actual = getattr(actual, word, None)
        if actual is None:
            missing.append((page.name, name, target))
    assert missing == []


# -- commands and the Python interface ----------------------------------------------------


def test_generated_blocks_are_what_the_code_says() -> None:
    page = DOCS / "reference.md"
    assert page.read_text() == reference.rendered(page.read_text()), (
        "run python scripts/reference.py"
    )


def test_every_command_and_every_option_is_there() -> None:
    """Against the parsers that Typer builds, which the script does not read."""
    from lmd_cli.cli.app import app

    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009
    text = (DOCS / "reference.md").read_text()
    for name, command in commands.items():
        block = re.search(rf"<!-- command: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
        assert block, name
        rows = re.findall(r"^\| (`.*?) \|", block[1], flags=re.MULTILINE)
        documented = set(re.findall(r"(?:`|/)(--?[\w-]+)", " ".join(rows)))
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o[0] == "-"}
        assert documented == options, name
        assert len(rows) == len(command.params), name


def test_everything_public_is_in_the_reference() -> None:
    import lmd_cli

    text = (DOCS / "reference.md").read_text()
    documented = set(re.findall(r"<!-- api: ([\w.]+) -->", text))
    names = {path.rpartition(".")[2] for path in documented}
    assert set(lmd_cli.__all__) - {"RunConfig"} <= names
    for module in ("evaluation.metrics", "evaluation.statistics"):
        home = import_module(f"lmd_cli.{module}")
        own = {
            name
            for name, value in vars(home).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == home.__name__
        }
        assert own - names <= {
            "vehicle_counts",
            "pcc_rows",
            "mse_rows",
        }, module
    for path in documented:
        home_name, _, name = path.rpartition(".")
        assert inspect.getdoc(getattr(import_module(home_name), name)), path


def test_methods_table_names_every_method() -> None:
    from lmd_cli.attribution import METHODS

    text = (DOCS / "reference.md").read_text()
    table = text.partition("## Methods of attribution")[2].partition("\n### ")[0]
    assert [name for name in METHODS if f"`{name}`" not in table] == []


# -- the mathematics ----------------------------------------------------------------------


def rules_table() -> dict[tuple[str, str, str], set[str]]:
    """The page's table of functions, by (file, kind, equation)."""
    block = re.search(r"<!-- rules -->\n(.*?)<!-- end -->", MATHEMATICS.read_text(), re.DOTALL)
    assert block
    actual = {}
    for line in block[1].strip().splitlines()[2:]:
        file, kind, equation, functions = (cell.strip() for cell in line.strip("| ").split(" | "))
        module = file.partition("]")[0].strip("[")
        actual[module, kind, equation] = set(re.findall(r"`([^`]+)`", functions))
    return actual


def test_every_function_with_a_rule_is_in_the_table() -> None:
    """Torch versions differ in what they have: the table may name more than there is here."""
    table = rules_table()
    registered = reference.rule_groups()
    assert len(registered) > 40
    assert set(registered) == set(table)
    missing = {key: set(names) - table[key] for key, names in registered.items()}
    assert {key: names for key, names in missing.items() if names} == {}


@pytest.mark.skipif(
    not torch.__version__.startswith("2.13"), reason="the table was made with the pinned version"
)
def test_rules_table_names_nothing_else() -> None:
    assert reference.rendered(MATHEMATICS.read_text()) == MATHEMATICS.read_text()


def rule_files() -> list[str]:
    folder = Path(rules.__file__).parent
    return sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


@pytest.mark.parametrize("module", rule_files())
def test_every_file_of_rules_has_its_equation(module: str) -> None:
    """In the text, not only in the table."""
    text = re.sub(r"<!-- rules -->.*<!-- end -->", "", MATHEMATICS.read_text(), flags=re.DOTALL)
    assert f"(../decomposition/rules/{module}.py)" in text


def test_every_kind_and_every_name_of_a_rule_is_explained() -> None:
    text = MATHEMATICS.read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []
    words = {word for name in variant_names() for word in name.split("-")}
    words |= {"taylor", "frozen", "secant"}
    assert [word for word in sorted(words) if f"`{word}`" not in text] == []
    assert f"`{Variant().name}`" in text
