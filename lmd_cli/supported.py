"""Checks that Python and the installed packages are new enough, before anything is computed."""

from __future__ import annotations

import re
import sys
from importlib import metadata

PYTHON = (3, 10)
#: The oldest versions that were tried, and what is wrong with those before (pyproject.toml has the
#: bounds for installing; here are those that an environment made otherwise may break).
OLDEST = {
    "torch": ((2, 4), "older ones were seen to crash on references to freed memory"),
    "numpy": ((1, 24), "it was never tried"),
    "typer": ((0, 15, 4), "it cannot read the options"),
}


def unsupported() -> str:
    """What is too old, in one line; nothing if all is well.

    What is not installed is left to the import that needs it.
    """
    if sys.version_info < PYTHON:
        return f"lmd needs Python {_text(PYTHON)} or later; this is {sys.version.split()[0]}"
    for name, (oldest, why) in OLDEST.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if _numbers(installed) < oldest:
            return (
                f"lmd needs {name} {_text(oldest)} or later, and {installed} is installed ({why}): "
                f"pip install '{name}>={_text(oldest)}'"
            )
    return ""


def require_supported() -> None:
    """Refuses what is too old.

    Raises:
        ImportError: in one line.
    """
    if problem := unsupported():
        raise ImportError(problem)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.split("+")[0])[:3]))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
