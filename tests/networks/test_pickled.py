"""Hostile and damaged files: nothing runs, nothing changes, every failure is one clear error."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lmd_cli.errors import CheckpointError
from lmd_cli.networks.conversion import read_weights


class Runs:
    """Runs a command when unpickled by a careless reader."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_commands_are_not_run(tmp_path: Path, zipped: bool) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.ckpt"
    content = {"state_dict": {"w": torch.ones(2)}, "callbacks": Runs(witness)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    state, left_out, _ = read_weights(path)
    assert not witness.exists()
    assert list(state) == ["w"]
    assert left_out == [f"{os.name}.system"]
    torch.load(path, weights_only=False)  # the file does what it says when it is trusted
    assert witness.exists()


class Script(nn.Module):
    """TorchScript that shows itself while PyTorch loads it."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.w

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return self.w, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        print("script ran")
        self.w, self.training = state[0], state[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript itself
def test_torchscript_is_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.jit.save(torch.jit.script(Script()), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="a TorchScript program, not a checkpoint"):
        read_weights(tmp_path / "script.pt")
    assert "ran" not in capfd.readouterr().out
    torch.jit.load(tmp_path / "script.pt")
    assert "ran" in capfd.readouterr().out


def edited(folder: Path, content: object, edit: Callable[[str, bytes], bytes], **how: int) -> Path:
    """A checkpoint with its records changed."""
    torch.save(content, folder / "good.pth")
    path = folder / "edited.pth"
    with zipfile.ZipFile(folder / "good.pth") as old, zipfile.ZipFile(path, "w", **how) as new:
        for record in old.namelist():
            new.writestr(record, edit(record.rpartition("/")[2], old.read(record)))
    return path


def pickled(change: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes]:
    """An edit of the pickle alone."""
    return lambda name, data: change(data) if name == "data.pkl" else data


W = {"w": torch.ones(3)}


@pytest.mark.parametrize("name", [b"_rebuild_tensor_v2", b"_rebuild_parameter"])
def test_functions_cannot_be_changed(tmp_path: Path, name: bytes) -> None:
    build = b"ctorch._utils\n" + name + b"\n(N}X\x0c\x00\x00\x00__defaults__)stb0"
    function = getattr(torch._utils, name.decode())
    before = function.__defaults__
    path = edited(tmp_path, W, pickled(lambda data: data[:2] + build + data[2:]))
    state, left_out, _ = read_weights(path)
    assert function.__defaults__ is before
    assert torch.equal(state["w"], W["w"])
    assert left_out == []


def test_nothing_is_imported(tmp_path: Path) -> None:
    name = b"antigravity\nfly\n"
    path = edited(tmp_path, W, pickled(lambda data: data[:2] + b"c" + name + b"0" + data[2:]))
    assert read_weights(path)[1] == ["antigravity.fly"]
    assert "antigravity" not in sys.modules


def test_names_cannot_control_the_terminal(tmp_path: Path) -> None:
    call = b"c\x1b[31mred\nx\n0"
    path = edited(tmp_path, W, pickled(lambda data: data[:2] + call + data[2:]))
    assert read_weights(path)[1] == [r"'\x1b[31mred.x'"]


LENGTH = b"K\x03\x85"  # the tensor's size, (3,)


@pytest.mark.parametrize(
    "size", [b"K\xc8\x85", b"J\xff\xff\xff\xff\x85", b"N\x85", b"K\x03K\x01\x86", b"]"]
)
def test_a_tensor_beyond_its_numbers(tmp_path: Path, size: bytes) -> None:
    def change(data: bytes) -> bytes:
        assert data.count(LENGTH) == 1
        return data.replace(LENGTH, size)

    with pytest.raises(CheckpointError, match="tensor w reaches beyond its numbers"):
        read_weights(edited(tmp_path, W, pickled(change)))


def test_a_tensor_that_repeats_a_number_without_end(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(2**40)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="tensor w reaches beyond its numbers"):
        read_weights(tmp_path / "a.pth")


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, W, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"record good/\S+ is compressed"):
        read_weights(path)


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    path = edited(tmp_path, W, lambda name, data: b"big" if name == "byteorder" else data)
    with pytest.raises(CheckpointError, match="another byte order"):
        read_weights(path)


def test_changed_and_missing_numbers_are_noticed(tmp_path: Path) -> None:
    path = edited(tmp_path, W, lambda name, data: data[:-1] if name == "0" else data)
    with pytest.raises(CheckpointError, match="tensor w lacks some of its numbers"):
        read_weights(path)
    data = (tmp_path / "good.pth").read_bytes()
    ones = struct.pack("<3f", 1, 1, 1)
    assert data.count(ones) == 1
    path.write_bytes(data.replace(ones, struct.pack("<3f", 1, 2, 1)))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_is_always_one_clear_error(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    state = {"a": torch.ones(3), "b": nn.Parameter(torch.ones(2, 2))}
    content = {"state_dict": state, "x": Runs(tmp_path / "witness")}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    whole, draw = path.read_bytes(), random.Random(0)
    for cut in {*range(0, len(whole), 37), len(whole) - 1}:
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_weights(path)
    for _ in range(300):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] = draw.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            read_weights(path)
    assert not (tmp_path / "witness").exists()
