"""The cache folder: what is listed, and that nothing is deleted that is not ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmd_cli.data.nuscenes.index.cache import open_index
from lmd_cli.data.synthetic.root import cached_root
from lmd_cli.errors import ConfigError
from lmd_cli.runtime.drafts import making
from lmd_cli.workflows.cache import clear, entries
from tests.support.calling import Lmd

ROOT = "synthetic-mini_val-1-seed0-64x64"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with a root, an index, and files of somebody else's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LMD_CACHE", str(folder))
    root = cached_root("mini_val", 1, image_size=(64, 64))
    open_index(root, "v1.0-mini", "mini_val")
    (folder / "letters").mkdir()
    (folder / "letters" / "one.txt").write_text("dear")
    (folder / "indexes" / "notes.txt").write_text("mine")
    (folder / "synthetic-mini_val-9-seed0-64x64").mkdir()  # by name only
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "synthetic.json").write_text("{}")
    (folder / "synthetic-all-1-seed0-64x64").symlink_to(tmp_path / "elsewhere")
    return folder


FOREIGN = {
    *("letters", "indexes/notes.txt", "synthetic-mini_val-9-seed0-64x64"),
    "synthetic-all-1-seed0-64x64",
}


def test_what_is_listed(cache: Path):
    there = {entry.name: entry for entry in entries()}
    assert {name for name, entry in there.items() if entry.kind == "foreign"} == FOREIGN
    root = there[ROOT]
    assert root.kind == "synthetic"
    assert root.origin == "2 scenes of 1 samples, seed 0, images 64 x 64"
    manifest = json.loads((cache / ROOT / "synthetic.json").read_text())
    assert root.size == manifest["bytes"] + (cache / ROOT / "synthetic.json").stat().st_size
    (index,) = (entry for entry in there.values() if entry.kind == "index")
    assert index.name.startswith("indexes/v1.0-mini-mini_val-")
    assert index.size == (cache / index.name).stat().st_size


def test_clearing_all_keeps_what_is_not_ours(cache: Path, tmp_path: Path):
    deleted, kept = clear()
    assert {entry.kind for entry in deleted} == {"synthetic", "index"}
    assert {entry.name for entry in entries()} == FOREIGN
    assert len(kept) == len(FOREIGN)
    assert (cache / "letters" / "one.txt").read_text() == "dear"
    assert (tmp_path / "elsewhere" / "synthetic.json").exists()


@pytest.mark.parametrize("wanted", [ROOT, "synthetic"])
def test_clearing_one_thing(cache: Path, wanted: str):
    deleted, _ = clear([wanted])
    assert [entry.name for entry in deleted] == [ROOT]
    assert not (cache / ROOT).exists()
    assert any(entry.kind == "index" for entry in entries())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("letters", "is not lmd's; delete it yourself"),
        ("synthetic-all-1-seed0-64x64", "is not lmd's"),
        ("../elsewhere", "nor a kind (synthetic, index, unfinished); lmd cache lists what is"),
    ],
)
def test_other_names_are_refused(cache: Path, wanted: str, said: str):
    before = {entry.name for entry in entries()}
    with pytest.raises(ConfigError) as caught:
        clear([ROOT, wanted])
    assert said in str(caught.value)
    assert {entry.name for entry in entries()} == before  # nothing was deleted first


def test_what_is_being_made_stays(cache: Path):
    with making(cache, ROOT) as folder:
        deleted, kept = clear(["unfinished"])
        assert deleted == []
        assert kept == [f"{folder.name} is being made and stays"]
        assert folder.exists()
    dead = cache / f".{ROOT}-abc.making"
    dead.mkdir()
    (dead / "maker.lock").touch()
    assert [entry.name for entry in clear(["unfinished"])[0]] == [dead.name]


def test_the_command(cache: Path, lmd: Lmd):
    result = lmd("cache")
    assert result.exit_code == 0
    assert "6 entries, " in result.stdout
    assert " kB " in result.stdout  # of an index, no 0.0 MB
    assert f" in {cache}" in result.stdout
    result = lmd("cache", "clear", "index")
    assert result.exit_code == 0
    assert f"deleted from {cache}" in result.stdout
    assert (cache / ROOT).exists()
    assert lmd("cache", "clear", "nothing").exit_code == 2
    assert lmd("cache", "list", "index").exit_code == 2


def test_no_folder_is_no_entry(tmp_path: Path):
    assert entries(tmp_path / "none") == []
    assert clear((), tmp_path / "none") == ([], [])
