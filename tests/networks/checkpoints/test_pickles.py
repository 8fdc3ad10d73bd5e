"""Hostile and damaged files: nothing runs, nothing changes, every failure is one clear error."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
import sys
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lmd_cli.errors import CheckpointError
from lmd_cli.networks import load_checkpoint
from lmd_cli.networks.checkpoints.conversion import read_weights


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


# -- files that ask for too much ----------------------------------------------------------------


def made(path: Path, steps: bytes, **records: bytes) -> Path:
    """An archive whose pickle runs these steps."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + steps + b".")
        for name, data in {"0": bytes(8), **records}.items():
            archive.writestr(f"a/data/{name}", data)
    return path


def tensor(size: bytes, stride: bytes) -> bytes:
    """Steps that put down one tensor of the two float32 under key 0."""
    pid = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\0" + size + stride + b"\x89}tR"


def named(count: int, value: bytes) -> bytes:
    """Steps that put down a dict of so many values by name."""
    items = b"".join(b"X\x06\0\0\0" + b"w%05d" % i + value for i in range(count))
    return b"}(" + items + b"u"


LARGE = b"\x8a\x07" + b"\xff" * 6 + b"\x7f"  # 2**55 - 1
TOO_MUCH = {
    "nested": (b"}" + b")" + b"\x85" * 100_000 + b"Ns", "more than 1000 containers in each other"),
    "doubled as a key": (b"}" + b")" + b"2\x86" * 60 + b"Ns", "holds no tensors where"),
    "a memo far away": (b"]r\0\0\0\x10", "entry 268435456 in a memo of 0"),
    "instructions": (b"]" * 500_000, "too many instructions"),
    "copies of a list": (
        b"](" + b"K\x01K\x02\x86" * 9000 + b"eq\0" + b"ccollections\nOrderedDict\nh\0\x85R" * 99,
        "too many instructions",
    ),
    "a large integer": (b"\x8a\x20" + b"\x7f" * 32, "an integer of more than 80 bits"),
    "many axes": (
        b"}X\1\0\0\0w" + tensor(b"(" + LARGE * 60 + b"t", b"(" + b"K\0" * 60 + b"t") + b"s",
        "tensor w reaches beyond its numbers",
    ),
    "numbers repeated in many tensors": (
        named(300, tensor(b"M\0\x10M\0\x10\x86", b"K\0K\0\x86")),
        "repeat their numbers: they would take 20132659200 bytes",
    ),
    "text that is not there": (b"X\xff\xff\xff\x7f", "cannot be read"),
    "bytes that are not there": (b"\x8e" + b"\xff" * 7 + b"\x0f", "cannot be read"),
    "an instruction of old pickles": (b"I7\n", "its pickle holds INT, which no checkpoint needs"),
    "two sizes of a storage": (
        b"}X\1\0\0\0w" + tensor(b")", b")") + tensor(b")", b")").replace(b"K\x02tQ", b"K\x03tQ"),
        "storage 0 has two types or sizes",
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_asks_for_too_much_is_refused_at_once(tmp_path: Path, name: str) -> None:
    steps, said = TOO_MUCH[name]
    path = made(tmp_path / "a.pth", steps)
    start = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=re.escape(said)):
            read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 5  # watching the memory takes most of it


def test_a_wrong_checksum_is_refused_wherever_it_is(tmp_path: Path) -> None:
    for name in ("data.pkl", "used", "unused"):
        path = made(tmp_path / f"{name}.pth", b"}", used=b"12345678", unused=b"87654321")
        data = path.read_bytes()
        mark = {"data.pkl": b"\x80\x02}.", "used": b"12345678", "unused": b"87654321"}[name]
        path.write_bytes(data.replace(mark, mark[:-1] + b"?"))
        with pytest.raises(CheckpointError, match=r"checksum|CRC"):
            read_weights(path)


def test_archives_with_odd_directories(tmp_path: Path) -> None:
    path = tmp_path / "many.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(100):
            archive.writestr("x" * 60_000 + str(i), b"")
    with pytest.raises(CheckpointError, match="bytes at once; expected at most 4194304"):
        read_weights(path)
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("a/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="not one of PyTorch's"):
        read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(8))
        archive.filelist[1].header_offset = 0
    with pytest.raises(CheckpointError, match="records that overlap"):
        read_weights(path)


def test_a_large_directory_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**23).to_bytes(8, "little") + b" " * (2**23 + 8))
    with pytest.raises(CheckpointError, match="a directory of 8388608 bytes"):
        load_checkpoint(path, nn.Linear(1, 1))
