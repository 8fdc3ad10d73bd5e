"""What a command says: on the terminal, quietly, or as one JSON document for a machine."""

from __future__ import annotations

import functools
import inspect
import json as json_module
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

#: Raised whenever an entry of the document changes its meaning.
FORMAT = 1
QUIET_VARIABLE = "LMD_QUIET"
#: Set by a shell that asks for completions.
COMPLETE_VARIABLE = "_LMD_COMPLETE"
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; progress on standard error.")
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show results alone: no progress, no list of files."),
]


@dataclass
class Document:
    """What ``--json`` prints.

    Attributes:
        command: its name.
        tables: rows by name of the table, each row by columns.
        values: further results by name.
        notes: what stands below the tables.
        files: what was written.
        next: a command to run next, word by word.
        error: the message of an error; none if all went well.
    """

    command: str
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    next: list[str] | None = None
    error: str | None = None

    def text(self, exit_code: int) -> str:
        """As JSON; what does not exist is ``null``."""
        entries = {"format": FORMAT, **vars(self), "exit_code": exit_code}
        return json_module.dumps(_plain(entries), indent=2, ensure_ascii=False, allow_nan=False)


_DOCUMENT: ContextVar[Document | None] = ContextVar("document", default=None)
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def document() -> Document | None:
    """What is to be printed at the end, if it is JSON."""
    return _DOCUMENT.get()


def quiet() -> bool:
    """Whether only results are shown."""
    return _QUIET.get()


def with_output_options(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """The command with ``--json`` and ``--quiet``.

    Args:
        name: the command's.
        command: which shows everything with :mod:`.show`.
    """

    @functools.wraps(command)
    def run(*, json: bool = False, quiet: bool = False, **values: Any) -> None:
        made = Document(name) if json else None
        with _using(made, quiet or _set_once(QUIET_VARIABLE)):
            code = _exit_code(command, values)
        if made is not None:
            typer.echo(made.text(code))
        raise typer.Exit(code)

    signature = inspect.signature(command)
    parameters = list(signature.parameters.values())
    more = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for n, kind in (("json", Json), ("quiet", Quiet))
    ]
    vars(run)["__signature__"] = signature.replace(parameters=[*parameters, *more])
    run.__annotations__ = {**command.__annotations__, "json": Json, "quiet": Quiet}
    return run


def _exit_code(command: Callable[..., None], values: Mapping[str, Any]) -> int:
    try:
        command(**values)
    except typer.Exit as end:
        return end.exit_code
    return 0


@contextmanager
def _using(made: Document | None, quiet: bool) -> Iterator[None]:
    from lmd_cli.runtime.progress import hidden

    document, less, progress = _DOCUMENT.set(made), _QUIET.set(quiet), hidden.set(quiet)
    try:
        yield
    finally:
        _DOCUMENT.reset(document)
        _QUIET.reset(less)
        hidden.reset(progress)


def _set_once(variable: str) -> bool:
    """Whether an environment variable says yes."""
    return os.environ.get(variable, "").lower() not in ("", "0", "no", "false")


def _plain(value: Any) -> Any:
    """Values that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):  # numpy's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
