"""From a config to devices, weights and data roots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lmd_cli.assembly import build
from lmd_cli.config.loading import load_config
from lmd_cli.data.nuscenes.index.cache import open_index
from lmd_cli.errors import CheckpointError, ConfigError, DataError
from lmd_cli.runtime import compute
from lmd_cli.runtime.progress import Silent


def test_the_cpu_is_always_there():
    assert compute.resolve_device("cpu") == torch.device("cpu")


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert compute.resolve_device("auto") == torch.device("cuda", 0)
    assert compute.resolve_device("cuda") == torch.device("cuda", 0)
    assert compute.resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"cuda:2 is not there.*cpu, cuda:0, cuda:1"):
        compute.resolve_device("cuda:2")


def test_without_a_gpu_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"device cuda is not there.*there are: cpu$"):
        compute.resolve_device("cuda")


def test_random_weights_are_seeded_and_said_to_be_random(tiny_config: Path):
    first, again, other = (
        build.build_network(load_config(tiny_config, [f"seed={seed}"]), torch.device("cpu"))
        for seed in (0, 0, 1)
    )
    assert first.random
    assert first.sha256 is None
    assert first.checkpoint == "random weights (seed 0)"
    same, different = (n.network.decoder.first_conv.weight for n in (again, other))
    assert torch.equal(first.network.decoder.first_conv.weight, same)
    assert not torch.equal(same, different)
    assert not first.network.training


def test_a_checkpoint_is_loaded_and_its_hash_returned(tiny_config: Path, tmp_path: Path):
    config, cpu = load_config(tiny_config), torch.device("cpu")
    path = tmp_path / "weights.safetensors"
    original = build.build_network(config, cpu).network
    save_file(original.state_dict(), path)
    settings = [f"model.checkpoint={path}", "seed=5"]
    built = build.build_network(load_config(tiny_config, settings), cpu)
    assert not built.random
    assert len(built.sha256 or "") == 64
    assert built.checkpoint == str(path)
    for name, value in original.state_dict().items():
        assert torch.equal(built.network.state_dict()[name], value), name


def test_where_a_checkpoint_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, project, zoo = (tmp_path / name for name in ("here", "project", "zoo"))
    for folder in (here / "models", project / "configs", project / "models", zoo):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(build, "shipped", lambda kind: zoo)
    config, wanted = project / "configs" / "x.yaml", "models/a.safetensors"

    def actual() -> Path:
        return build.find_checkpoint(wanted, config).resolve()

    with pytest.raises(CheckpointError, match=r"models/a\.safetensors does not exist"):
        actual()
    order = [zoo, project / "models", project / "configs" / "models", here / "models"]
    for folder in order:
        folder.mkdir(exist_ok=True)
        (folder / "a.safetensors").write_bytes(b"")
        assert actual() == folder / "a.safetensors"
    (tmp_path / "b.pth").write_bytes(b"")
    assert build.find_checkpoint(str(tmp_path / "b.pth"), config) == tmp_path / "b.pth"


def test_a_missing_checkpoint_is_answered_with_the_models_there_are(tmp_path: Path, monkeypatch):
    (tmp_path / "demo_radar_cam.safetensors").write_bytes(b"")
    monkeypatch.setattr(build, "shipped", lambda kind: tmp_path)
    with pytest.raises(CheckpointError, match=r"did you mean demo_radar_cam\.safetensors\?"):
        build.find_checkpoint("demo_radar_kam.safetensors")
    os.mkfifo(tmp_path / "pipe.pth")  # told when it is opened, not as absent
    assert build.find_checkpoint(str(tmp_path / "pipe.pth")) == tmp_path / "pipe.pth"


def test_a_home_of_nobody_is_a_folder_that_is_not_there() -> None:
    root = build.data_root(
        load_config("demo", ["data.dataroot=~nobody-of-this-name/x"]).data, Silent()
    )
    with pytest.raises(DataError, match="data root ~nobody-of-this-name/x not found"):
        open_index(root, "v1.0-mini", "mini_val")
    with pytest.raises(ConfigError, match="config ~nobody-of-this-name/x not found"):
        load_config("~nobody-of-this-name/x")


def test_the_synthetic_root_is_made_for_the_split_with_progress(monkeypatch: pytest.MonkeyPatch):
    def made(split: str, samples: int, *, progress) -> Path:
        progress(1, 2)
        progress(2, 2)
        return Path(f"{split}-{samples}")

    steps: list[object] = []

    class Recorder(Silent):
        def start(self, total: int, description: str) -> None:
            steps.append(total)

        def advance(self, n: int = 1, note: str = "") -> None:
            steps.append(n)

        def close(self) -> None:
            steps.append("closed")

    monkeypatch.setattr(build, "cached_root", made)
    assert build.data_root(load_config("demo").data, Recorder()) == Path("mini_val-20")
    assert steps == [2, 1, 1, "closed"]


def test_the_synthetic_root_has_two_splits():
    with pytest.raises(ConfigError, match="'val': the synthetic root has the splits mini_val and"):
        build.data_root(load_config("demo", ["data.split=val"]).data, Silent())


class Recorder:
    """Writes down what is shown."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def start(self, total: int, description: str) -> None:
        self.calls.append((description, total))

    def advance(self, n: int = 1, note: str = "", waiting: float | None = None) -> None:
        self.calls.append(n)

    def close(self) -> None:
        self.calls.append("closed")


def test_tables_are_indexed_once_and_that_is_shown(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LMD_CACHE", str(tmp_path))
    first, again = Recorder(), Recorder()
    for shown in (first, again):
        assert len(build.build_dataset(load_config(tiny_config), shown)) == 6
    assert first.calls == [("indexing v1.0-mini mini_val, once", 3), 0, 1, 1, 1, "closed"]
    assert again.calls == ["closed"]
