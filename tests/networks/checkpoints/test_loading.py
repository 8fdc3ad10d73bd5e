"""Loading weights: what fits is loaded, whatever else is refused and changes nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lmd_cli.errors import CheckpointError
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV, load_checkpoint, random_weights
from tests.support.tiny_settings import simplebev_sizes

WIDTHS = simplebev_sizes(stem=2)


def network(seed: int, latent: int = 4) -> SimpleBEV:
    """A tiny SimpleBEV with seeded weights."""
    widths = replace(WIDTHS, latent=latent)
    module = SimpleBEV(grid=Grid((16, 2, 16)), encoder="res50", widths=widths)
    random_weights(module, seed)
    return module


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules hold the same state."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def save_published(path: Path) -> None:
    """As SimpleBEV's training writes its checkpoints: with the optimiser's state."""
    module = network(1)
    optimiser = torch.optim.AdamW(module.parameters())
    sum(p.sum() for p in module.parameters()).backward()
    optimiser.step()
    module.load_state_dict(network(1).state_dict())
    states = {"optimizer_state_dict": optimiser.state_dict()}
    torch.save(states | {"model_state_dict": module.state_dict()}, path)


SAVERS: dict[str, Callable[[Path], None]] = {
    "model-000025000.pth": save_published,
    "state.pth": lambda path: torch.save(network(1).state_dict(), path),
    "demo.safetensors": lambda path: save_file(network(1).state_dict(), path),
}


@pytest.mark.parametrize("name", SAVERS)
def test_weights_come_back_exactly_with_the_files_hash(name: str, tmp_path: Path) -> None:
    path, module = tmp_path / name, network(2)
    SAVERS[name](path)
    assert not same(module, network(1))
    digest = load_checkpoint(path, module)
    assert same(module, network(1))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(path: Path) -> str:
    """The message of loading ``path``, after checking that the weights stayed as they were."""
    module = network(2)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(path), module)
    assert same(module, network(2))
    message = str(caught.value)
    assert str(path) in message
    assert "weights_only" not in message
    return message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent.pth")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file(name: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / name
    SAVERS[name](path)
    whole = path.read_bytes()
    cut = whole[: int(len(whole) * keep)] if keep == 0.5 else whole[: int(keep)]
    path.write_bytes(cut)
    message = refusal(path)
    assert f"({len(cut)} bytes) cannot be read, it may be truncated" in message


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><p>404", b"\0" * 4096, bytes(range(256)) * 8])
def test_a_file_of_another_format(content: bytes, tmp_path: Path) -> None:
    for name in ("page.pth", "page.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert "in another format" in refusal(tmp_path / name)


class Payload:
    """Runs a command when unpickled by a careless reader."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_code_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    state = {"model_state_dict": network(1).state_dict(), "extra": Payload(marker)}
    torch.save(state, path)
    assert f"was refused: it holds {os.name}.mkdir, and only tensors are loaded" in refusal(path)
    assert not marker.exists()


def test_a_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(network(1), tmp_path / "module.pth")
    assert "it holds lmd_cli.networks.simplebev.network.SimpleBEV" in refusal(
        tmp_path / "module.pth"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds list, not a state dict"),
        ({"model_state_dict": 3}, "holds int, not a state dict"),
        ({"epoch": 3}, "'epoch' is int, not a dense tensor"),
        ({"ce_weight": torch.zeros(2).to_sparse()}, "'ce_weight' is Tensor, not a dense tensor"),
    ],
)
def test_tensors_that_are_not_a_state_dict(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    assert message in refusal(tmp_path / "odd.pth")


def test_another_architecture_is_counted_and_named(tmp_path: Path) -> None:
    state = network(1).state_dict()
    removed = [name for name in state if name.startswith("decoder.feat_head")]
    for name in removed:
        del state[name]
    state |= {f"extra.{i}": torch.zeros(1) for i in range(7)}
    state["bev_compressor.0.weight"] = torch.zeros(4, 9, 3, 3)
    torch.save(state, tmp_path / "other.pth")
    message = refusal(tmp_path / "other.pth")
    assert f"3 missing: {', '.join(removed)}\n" in message
    assert "7 unexpected: extra.0, extra.1, extra.2, extra.3, extra.4, and 2 more\n" in message
    assert "1 misshapen: bev_compressor.0.weight (4, 9, 3, 3) instead of (4, 40, 3, 3)" in message


def test_the_same_keys_with_other_widths(tmp_path: Path) -> None:
    save_file(network(1, latent=6).state_dict(), tmp_path / "wide.safetensors")
    message = refusal(tmp_path / "wide.safetensors")
    assert "0 missing\n" in message
    assert "0 unexpected\n" in message
    assert "encoder.depth_layer.weight (6, 4, 1, 1) instead of (4, 4, 1, 1)" in message


def test_random_weights_follow_the_seed_alone() -> None:
    first = network(5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    second = network(5)
    again = SimpleBEV(grid=Grid((16, 2, 16)), encoder="res50", widths=WIDTHS)
    before = torch.get_rng_state()
    random_weights(again, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(state, before)  # building the network did draw from it
    assert same(first, second)
    assert same(first, again)
    assert not same(first, network(6))


def test_random_weights_keep_a_deep_network_in_range() -> None:
    module = SimpleBEV(grid=Grid((16, 2, 16)), encoder="res101")
    random_weights(module)
    images = torch.rand(1, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        features = module.eval().image_features(images)
    assert 0.1 < features.std() < 10
    assert features.std(dim=(1, 3, 4)).min() > 1e-3
