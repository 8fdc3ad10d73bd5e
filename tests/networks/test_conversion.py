"""Lightning checkpoints, and clean copies of files that the safe loader refuses."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from lmd_cli.errors import CheckpointError
from lmd_cli.networks import load_checkpoint
from lmd_cli.networks.checkpoints import file_sha256
from lmd_cli.networks.conversion import convert


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def lightning(folder: Path, **more: object) -> Path:
    state = {f"model.{name}": value for name, value in network().state_dict().items()}
    path = folder / "crn.ckpt"
    torch.save({"epoch": 3, "state_dict": state, **more}, path)
    return path


def assert_loads(path: Path) -> None:
    target = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    load_checkpoint(path, target)
    for name, value in network().state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_lightning_file_without_objects_loads(tmp_path: Path) -> None:
    assert_loads(lightning(tmp_path))


def test_hyper_parameters_are_refused_then_left_out(tmp_path: Path) -> None:
    options = {"args": argparse.Namespace(gpus=4, lr=functools.partial(max, 1))}
    path = lightning(tmp_path, hyper_parameters=options)
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace.*lmd convert .*safetensors"):
        load_checkpoint(path, network())
    done = convert(path, tmp_path / "clean.safetensors")
    assert done.tensors == len(network().state_dict())
    assert done.left_out == ["__builtin__.max", "argparse.Namespace", "functools.partial"]
    assert done.source_sha256 == file_sha256(path)
    assert done.sha256 == file_sha256(tmp_path / "clean.safetensors")
    assert_loads(tmp_path / "clean.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_run(tmp_path: Path, zipped: bool) -> None:
    witness, path = tmp_path / "witness", tmp_path / "evil.ckpt"
    content = {"state_dict": network().state_dict(), "callbacks": Evil(witness)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    done = convert(path, tmp_path / "clean.safetensors")
    assert not witness.exists()
    assert done.left_out == [f"{os.name}.system"]
    assert_loads(tmp_path / "clean.safetensors")
    torch.load(path, weights_only=False)  # the file does what it says when it is trusted
    assert witness.exists()


def test_shared_and_strided_tensors_are_copied(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": base, "b": base.T, "c": base[0]}, tmp_path / "shared.pth")
    convert(tmp_path / "shared.pth", tmp_path / "clean.safetensors")
    from safetensors.torch import load_file

    state = load_file(tmp_path / "clean.safetensors")
    assert torch.equal(state["b"], base.T)
    assert torch.equal(state["c"], base[0])


def test_bad_input(tmp_path: Path) -> None:
    good, out = lightning(tmp_path), tmp_path / "out.safetensors"
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(good.read_bytes()[:200])
    torch.save({"epoch": 3}, tmp_path / "empty.ckpt")
    torch.save({}, tmp_path / "none.ckpt")
    out.write_bytes(b"kept")
    cases = [
        (tmp_path / "missing.ckpt", tmp_path / "new.safetensors", "does not exist"),
        (broken, tmp_path / "new.safetensors", "truncated or not a PyTorch file"),
        (tmp_path / "empty.ckpt", tmp_path / "new.safetensors", "'epoch' is int"),
        (tmp_path / "none.ckpt", tmp_path / "new.safetensors", "holds no tensors"),
        (good, out, "exists: give another name, or --overwrite"),
        (good, tmp_path / "out.pth", "ends with .safetensors"),
        (good, tmp_path / "nowhere" / "out.safetensors", "its folder does not exist"),
    ]
    for source, target, message in cases:
        with pytest.raises(CheckpointError, match=message):
            convert(source, target)
    assert out.read_bytes() == b"kept"
    assert not (tmp_path / "new.safetensors").exists()
    assert convert(good, out, overwrite=True).tensors == 7
