"""Streams the elements of a JSON list, so that a large table is never in memory as a whole."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

#: No element is longer, characters.
CHUNK = 1 << 23
#: Pieces of so large an element that are read one at a time.
_PIECES = 32

_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*").match
_comma = re.compile(r"[ \t\n\r]*,[ \t\n\r]*(?=[^ \t\n\r])").match


def list_elements(file: TextIO) -> Iterator[Any]:
    """Elements of the list that a file holds.

    Raises:
        ValueError: it is no list, no JSON, no text, or an element is longer than :data:`CHUNK`.
        RecursionError: it is nested too deeply.
    """
    return itertools.chain.from_iterable(_pieces(file))


def _pieces(file: TextIO) -> Iterator[list[Any]]:
    """The elements, many at a time."""
    window = _Window(file)
    if window.next_character() != "[":
        window.elements()
        raise ValueError("it is no list")
    window.at += 1
    if window.next_character() == "]":
        window.end()
        return
    yield window.elements()
    while window.goes_on():
        yield window.elements()
    window.end()


class _Window:
    """A part of a file's text, and the place that is read next."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._before, self.text, self.at = file, 0, "", 0
        self._divisible = False

    def _more(self) -> bool:
        """Reads on, and drops what lies before the place; whether there was any more."""
        text = self._file.read(max(CHUNK // _PIECES, 1))
        self._before += self.at
        self.text, self.at = self.text[self.at :] + text, 0
        self._divisible = True
        return bool(text)

    def next_character(self) -> str:
        """The first character that is no space, to which it goes; none at the end."""
        while True:
            self.at = _space(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or not self._more():
                return self.text[self.at : self.at + 1]

    def elements(self) -> list[Any]:
        """The values that begin here, at least one; all at once is twice as fast as one by one.

        Where a bracket is not the end of an element, what lies before it is no list.
        """
        if "}" not in self.text[self.at :] and len(self.text) - self.at < CHUNK:
            self._more()
        end = self.text.rfind("}", self.at) + 1
        if self._divisible and end:
            try:
                values: list[Any] = json.loads(f"[{self.text[self.at : end]}]")
                self.at = end
                return values
            except json.JSONDecodeError:
                self._divisible = False  # until more is read
        return [self._element()]

    def _element(self) -> Any:
        while True:
            try:
                value, self.at = _decode(self.text, self.at)
                return value
            except json.JSONDecodeError as error:
                what, place = error.msg, error.pos - self.at
            if len(self.text) - self.at > CHUNK or not self._more():
                self.fail(what, self.at + place)

    def goes_on(self) -> bool:
        """Whether another element follows, to which it goes, or else the list's last bracket."""
        if within := _comma(self.text, self.at):
            self.at = within.end()
            return True
        character = self.next_character()
        if character == ",":
            self.at += 1
            self.next_character()
        elif character != "]":
            self.fail("Expecting ',' delimiter", self.at)
        return character == ","

    def end(self) -> None:
        """Past the list's last bracket, where nothing may follow."""
        self.at += 1
        if self.next_character():
            self.fail("Extra data", self.at)

    def fail(self, what: str, place: int) -> NoReturn:
        """Says where in the file."""
        raise ValueError(f"{what} (char {self._before + place})")
