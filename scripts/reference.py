"""Fills in the pages what the code says itself: options, signatures, and which operator has which
rule.

    python scripts/reference.py            # rewrite the generated blocks of the pages
    python scripts/reference.py --check    # end with 1 if one is not what the code says

A block stands between ``<!-- command: evaluate -->`` (or ``api:``, ``columns:``, ``rules``) and
``<!-- end -->``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

PACKAGE = Path(__file__).parents[1] / "lmd_cli"
PAGES = (PACKAGE / "docs" / "reference.md", PACKAGE / "docs" / "mathematics.md")
KINDS = "command|api|rules|columns"
BLOCK = re.compile(rf"<!-- ({KINDS})(?:: (\S+))? -->\n(.*?)<!-- end -->", re.DOTALL)
WIDTH = 100


def rendered(text: str) -> str:
    """A page with its blocks as the code has them."""
    makers: dict[str, Callable[[str], str]] = {
        "command": command_block,
        "api": api_block,
        "rules": lambda _: rules_block(),
        "columns": columns_block,
    }

    def fill(match: re.Match[str]) -> str:
        kind, name = match[1], match[2] or ""
        head = f"<!-- {kind}: {name} -->" if name else f"<!-- {kind} -->"
        return f"{head}\n\n{makers[kind](name)}\n<!-- end -->"

    return BLOCK.sub(fill, text)


# -- commands -----------------------------------------------------------------------------


def commands() -> dict[str, Callable[..., None]]:
    """Every command of ``lmd`` by name."""
    from lmd_cli.cli.app import app

    return {str(c.name): c.callback for c in app.registered_commands if c.callback is not None}


def command_block(name: str) -> str:
    """What a command says of itself, and its options."""
    function = commands()[name]
    hints = get_type_hints(function, include_extras=True)
    rows = [_option_row(p, hints[p.name]) for p in inspect.signature(function).parameters.values()]
    table = _table(("option", "default", ""), rows)
    return f"{_markdown(inspect.getdoc(function) or '')}\n{table}"


def _option_row(parameter: inspect.Parameter, hint: Any) -> tuple[str, str, str]:
    kind, *notes = get_args(hint)
    info = next(note for note in notes if isinstance(note, (OptionInfo, ArgumentInfo)))
    value = parameter.default
    default = "required" if value is inspect.Parameter.empty else _default(value)
    return _spelling(parameter.name, kind, info), default, info.help or ""


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "on" if value else ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _spelling(name: str, kind: Any, info: OptionInfo | ArgumentInfo) -> str:
    """``--config YAML``, ``-c``; an argument is its metavar."""
    shown = info.metavar or _choices(kind)
    if isinstance(info, ArgumentInfo):
        return f"`{shown or name.upper()}`"
    written = (info.default, *(info.param_decls or ()))  # Annotated puts the first in default
    flags = [text for text in written if isinstance(text, str) and text.startswith("-")]
    first, *others = flags or [f"--{name.replace('_', '-')}"]
    value = "" if kind is bool else f" {shown or _plain_kind(kind)}"
    return ", ".join(f"`{text}`" for text in (first + value, *others))


def _choices(kind: Any) -> str:
    """``clean|perturbed`` for an enumeration, also for one that may be left out or repeated."""
    enumeration = next((k for k in (kind, *_inner(kind)) if _is_enum(k)), None)
    return "|".join(str(member.value) for member in enumeration) if enumeration else ""


def _inner(kind: Any) -> Iterator[Any]:
    for argument in get_args(kind):
        yield argument
        yield from _inner(argument)


def _is_enum(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Enum)


def _plain_kind(kind: Any) -> str:
    return "N" if int in (kind, *_inner(kind)) else "TEXT"


# -- the Python interface -----------------------------------------------------------------


def api_block(path: str) -> str:
    """Signature and docstring of ``package.module.name``."""
    home, _, name = path.rpartition(".")
    item = getattr(import_module(home), name)
    heading = "class " if inspect.isclass(item) else "def "
    shown = f"```py\n{heading}{name}{_signature(item)}\n```"
    return f"{shown}\n\n{_markdown(inspect.getdoc(item) or '')}"


class _Raw:
    """An annotation that is shown as it was written."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _signature(item: Any) -> str:
    if inspect.isclass(item) and getattr(item, "_is_protocol", False):
        return ""
    signature = inspect.signature(item)
    words: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in "".join(w[0] for w in words):
            words.append("*")
        words.append(str(parameter.replace(annotation=_raw(parameter.annotation))))
    unknown = inspect.isclass(item) or signature.return_annotation is signature.empty
    result = "" if unknown else f" -> {_raw(signature.return_annotation)}"
    line = f"({', '.join(words)}){result}"
    if len(line) < WIDTH - 30:
        return line
    return "(\n" + "".join(f"    {word},\n" for word in words) + f"){result}"


def _raw(annotation: Any) -> Any:
    return _Raw(annotation) if isinstance(annotation, str) else annotation


_SECTIONS = ("Args", "Returns", "Raises", "Attributes")
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


def _markdown(docstring: str) -> str:
    """A docstring of this project as Markdown: sections as lists, roles as names."""
    text = _ROLE.sub(r"`\1`", docstring).replace("``", "`")
    lines: list[str] = []
    section = False
    for line in text.splitlines():
        title = line.rstrip(":")
        if title.partition(" (")[0] in _SECTIONS and line.endswith(":"):
            lines += [f"{title}:", ""]
            section = True
        elif section and line.startswith("    ") and not line.startswith("     "):
            lines.append(f"- {line.strip()}")
        elif section and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            lines.append(re.sub(r"::$", ":", line))
    return "\n".join(line if line.startswith("    ") else _escaped(line) for line in lines) + "\n"


def _escaped(line: str) -> str:
    """What Markdown would take for a tag or emphasis, outside code."""
    return re.sub(r"`[^`]*`|[<*]", lambda m: m[0] if m[0][0] == "`" else f"\\{m[0]}", line)


# -- rules --------------------------------------------------------------------------------


def rule_groups() -> dict[tuple[str, str, str], list[str]]:
    """The operators that have a rule, by (module of the rule, kind, equation or reason)."""
    from lmd_cli.decomposition import find_rule, rules
    from lmd_cli.decomposition.registry import KINDS, registered_operators

    own = f"{rules.__name__}."
    groups: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for operator in registered_operators():
        rule = find_rule(operator)
        assert rule is not None
        home = rule.apply.__module__
        if home.startswith(own):  # not one that a user registered
            key = (home.removeprefix(own), rule.kind, rule.equation or KINDS[rule.kind])
            groups[key].add(operator_name(operator))
    return {key: sorted(names) for key, names in sorted(groups.items())}


def operator_name(operator: Any) -> str:
    """``relu`` and ``max.dim`` for ATen's; a function that is none of them in full."""
    from torch._ops import OpOverload, OpOverloadPacket

    from lmd_cli.decomposition.registry import function_name

    if isinstance(operator, (OpOverload, OpOverloadPacket)):
        return str(operator).removeprefix("aten.")
    return function_name(operator)


def rules_block() -> str:
    """Every operator with its rule, by file."""
    rows = [
        (
            f"[{module}](../decomposition/rules/{module}.py)",
            kind,
            equation,
            " ".join(f"`{n}`" for n in names),
        )
        for (module, kind, equation), names in rule_groups().items()
    ]
    return _table(("file", "kind", "equation, or why not", "operators"), rows)


def columns_block(name: str) -> str:
    """The columns of one of a run's tables."""
    from lmd_cli.results.columns import TABLES

    spec = TABLES[name]
    patterns = {f"{begin}NAME": entry for begin, entry in spec.patterns.items()}
    rows = [(f"`{n}`", kind, text) for n, (kind, text) in (spec.columns | patterns).items()]
    head = f'`run["{name}"]`: `{spec.file}`, written by `{spec.made_by}`.\n\n'
    return head + _table(("column", "type", "means"), rows)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(_cell(c) for c in row)} |\n" for row in cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Rewrites the pages, or with ``--check`` says which are not up to date."""
    stale = [page for page in PAGES if rendered(page.read_text()) != page.read_text()]
    for page in stale:
        if "--check" in arguments:
            print(f"{page.name} is not what the code says; run python scripts/reference.py")
        else:
            page.write_text(rendered(page.read_text()))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
