"""YAML that anybody may have written: what is taken, and what is said of everything else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lmd_cli.config.loading import load_config
from lmd_cli.config.yaml_text import LONGEST, TextError, load_yaml
from lmd_cli.errors import ConfigError


def laughs(levels: int) -> str:
    """Ten times ten times ten ... values, by aliases."""
    lines = ["a0: &a0 [" + ",".join("x" * 10) + "]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


REFUSED = {
    "x: 2001-13-45": (1, "x: '2001-13-45' cannot be read as a date"),
    "a:\n  b: !!int 'abc'": (2, "a.b: 'abc' cannot be read as an integer"),
    "a: [1, !!float x]": (1, "a.1: 'x' cannot be read as a number"),
    "a: !!bool maybe": (1, "a: 'maybe' cannot be read as true or false"),
    "a: !!binary x===": (1, "a: 'x===' cannot be read as binary data"),
    f"a: {'9' * 5000}": (1, f"a: '{'9' * 37}...' cannot be read as an integer"),
    f"a: {'1:' * 5000}1": (1, "cannot be read as an integer"),
    "b: 1\na: 1\nb: 2": (3, "the key b is there already, in line 1"),
    "a:\n  c: 1\n  'c': 2": (3, "the key a.c is there already, in line 2"),
    "~: 1": (1, "a key is null; expected a name"),
    "a:\n  null: 1": (2, "a: a key is null; expected a name"),
    "a:\n  2020-01-01: 1": (2, "a: a key is a date; expected a name"),
    "!!binary eA==: 1": (1, "a key is binary data; expected a name"),
    "1.5: 1": (1, "a key is a number; expected a name"),
    "? [a]\n: 1": (1, "a key is a list or mapping; expected a name"),
    "a: &a [*a]": (1, "*a refers to a value that contains it"),
    laughs(9): (5, "more than 20000 values"),
    "- a\n" * 30_000: (20_000, "more than 20000 values"),
    "[" * 60: (1, "more than 50 mappings and lists"),
    "- " * 60: (1, "more than 50 mappings and lists"),
    "!!set {a}": (1, "is not a type that is read here"),
    "!!python/object/apply:os.getcwd []": (1, "is not a type that is read here"),
    "a: *b": (1, "undefined alias"),
    "a: \x07": (None, "not valid YAML"),
    "#" * (LONGEST + 1): (None, f"expected at most {LONGEST}"),
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_line_key_and_problem_are_reported_at_once(text: str) -> None:
    line, said = REFUSED[text]
    start = time.monotonic()
    with pytest.raises(TextError) as caught:
        load_yaml(text)
    assert time.monotonic() - start < 2
    assert caught.value.line == line
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("a: {b: 1}\nc: [1.5, null, true, 2001-01-01, x]\n1: {2: 3}", "", "a: !!str 1"),
        *("a: &a {b: 1}\nc: {<<: *a, d: 2}\ne: *a", laughs(3), "a: 0x1F\nb: 1_000\nc: .inf"),
    ],
)
def test_the_rest_is_read_as_ever(text: str) -> None:
    assert load_yaml(text) == yaml.safe_load(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_whatever_is_written_comes_back(value: object) -> None:
    assert load_yaml(yaml.safe_dump(value)) == value


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("data: {split: val}\nmodel: {checkpoint: a, checkpoint: b}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    said = "the key model.checkpoint is there already, in line 2"
    assert str(caught.value) == f"{path}, line 2: {said}"
    with pytest.raises(ConfigError, match="--set seed=2001-13-45: the value is '2001-13-45' canno"):
        load_config("demo", ["seed=2001-13-45"])
    with pytest.raises(ConfigError, match="expected key=value"):
        load_config("demo", [f"model{'.a' * 99}=1"])
