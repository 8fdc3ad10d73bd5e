"""Names from tables: files inside the root, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmd_cli.assembly.targets import user_code
from lmd_cli.data.content import file_hashes
from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.files import data_file
from lmd_cli.data.nuscenes.split import SplitSamples
from lmd_cli.errors import ContractError, DataError
from lmd_cli.runtime.files import is_inside
from tests.support.tiny_nuscenes import VERSION, open_samples


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "samples/../../x", "", ".", "a\0b"]
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"which is not inside the data root .*needed by sample t"):
        data_file(tmp_path, name, "t")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "blob").touch()
    (tmp_path / "image").symlink_to(tmp_path / "blob")
    for name, kind in (("pipe", "a pipe"), ("link", "a device")):
        with pytest.raises(DataError, match=f"{name}: is {kind}; expected a file"):
            data_file(tmp_path, name, "t")
    for name in ("blob", "image"):  # a data set of links is one
        assert data_file(tmp_path, name, "t") == tmp_path / name
    with pytest.raises(DataError, match="absent: file not found"):
        data_file(tmp_path, "absent", "t")


def test_hashes_are_of_plain_files_inside_the_root(own_root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    tables = own_root / VERSION / "sample_data.json"
    rows = json.loads(tables.read_text())
    names = [row["filename"] for row in rows if row["is_key_frame"]]
    odd = iter(("../secret", str(tmp_path / "secret")))
    for row in rows:
        if row["filename"] in names[:2]:
            row["filename"] = next(odd)
    tables.write_text(json.dumps(rows))
    (own_root / names[2]).unlink()
    os.mkfifo(own_root / names[2])
    (own_root / names[3]).unlink()
    (own_root / names[3]).symlink_to("/dev/zero")
    samples = open_samples(own_root)
    needed = {name for group in samples.needed_files().values() for name in group}
    assert needed >= {"../secret", str(tmp_path / "secret"), *names[2:4]}
    there = {name for name in needed - {*names[2:4]} if is_inside(name)}
    assert file_hashes(samples, whole=True).keys() == there


def test_a_token_is_one_line() -> None:
    methods = {"__len__": lambda self: 2, "__getitem__": None, "tokens": ["a", "b\nc"]}
    dataset = type("Two", (), methods)()
    with pytest.raises(ContractError, match=r"token 'b\\nc' is no single line of text"):
        CustomSamples(dataset, "data.target 'x:y'", user_code)
    samples = SplitSamples.__new__(SplitSamples)
    samples._source = "split val"
    samples._records = SimpleNamespace(tokens=lambda: ["a", "b\rc"])
    with pytest.raises(DataError, match=r"split val: sample token 'b\\rc' is no single line"):
        _ = samples.tokens
