"""Parses YAML within bounds, and reports every problem with its line and key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

#: Characters of a text, and of a number or date in it.
LONGEST, LONGEST_NUMBER = 2**18, 1000
#: Mappings and lists in each other; values in all, those that aliases repeat included.
DEPTH, VALUES = 50, 20_000
_TAG = "tag:yaml.org,2002:"
#: What may be in a text, and what it is called.
_KINDS = {
    "str": "text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "timestamp": "a date",
    "seq": "a list",
    "map": "a mapping",
    "merge": "a merge",
    "binary": "binary data",
}
_NUMBERS = ("int", "float", "timestamp")
#: No key is any of these.
_NO_NAMES = ("null", "timestamp", "binary", "float")


class TextError(ValueError):
    """What is wrong with a text; ``line`` counts from 1, ``key`` is dotted; none where unknown."""

    def __init__(self, problem: str, line: int | None = None, key: str = ""):
        super().__init__(f"{key}: {problem}" if key else problem)
        self.line = line


def load_yaml(text: bytes | str) -> Any:
    """The value that a text in YAML holds.

    Raises:
        TextError: it is not YAML, too large or too deep, or holds a value that cannot be read, a
            key twice, or a key that is no name.
    """
    if len(text) > LONGEST:
        raise TextError(f"{len(text)} characters; expected at most {LONGEST}")
    loader = None
    try:
        _require_bounded(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(loader, node, (), set())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = None if mark is None else mark.line + 1
        raise TextError(f"not valid YAML: {problem}", line) from None
    finally:
        if loader is not None:
            loader.dispose()


def _require_bounded(text: bytes | str) -> None:
    """Refuses what is too deep, or too much once aliases are followed; builds nothing."""
    counts = [0]  # values in what is open
    anchors: dict[str, int] = {}
    names: list[str | None] = []
    for event in yaml.parse(text, yaml.SafeLoader):
        line = _line(event)
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            names.append(event.anchor)
            if len(names) > DEPTH:
                raise TextError(f"more than {DEPTH} mappings and lists in each other", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            _count(counts, anchors, names.pop(), counts.pop())
        elif isinstance(event, yaml.ScalarEvent):
            _count(counts, anchors, event.anchor, 1)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in names:
                raise TextError(f"*{event.anchor} refers to a value that contains it", line)
            counts[-1] += anchors.get(str(event.anchor), 1)
        if sum(counts) > VALUES:
            raise TextError(f"more than {VALUES} values, those that aliases repeat included", line)


def _count(counts: list[int], anchors: dict[str, int], anchor: str | None, count: int) -> None:
    counts[-1] += count
    if anchor is not None:
        anchors[anchor] = count


def _check(loader: yaml.SafeLoader, node: Node, key: tuple[str, ...], seen: set[int]) -> None:
    """Refuses values that cannot be read, and keys that are none; each node once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    kind = node.tag.removeprefix(_TAG)
    if kind not in _KINDS:
        raise _error(node, key, f"not valid YAML: {node.tag!r} is not a type that is read here")
    if isinstance(node, ScalarNode):
        _read(loader, node, key)
    for name, value in _inside(loader, node, key):
        _check(loader, value, (*key, name), seen)


def _inside(
    loader: yaml.SafeLoader, node: Node, key: tuple[str, ...]
) -> Iterator[tuple[str, Node]]:
    """What is in a mapping or list, by name."""
    if isinstance(node, SequenceNode):
        for number, value in enumerate(node.value):
            yield str(number), value
    names: dict[Any, int] = {}
    for name_node, value in node.value if isinstance(node, MappingNode) else ():
        name = _name(loader, name_node, key)
        if name in names:
            first = f"{'.'.join((*key, str(name)))} is there already, in line {names[name]}"
            raise _error(name_node, (), f"the key {first}")
        if name_node.tag != f"{_TAG}merge":
            names[name] = _line(name_node)
        yield str(name), value


def _name(loader: yaml.SafeLoader, node: Node, key: tuple[str, ...]) -> Any:
    """A mapping's key."""
    kind = node.tag.removeprefix(_TAG)
    if not isinstance(node, ScalarNode) or kind in _NO_NAMES:
        what = _KINDS[kind] if isinstance(node, ScalarNode) else "a list or mapping"
        raise _error(node, key, f"a key is {what}; expected a name")
    return _read(loader, node, key)


def _read(loader: yaml.SafeLoader, node: ScalarNode, key: tuple[str, ...]) -> Any:
    kind = node.tag.removeprefix(_TAG)
    try:
        if kind in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise ValueError
        return node.value if kind == "merge" else loader.construct_object(node, deep=True)
    except Exception:  # PyYAML's readers of values raise many kinds
        shown = node.value if len(node.value) <= 40 else f"{node.value[:37]}..."
        expected = _KINDS.get(kind, "a value")
        raise _error(node, key, f"{shown!r} cannot be read as {expected}") from None


def _error(node: Node, key: tuple[str, ...], problem: str) -> TextError:
    return TextError(problem, _line(node), ".".join(key))


def _line(place: Any) -> int:
    """Where an event or a node begins, from 1."""
    return place.start_mark.line + 1
