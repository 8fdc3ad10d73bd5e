"""Escapes text from files so that it can be printed: no control characters, nothing hidden."""

from __future__ import annotations

import codecs
import sys
import unicodedata

#: Kinds of characters that are no text: control, format (also those that turn the direction of
#: writing), half characters, and separators of lines.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
#: What our own messages say beyond ASCII, for a terminal that knows nothing else.
_PLAIN = {"±": "+-", "…": "...", "↑": "^", "↓": "v", "×": "x", "–": "-", "—": "-", "·": "."}
_ERRORS = "lmd_plain"


def printable(text: str) -> str:
    """The text with what cannot be seen written out (``\\x1b``); line ends and tabs stay."""
    return "".join(c if c in "\n\t" or not _unseen(c) else _written_out(c) for c in text)


def in_one_line(text: str) -> str:
    """The same with line ends and tabs written out too, for a name within a message."""
    return "".join(_written_out(c) if _unseen(c) else c for c in text)


def _unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode()


def one_line(text: str) -> bool:
    """Whether it has no line end of any kind, and is not empty."""
    return len(text.splitlines()) == 1 and text == text.splitlines()[0]


def use_plain_text() -> None:
    """Standard output and error show what their encoding lacks in other words, and never fail."""
    codecs.register_error(_ERRORS, _in_plain_text)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _in_plain_text(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or _written_out(c) for c in lacking), error.end
