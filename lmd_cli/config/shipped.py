"""Locates the configs and models that come with the program, in a checkout or installed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(kind: Literal["configs", "models"]) -> Path:
    """The folder as installed (``lmd_cli/_configs``), else the checkout's."""
    installed = PACKAGE / f"_{kind}"
    return installed if installed.is_dir() else PACKAGE.parent / kind


def from_home(name: Path | str) -> Path:
    """A path with the home folder in place of its ``~``; as it is where no such home is known."""
    with suppress(RuntimeError):
        return Path(name).expanduser()
    return Path(name)


def first_file(candidates: Iterable[Path]) -> Path | None:
    """The first path that is a file."""
    return next((path for path in candidates if path.is_file()), None)


def listing(names: Iterable[str], wanted: str) -> str:
    """``a.yaml, b.yaml; did you mean a.yaml?`` for a message that something was not found."""
    known = sorted(set(names))
    near = get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{', '.join(known) or 'nothing'}{hint}"
