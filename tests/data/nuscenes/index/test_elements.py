"""Elements of a JSON list, as the json module reads them whole, wherever the text is cut."""

from __future__ import annotations

import io
import json

import pytest

from lmd_cli.data.nuscenes.index import elements
from lmd_cli.data.nuscenes.index.elements import list_elements

ROWS = [
    {"token": "a]}, {", "x": [1.5, -2e-7, 3], "y": None, "z": True},
    {"token": 'quoted " \\ and \u00e9 \U0001f697', "deep": {"er": [{}, []]}},
    {},
]
TEXTS = [json.dumps(ROWS), json.dumps(ROWS, indent=0, ensure_ascii=False), " [ ]\n", "[\n{}\n]"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50, 1000])
@pytest.mark.parametrize("text", TEXTS)
def test_the_elements_are_those_of_json(
    text: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elements, "CHUNK", max(chunk, 200))
    reads = io.StringIO(text)
    monkeypatch.setattr(reads, "read", lambda size=-1, read=reads.read: read(chunk))
    assert list(list_elements(reads)) == json.loads(text)


@pytest.mark.parametrize("text", [' {"token": 3}', '{"token": 3}\n{"token": 4}', "null", "3"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is no list"):
        list(list_elements(io.StringIO(text)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[", r"Expecting value \(char 1\)"),
        ('[{"token": "a"}', r"Expecting ',' delimiter \(char 15\)"),
        ('[{"token": "a"} {}]', r"Expecting ',' delimiter \(char 16\)"),
        ('[{"token": "a"},]', r"Expecting value \(char 16\)"),
        ('[{"token" "a"}]', r"Expecting ':' delimiter \(char 10\)"),
        ('[{"token": "a}]', r"Unterminated string .*\(char 11\)"),
        ("[{}] []", r"Extra data \(char 5\)"),
    ],
)
def test_what_is_no_json_is_reported_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(list_elements(io.StringIO(text)))


def test_an_element_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "CHUNK", 100)
    file = io.StringIO("[{" + '"a": 1, ' * 1000)
    with pytest.raises(ValueError, match=r"\(char 10\d\)"):
        list(list_elements(file))
    assert file.tell() <= 300
