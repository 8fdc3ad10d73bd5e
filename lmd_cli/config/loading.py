"""Loads and validates a config from a YAML file and ``--set`` values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from lmd_cli.config.base import expected_of
from lmd_cli.config.custom import CUSTOM
from lmd_cli.config.models import MODELS, network_of
from lmd_cli.config.schema import SOURCES, RunConfig, source_of
from lmd_cli.config.shipped import first_file, from_home, listing, shipped
from lmd_cli.config.yaml_text import DEPTH, LONGEST, TextError, load_yaml
from lmd_cli.errors import ConfigError

SUFFIXES = ("", ".yaml", ".yml")
Key = tuple[str, ...]
#: Characters of a ``--set`` in a message.
_SHOWN = 200
#: Sections with several schemas: these, and which one a section belongs to.
CHOICES = {"model": (MODELS, network_of), "data": (SOURCES, source_of)}


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a config.

    Args:
        name_or_path: a file, or a bare name (``demo.yaml``, ``demo``) that is looked up in
            ``configs/`` of the working directory, then among the configs shipped.
        overrides: ``"model.encoder=res50"``: a dotted key, and a value in YAML.

    Raises:
        ConfigError: the file is not there (says what is) or is not YAML (file and line), an
            unknown key (with the nearest known one), a missing key, or a value of the wrong type
            or range; every problem of the file is listed.
    """
    path = find_config(str(name_or_path))
    return parse(path, overrides).with_origin(path)


def find_config(name: str) -> Path:
    """The file that a path or bare name means; see :func:`load_config`.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    given = from_home(name)
    bare = given.name == name
    folders = (Path(), Path("configs"), shipped("configs")) if bare else (Path(),)
    file = first_file(folder / f"{given}{suffix}" for folder in folders for suffix in SUFFIXES)
    if file is not None:
        return file
    if given.exists():
        raise ConfigError(f"config {name} is no file; expected one in YAML")
    known = [path.name for folder in ("configs", shipped("configs")) for path in _yamls(folder)]
    wanted = given.with_suffix(".yaml").name if given.name else name
    raise ConfigError(f"config {name} not found; there are {listing(known, wanted)}")


def _yamls(folder: Path | str) -> Iterator[Path]:
    return (path for path in Path(folder).glob("*") if path.suffix in SUFFIXES[1:])


def parse(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads and checks one file.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    values = _read(path)
    origins: dict[Key, str] = {}
    for text in overrides:
        key, value = _override(text)
        _put(values, key, value, text)
        origins[key] = f"--set {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}"
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, values, origins, str(path))) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = load_yaml(file.read(LONGEST + 1))
    except TextError as error:
        where = "" if error.line is None else f", line {error.line}"
        raise ConfigError(f"{path}{where}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        keys = ", ".join(RunConfig.model_fields)
        raise ConfigError(f"{path} holds {kind}; expected a mapping with the keys {keys}")
    return content


def _override(text: str) -> tuple[Key, Any]:
    """Key and value of a ``--set``."""
    key, equals, value = text.partition("=")
    names = tuple(key.strip().split("."))
    if not equals or not all(names) or len(names) > DEPTH:
        raise ConfigError(f"--set {text}: expected key=value, e.g. model.encoder=res50")
    try:
        return names, load_yaml(value)
    except TextError as error:
        raise ConfigError(f"--set {text}: the value is {error}") from None


def _put(values: dict[str, Any], key: Key, value: Any, text: str) -> None:
    """Sets a nested value, making the mappings on the way."""
    for depth, name in enumerate(key[:-1], start=1):
        if values.get(name) is None:
            values[name] = {}
        values = values[name]
        if not isinstance(values, dict):
            raise ConfigError(f"--set {text}: {'.'.join(key[:depth])} is a value, not a mapping")
    values[key[-1]] = value


# -- messages -------------------------------------------------------------------------------


def _explain(error: ValidationError, values: Any, origins: Mapping[Key, str], path: str) -> str:
    """One line for each problem, led by the file or the ``--set`` it comes from."""
    lines: dict[str, None] = {}  # an ordered set: one value can break several rules
    for detail in error.errors(include_url=False):
        key, field = _known(detail["loc"], values)
        lines.setdefault(f"{_origin(key, origins, path)}: {_problem(detail, key, field, values)}")
    return "\n".join(lines)


def _origin(key: Key, origins: Mapping[Key, str], path: str) -> str:
    """Where the value of ``key`` was set last."""
    sources = [
        text
        for set_key, text in origins.items()
        if key[: len(set_key)] == set_key or set_key[: len(key)] == key
    ]
    return sources[-1] if sources else path


def _problem(detail: Any, key: Key, field: FieldInfo | None, values: Any) -> str:
    name = ".".join(key)
    if detail["type"] == "extra_forbidden":
        of_own = CHOICES[key[0]][0][CUSTOM] if key[0] in CHOICES else None
        if of_own is not None and key[-1] in of_own.model_fields:
            return f"unknown key {name}; only a {key[0]} of your own ({key[0]}.target) has it"
        return f"unknown key {name}{_nearest(key, values)}"
    expected = _expected(field, values)
    value = _value_at(values, key)
    if value is _ABSENT:
        return f"missing key {name}: expected {expected}"
    if detail["type"] == "value_error":
        return f"{name} is {_short(value)}: {detail['ctx']['error']}"
    return f"{name} is {_short(value)}: expected {expected}"


def _known(location: Sequence[Any], values: Any) -> tuple[Key, FieldInfo | None]:
    """The dotted key of a pydantic location and its declaration (none if unknown).

    What follows a declared key (indices in its value, alternatives of a union) is left out, and
    so is the schema's name behind ``model`` and ``data``.
    """
    section: type[BaseModel] | None = RunConfig
    key: list[str] = []
    field = None
    for piece in location:
        if section is None:
            break
        if len(key) == 1 and _is_schema(key[0], piece) and piece not in section.model_fields:
            continue
        key.append(str(piece))
        field = section.model_fields.get(str(piece))
        section = _section(field, values)
    return tuple(key), field


def _is_schema(name: str, piece: Any) -> bool:
    return name in CHOICES and piece in CHOICES[name][0]


def _section(field: FieldInfo | None, values: Any) -> type[BaseModel] | None:
    """The schema below a key; that of ``model`` is the one of the network it names."""
    if field is None:
        return None
    for name, (schemas, kind_of) in CHOICES.items():
        if field is RunConfig.model_fields[name]:
            return schemas[kind_of(values.get(name) if isinstance(values, dict) else None)]
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _expected(field: FieldInfo | None, values: Any) -> str:
    section = _section(field, values)
    if section is not None:
        return f"a mapping with the keys {', '.join(section.model_fields)}"
    return expected_of(field)


def _nearest(key: Key, values: Any) -> str:
    """``; did you mean model.encoder?``: by its place first, then by its own name anywhere."""
    known = {".".join(path): path[-1] for path in _all_keys(RunConfig, values)}
    name = ".".join(key)
    siblings = [path for path in known if path.rpartition(".")[0] == name.rpartition(".")[0]]
    near = get_close_matches(name, siblings, n=1, cutoff=0.75)
    near = near or [path for path, last in known.items() if last == key[-1]][:1]
    near = near or get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here: {', '.join(siblings)}"


def _all_keys(model: type[BaseModel], values: Any, prefix: Key = ()) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        section = _section(field, values)
        if section is not None:
            yield from _all_keys(section, values, (*prefix, name))


_ABSENT = object()


def _value_at(values: Any, key: Key) -> Any:
    for name in key:
        if not isinstance(values, dict) or name not in values:
            return _ABSENT
        values = values[name]
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
