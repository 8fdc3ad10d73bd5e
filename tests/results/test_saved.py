"""Decompositions in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmd_cli
from lmd_cli.decomposition import Decomposition, InputError, decompose


class Fusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, camera: Tensor, radar: Tensor) -> dict[Any, Any]:
        mixed = self.mix(torch.cat([camera, radar], 1))
        seen = {"count": 2, "mask": mixed > 0, 3: (mixed.sum().to(torch.complex64), None)}
        return {"map": mixed, "more": [mixed.mean((2, 3)), (camera * radar, None)], **seen}


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def result(request: pytest.FixtureRequest) -> Decomposition:
    inputs = {n: torch.randn(1, 2, 6, 6, dtype=request.param) for n in ("camera", "radar")}
    return decompose(
        Fusion().eval().to(request.param),
        inputs,
        extras={"radar": [torch.randn(1, 2, 6, 6, dtype=request.param)]},
        layers=["mix.2"],
        audit=True,
        bilinear="interaction",
    )


def test_a_file_gives_the_same_result_and_the_same_bytes(
    result: Decomposition, tmp_path: Path
) -> None:
    result.save(tmp_path / "one.pt")
    loaded = lmd_cli.load(tmp_path / "one.pt")
    assert repr(loaded) == repr(result)
    assert (loaded.operations, loaded.coverage) == (result.operations, result.coverage)
    assert loaded.program is None
    pairs = [
        (loaded.total, result.total),
        (loaded.tree["mask"], result.tree["mask"]),
        (loaded.named, result.named),
        (loaded.extras, result.extras),
        (loaded.layers["mix.2"].named, result.layers["mix.2"].named),
    ]
    for mine, own in pairs:
        torch.testing.assert_close(mine, own, rtol=0, atol=0)
    assert (loaded.tree["count"], loaded.tree[3][1]) == (2, None)
    loaded.save(tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pt", "two.pt"]


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_file_is_run(result: Decomposition, tmp_path: Path) -> None:
    path, folder = tmp_path / "one.pt", tmp_path / "made"
    for content in (Runs(folder), {"format": "lmd decomposition 1", "result": Runs(folder)}):
        torch.save(content, path)
        with pytest.raises(InputError, match=r"one\.pt .*expected a file that Decomposition\.save"):
            lmd_cli.load(path)
    assert not folder.exists()


def test_files_of_something_else_are_refused(result: Decomposition, tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"one\.pt cannot be read: .*Decomposition\.save wrote"):
        lmd_cli.load(path)
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(InputError, match="holds something else"):
        lmd_cli.load(path)
    result.save(path)
    good, state = path.read_bytes(), torch.load(path, weights_only=True)
    for damaged in ("{", "[" * 100_000, state["result"].replace('"rows": [', '"rows": [9, ')):
        torch.save({**state, "result": damaged}, path)
        with pytest.raises(InputError, match=r"one\.pt is damaged"):
            lmd_cli.load(path)
    path.write_bytes(good[:-200])
    with pytest.raises(InputError, match="cannot be read"):
        lmd_cli.load(path)
    with pytest.raises(FileNotFoundError):
        lmd_cli.load(tmp_path / "none.pt")
