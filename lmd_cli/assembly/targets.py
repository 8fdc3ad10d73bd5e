"""Resolves the name of a target, and calls it to make a network or a data set.

A target is ``package.module:name`` or a registered name: a built-in one, or one that an installed
package declares in its entry points ``lmd_cli.models`` and ``lmd_cli.data``. Only what the user's
config names is imported; nothing is fetched.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from lmd_cli.config.shipped import PACKAGE, listing
from lmd_cli.errors import ContractError, LmdError, out_of_memory

Kind = Literal["model", "data"]
#: Groups of entry points.
GROUPS: dict[Kind, str] = {"model": "lmd_cli.models", "data": "lmd_cli.data"}
#: Built-in targets, which are found without an installation.
BUILT_IN: dict[Kind, dict[str, str]] = {
    "model": {
        "simplebev": "lmd_cli.assembly.builtin:simplebev",
        "crn": "lmd_cli.assembly.builtin:crn",
    },
    "data": {"nuscenes": "lmd_cli.assembly.builtin:nuscenes"},
}
#: Modules that were found beside a config, and the folder: another config's is another module.
_BESIDE: dict[str, Path] = {}


def make_target(
    kind: Kind, target: str, options: Mapping[str, Any], config_file: Path | None = None
) -> Any:
    """What a target makes of its options.

    Args:
        kind: section of the config.
        target: see above.
        options: keyword arguments.
        config_file: modules are looked for in its folder first.

    Raises:
        ContractError: the target cannot be imported, is no function or class, or raises; says what
            was raised and at which line.
    """
    where = f"{kind}.target {target!r}"
    folder = None if config_file is None else config_file.resolve().parent
    with _beside(folder):
        factory = _find(kind, target, where, folder)
        with user_code(f"{where} with the options {dict(options)}"):
            return factory(**options)


def registered(kind: Kind) -> dict[str, str]:
    """Names that need no module in front, and what they stand for."""
    installed = {entry.name: entry.value for entry in entry_points(group=GROUPS[kind])}
    return installed | BUILT_IN[kind]


def source_of_target(kind: Kind, target: str) -> Path | None:
    """Where the code of a target lies that has been imported: the folder of its package, or its
    module's file; nothing for one that has neither, or is not imported."""
    path = target if ":" in target else registered(kind).get(target, "")
    name = path.partition(":")[0]
    top, own = sys.modules.get(name.partition(".")[0]), sys.modules.get(name)
    file = getattr(top, "__file__", None) or getattr(own, "__file__", None)
    if file is None or not Path(file).is_file():
        return None
    return Path(file).parent if Path(file).name == "__init__.py" else Path(file)


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turns exceptions of user code into a message with its line; the program's go through.

    Raises:
        ContractError: ``what`` raised something.
    """
    try:
        yield
    except LmdError:
        raise
    except Exception as error:
        if _ours(error) or out_of_memory(error):
            raise
        raise ContractError(f"{what} raised {described(error)}") from error


def _ours(error: Exception) -> bool:
    """Errors that have a message of their own."""
    return any(kind.__name__ == "DecompositionError" for kind in type(error).__mro__)


def described(error: Exception) -> str:
    """``ValueError: message (file.py, line 3)``: the last line outside torch and this package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not _foreign(f.filename)] or frames
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({error.filename}, line {error.lineno})"
        return f"{type(error).__name__}: {error.msg}{place}"
    return f"{type(error).__name__}: {error}{place}"


def _foreign(filename: str) -> bool:
    installed = any(part in Path(filename).parts for part in ("site-packages", "dist-packages"))
    return installed or filename.startswith(("<", str(PACKAGE)))


@contextmanager
def _beside(folder: Path | None) -> Iterator[None]:
    """The folder first on Python's path until the end of the block."""
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _find(kind: Kind, target: str, where: str, folder: Path | None) -> Callable[..., Any]:
    path = target if ":" in target else registered(kind).get(target)
    if path is None:
        raise ContractError(
            f"{where} is not registered; there are {listing(registered(kind), target)}. For one of "
            "your own give 'package.module:name'"
        )
    module_name, _, name = path.partition(":")
    value: Any = _import(module_name, where, folder)
    for piece in name.split("."):
        if not hasattr(value, piece):
            raise ContractError(f"{where}: {_lacks(value, piece)}")
        value = getattr(value, piece)
    if not callable(value):
        kind_of = type(value).__name__
        raise ContractError(f"{where} is of type {kind_of}; expected a function or a class")
    return value


def _lacks(holder: Any, name: str) -> str:
    named = getattr(holder, "__name__", type(holder).__name__)
    file = getattr(holder, "__file__", None)
    known = [n for n, value in vars(holder).items() if callable(value) and not n.startswith("_")]
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{named}{f' ({file})' if file else ''} has no {name!r}{hint}"


def _import(name: str, where: str, folder: Path | None) -> ModuleType:
    if not all(piece.isidentifier() for piece in name.split(".")):
        raise ContractError(
            f"{where}: {name!r} is no module's name; expected 'package.module:name'"
        )
    top = name.partition(".")[0]
    _forget_other(top, folder)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            looked = f"in {folder}, and " if folder is not None else ""
            raise ContractError(
                f"{where}: there is no module {error.name!r} (looked {looked}on Python's path)"
            ) from error
        raise ContractError(f"{where}: importing {name} raised {described(error)}") from error
    except Exception as error:
        raise ContractError(f"{where}: importing {name} raised {described(error)}") from error
    if folder is not None and Path(getattr(module, "__file__", None) or "").is_relative_to(folder):
        _BESIDE[top] = folder
    return module


def _forget_other(top: str, folder: Path | None) -> None:
    """A module of this name beside another config is not this config's."""
    if _BESIDE.get(top, folder) == folder:
        return
    for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
        del sys.modules[name]
    del _BESIDE[top]
    importlib.invalidate_caches()
