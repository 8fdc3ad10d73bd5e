"""Names from tables: files inside the root, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmd_cli.assembly.targets import user_code
from lmd_cli.data.custom import CustomSamples
from lmd_cli.data.nuscenes.files import data_file
from lmd_cli.data.nuscenes.split import SplitSamples
from lmd_cli.errors import ContractError, DataError


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
