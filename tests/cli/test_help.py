"""``--help`` on a terminal of 80 columns."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from lmd_cli.cli.app import app
from lmd_cli.cli.help import EXAMPLES, GROUPS
from tests.support.calling import Lmd

COMMANDS: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")


def test_every_command_is_in_a_group_and_its_sentence_whole(lmd: Lmd):
    text = lmd("--help").stdout
    assert [title for title in GROUPS if f"{title}:\n" not in text] == []
    assert set(COMMANDS) == {name for names in GROUPS.values() for name in names}
    words = " ".join(text.split())
    for name, command in COMMANDS.items():
        first = str(command.help).split("\n")[0].removesuffix(".")
        assert f" {name} {first}" in words
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_has_groups_words_and_an_example(lmd: Lmd, name: str):
    text = lmd(name, "--help").stdout
    assert "Help:\n" in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.rstrip().endswith(f"lmd {name} {EXAMPLES[name]}")
    for parameter in COMMANDS[name].params:
        assert (
            parameter.metavar is None
            or parameter.metavar.replace("_", "").isalpha()
            or (parameter.metavar in ("KEY=VALUE", "OUT.safetensors"))
        )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_parsed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    COMMANDS[name].make_context(name, shlex.split(EXAMPLES[name]))
