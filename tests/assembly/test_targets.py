"""Networks and data sets of one's own: which targets are taken, and what is said of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import encode_batch, fuse_function
from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import collate
from lmd_cli.decomposition import decompose
from lmd_cli.errors import ConfigError
from tests.support.custom_module import CPU, MODULE, refused


def test_a_network_and_data_beside_the_config_work(config: Any):
    made = config("model.options.width=4")
    network, dataset = build_network(made, CPU).network, build_dataset(made)
    features, constants = encode_batch(network, collate([dataset[2]]), "2")
    assert list(features) == ["a", "b"]  # in the order of the modalities
    assert constants == {}
    fuse = fuse_function(network, "risk", constants)
    result = decompose(fuse, features)
    assert torch.allclose(result.parts["a"] + result.parts["b"] + result.bias, fuse(**features))
    assert dataset.tokens == ["0", "1", "2"]
    assert not network.training


def test_weights_are_the_targets_own_and_the_same_every_time(config: Any):
    first, again, other = (build_network(config(f"seed={n}"), CPU) for n in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256
    assert not first.random
    assert first.checkpoint == "the weights that the target gives"


def test_random_weights_leave_index_buffers_alone(config: Any):
    built = build_network(config("model.checkpoint=random"), CPU)
    assert built.random
    assert built.network.order.tolist() == [2, 0, 1]
    own = build_network(config(), CPU).network
    assert not torch.equal(built.network.mix.weight, own.mix.weight)


def test_a_checkpoint_is_loaded(config: Any, tmp_path: Path):
    original = build_network(config("seed=9"), CPU).network
    torch.save(original.state_dict(), tmp_path / "own.pth")
    built = build_network(config("model.checkpoint=own.pth"), CPU)  # beside the config
    assert torch.equal(built.network.mix.weight, original.mix.weight)


def test_two_configs_have_a_module_of_the_same_name(config: Any, tmp_path: Path):
    config()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.py").write_text(MODULE.replace("n=3", "n=5"))
    (elsewhere / "mine.yaml").write_text((tmp_path / "mine.yaml").read_text())
    lengths = [len(build_dataset(load_config(f / "mine.yaml"))) for f in (tmp_path, elsewhere)]
    assert lengths == [3, 5]


def test_installed_packages_register_names(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    installed = tmp_path / "site" / "mynet-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mynet\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[lmd_cli.models]\nmynet = mine:Net\n[lmd_cli.data]\nmydata = mine:Data\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    made = config("model.target=mynet", "data.target=mydata", "data.options.n=2")
    assert type(build_network(made, CPU).network).__name__ == "Net"
    assert len(build_dataset(made)) == 2
    refused(config("model.target=mynt"), "there are crn, mynet, simplebev; did you mean mynet?")
    refused(config("data.target=mydat"), "there are mydata, nuscenes; did you mean mydata?")


def test_built_in_targets_are_resolved_alike():
    options = {"image_size": [64, 64], "grid": [8, 2, 8], "encoder": "res50"}
    model = {"target": "simplebev", "modalities": ["camera", "radar"], "output": "segmentation"}
    made = RunConfig.model_validate(
        {"model": {**model, "options": options}, "data": {"target": "mine:Data"}}
    )
    assert type(build_network(made, CPU).network).__name__ == "SimpleBEV"


@pytest.mark.parametrize(
    ("setting", "phrases"),
    [
        (
            "model.target=nowhere:Net",
            ["model.target 'nowhere:Net'", "there is no module 'nowhere'"],
        ),
        ("data.target=mine.deep:Net", ["data.target", "there is no module 'mine.deep'"]),
        ("model.target=mine:Nett", ["mine", "has no 'Nett'; did you mean 'Net'?"]),
        ("model.target=mine:constant", ["is of type int; expected a function or a class"]),
        ("model.target='my net:x'", ["'my net' is no module's name"]),
        ("model.target=mine", ["is not registered", "'package.module:name'"]),
        (
            "model.target=mine:fails",
            ["raised RuntimeError: never", "mine.py, line", "with the options {}"],
        ),
        ("model.options.depth=3", ["raised TypeError", "depth"]),
        ("model.target=mine:number", ["gave a int; expected a torch.nn.Module"]),
        ("model.target=mine:NoFuse", ["gave a NoFuse without fuse", "docs/extending.md"]),
        ("model.target=mine:other_names", ["model.modalities is [a, b]", "modalities is [a, c]"]),
        ("data.target=mine:number", ["gave a int without __len__"]),
        ("data.options.n=0", ["gave an empty data set"]),
    ],
)
def test_targets_that_cannot_be_used(config: Any, setting: str, phrases: list[str]):
    refused(config(setting), *phrases)


def test_a_module_that_fails_to_import(config: Any, tmp_path: Path):
    made = config("model.target=broken:Net")
    (tmp_path / "broken.py").write_text("x = 1\nimport nothing_of_this_name\n")
    message = refused(made, "importing broken raised ModuleNotFoundError", "broken.py, line 2")
    assert "there is no module 'broken'" not in message
    (tmp_path / "torn.py").write_text("x = 1\ny = (\n")
    refused(config("model.target=torn:Net"), "importing torn raised SyntaxError", "torn.py, line 2")


def test_dataroot_is_for_networks_of_ours(config: Any):
    made = config()
    nuscenes = {"dataroot": "/nowhere", "version": "v1.0-mini", "split": "mini_val"}
    mixed = RunConfig.model_validate(made.model_dump(mode="json") | {"data": nuscenes})
    with pytest.raises(ConfigError, match=r"with model.target give data: \{target: nuscenes"):
        build_dataset(mixed)
