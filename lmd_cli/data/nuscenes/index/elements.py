"""Streams the elements of a JSON list, so that a large table is never in memory as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

#: Characters that are read at a time; no element is longer.
CHUNK = 1 << 23

_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*").match
_comma = re.compile(r"[ \t\n\r]*,[ \t\n\r]*(?=[^ \t\n\r])").match


def list_elements(file: TextIO) -> Iterator[Any]:
    """Elements of the list that a file holds; what is no list is its own only element.

    Raises:
        ValueError: it is no JSON, no text, or an element is longer than :data:`CHUNK`.
        RecursionError: it is nested too deeply.
    """
    window = _Window(file)
    if window.next_character() != "[":
        file.seek(0)
        yield json.load(file)
        return
    window.at += 1
    if window.next_character() == "]":
        window.end()
        return
    yield window.element()
    while window.goes_on():
        yield window.element()
    window.end()


class _Window:
    """A part of a file's text, and the place that is read next."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._before, self.text, self.at = file, 0, "", 0

    def _more(self) -> bool:
        """Reads on, and drops what lies before the place; whether there was any more."""
        text = self._file.read(CHUNK)
        self._before += self.at
        self.text, self.at = self.text[self.at :] + text, 0
        return bool(text)

    def next_character(self) -> str:
        """The first character that is no space, to which it goes; none at the end."""
        while True:
            self.at = _space(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or not self._more():
                return self.text[self.at : self.at + 1]

    def element(self) -> Any:
        """The value that begins here."""
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
