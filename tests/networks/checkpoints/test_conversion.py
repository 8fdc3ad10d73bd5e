"""Lightning checkpoints, and clean copies of files that the safe loader refuses."""

from __future__ import annotations

import argparse
import errno
import functools
import os
from collections.abc import Mapping
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lmd_cli.errors import CheckpointError
from lmd_cli.networks import load_checkpoint
from lmd_cli.networks.checkpoints.conversion import convert
from lmd_cli.networks.checkpoints.loading import file_sha256


def network(seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def lightning(folder: Path, *, zipped: bool = True, protocol: int = 2, **more: object) -> Path:
    """As Lightning writes its checkpoints: weights, counters, optimiser, callbacks by class."""
    module = network()
    optimiser = torch.optim.AdamW(module.parameters())
    state = {f"model.{name}": value for name, value in module.state_dict().items()}
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "1.6.0",
        "state_dict": state,
        "optimizer_states": [optimiser.state_dict()],
        **more,
    }
    path = folder / "crn.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def assert_loads(path: Path) -> None:
    target, expected = network(seed=4), network().state_dict()
    load_checkpoint(path, target)
    for name, value in target.state_dict().items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_lightning_file_without_objects_loads(tmp_path: Path, zipped: bool) -> None:
    assert_loads(lightning(tmp_path, zipped=zipped))


def test_names_behind_a_prefix_are_strict(tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in network().state_dict().items()}
    torch.save({"state_dict": state | {"model.loss": torch.ones(1)}}, tmp_path / "more.ckpt")
    with pytest.raises(CheckpointError, match=r"1 unexpected: loss\n"):
        load_checkpoint(tmp_path / "more.ckpt", network())
    del state["model.1.running_var"]
    torch.save({"state_dict": state}, tmp_path / "less.ckpt")
    with pytest.raises(CheckpointError, match=r"1 missing: 1\.running_var\n"):
        load_checkpoint(tmp_path / "less.ckpt", network())


HYPER_PARAMETERS = {
    "args": argparse.Namespace(gpus=4, scheduler=functools.partial(max, 1)),
    "lr": numpy.float64(2e-4),
    "mean": numpy.zeros(3, dtype=numpy.float32),
    "folder": Path("outputs"),
    "classes": {"car"},
}
TYPES = {"__builtin__.max", "argparse.Namespace", "functools.partial", "numpy.dtype"}


@pytest.mark.parametrize("zipped", [True, False])
def test_hyper_parameters_are_refused_then_left_out(tmp_path: Path, zipped: bool) -> None:
    callbacks = {nn.Identity: {"best_score": torch.ones(1)}}
    path = lightning(tmp_path, zipped=zipped, hyper_parameters=HYPER_PARAMETERS, calls=callbacks)
    named = r"it holds argparse\.Namespace, .* lmd convert \S*crn\.ckpt crn\.safetensors"
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(path, network())
    done = convert(path, tmp_path / "clean.safetensors")
    assert done.tensors == len(network().state_dict())
    assert set(done.left_out) > TYPES | {"torch.nn.modules.linear.Identity"}
    assert done.left_out == sorted(done.left_out)
    assert done.skipped == [
        "epoch",
        "pytorch-lightning_version",
        "optimizer_states",
        "hyper_parameters",
        "calls",
    ]
    assert done.source_sha256 == file_sha256(path)
    assert done.sha256 == file_sha256(tmp_path / "clean.safetensors")
    assert_loads(tmp_path / "clean.safetensors")


def test_a_newer_pickle_protocol_is_refused_then_read(tmp_path: Path) -> None:
    path = lightning(tmp_path, protocol=4, args=argparse.Namespace(lr=1))
    with pytest.raises(CheckpointError, match=r"was refused: .* lmd convert "):
        load_checkpoint(path, network())
    assert convert(path, tmp_path / "clean.safetensors").left_out == ["argparse.Namespace"]
    assert_loads(tmp_path / "clean.safetensors")


@pytest.mark.parametrize("key", ["model_state_dict", None])
def test_other_checkpoints(tmp_path: Path, key: str | None) -> None:
    state = network().state_dict()  # an OrderedDict with an attribute, _metadata
    torch.save({key: state, "args": argparse.Namespace()} if key else state, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "clean.safetensors")
    assert_loads(tmp_path / "clean.safetensors")


EVERY_TYPE = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


@pytest.mark.parametrize("zipped", [True, False])
def test_every_tensor_comes_back_exactly(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    state = {str(kind): (torch.arange(5) - 2).to(kind) for kind in EVERY_TYPE}
    state |= {
        "shared": base,
        "transposed": base.T,
        "row": base[1],
        "repeated": base[:1].expand(4, 3),
    }
    state |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(3), "sub": base[:, 1:]}
    state |= {"parameter": nn.Parameter(base * 2)}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert convert(tmp_path / "a.pth", tmp_path / "a.safetensors").tensors == len(state)
    written = load_file(tmp_path / "a.safetensors")
    assert written.keys() == state.keys()
    for name, value in state.items():
        assert written[name].dtype == value.dtype
        assert torch.equal(written[name], value)


def test_entries_that_are_no_dense_tensors_are_left_out(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.eye(2).to_sparse())
    state = {"w": torch.ones(2), "sparse": parameter, "more": argparse.Namespace(), 3: None}
    torch.save(state, tmp_path / "a.pth")
    done = convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert (done.tensors, done.skipped) == (1, ["sparse", "more", "3"])
    assert "torch._utils._rebuild_sparse_tensor" in done.left_out


def test_bad_input(tmp_path: Path) -> None:
    good, out, new = lightning(tmp_path), tmp_path / "out.safetensors", tmp_path / "new.safetensors"
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(good.read_bytes()[:200])
    contents = {
        "epoch": {"epoch": 3},
        "none": {},
        "list": [1],
        "complex": {"w": torch.ones(2) * 1j},
    }
    contents["complex"]["w"] = contents["complex"]["w"].to(torch.complex128)
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.ckpt")
    out.write_bytes(b"kept")
    cases = [
        (tmp_path / "missing.ckpt", new, "does not exist"),
        (tmp_path, new, "is a folder"),
        (Path("/dev/null"), new, "checkpoint /dev/null is no plain file: give a PyTorch file"),
        (broken, new, r"\(200 bytes\) cannot be read, it may be truncated"),
        (tmp_path / "epoch.ckpt", new, r"holds no tensors where .*entries there: epoch;"),
        (tmp_path / "none.ckpt", new, r"holds no tensors where .*entries there: none;"),
        (tmp_path / "list.ckpt", new, "holds no tensors where"),
        (tmp_path / "complex.ckpt", new, r"not built: torch\.ComplexDoubleStorage"),
        (out, new, "holds tensors only already"),
        (good, out, "exists: give another name, or --overwrite"),
        (good, tmp_path / "out.pth", "ends with .safetensors"),
        (good, tmp_path / "nowhere" / "out.safetensors", "its folder does not exist"),
    ]
    for source, target, message in cases:
        with pytest.raises(CheckpointError, match=message):
            convert(source, target)
    assert out.read_bytes() == b"kept"
    assert not new.exists()
    assert convert(good, out, overwrite=True).tensors == 7
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="is a folder"):
        convert(good, tmp_path / "folder.safetensors", overwrite=True)


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = lightning(tmp_path), tmp_path / "out.safetensors"
    out.write_bytes(b"kept")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        convert(path, out, overwrite=True)
    assert out.read_bytes() == b"kept"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["crn.ckpt", "out.safetensors"]


class Explaining(nn.Sequential):
    """A network that recognises others of its kind."""

    def explain_mismatch(self, state: Mapping[str, Tensor]) -> str | None:
        """Counts input channels."""
        if "0.weight" not in state:
            return None
        return f"the weights take {state['0.weight'].shape[1]} channels, the config says 2."


def test_a_networks_own_explanation_comes_first(tmp_path: Path) -> None:
    module = Explaining(nn.Conv2d(2, 3, 1))
    torch.save(nn.Sequential(nn.Conv2d(5, 3, 1)).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "wide.pth", module)
    first, second = str(caught.value).splitlines()[:2]
    assert first == "the weights take 5 channels, the config says 2."
    assert second.startswith(f"checkpoint {tmp_path / 'wide.pth'} belongs to another architecture")
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"^checkpoint .* belongs to another architecture"):
        load_checkpoint(tmp_path / "other.pth", module)
