"""Networks and data sets of one's own: what is taken, and what is said of everything else."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lmd_cli import targets
from lmd_cli.build import build_dataset, build_network
from lmd_cli.config import RunConfig
from lmd_cli.config_file import load_config
from lmd_cli.contract import encode_batch, fuse_function
from lmd_cli.data import Sample, collate
from lmd_cli.decomposition import decompose, module_rules
from lmd_cli.errors import ConfigError, ContractError, DataError
from lmd_cli.inspection import inspect_network
from lmd_cli.shown import shown

CPU = torch.device("cpu")
MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    modalities = ("a", "b")

    def __init__(self, width=4, features=None, outputs=None):
        super().__init__()
        self.mix = nn.Linear(width, 3)
        self.kept = nn.Parameter(torch.rand(2))
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.features, self.outputs = features, outputs

    def encode(self, batch):
        return self.features or {"b": batch["b"], "a": batch["a"]}

    def fuse(self, features):
        if self.outputs is not None:
            return self.outputs
        total = torch.relu(self.mix(features["a"] + features["b"]))
        return {"risk": total[:, self.order], "sum": total.sum(1, keepdim=True)}


class Data:
    def __init__(self, n=3, item=None):
        self.n, self.item = n, item

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if self.item == "raise":
            raise KeyError(f"no file {i}")
        if self.item is not None:
            return self.item
        return {"a": torch.full((4,), float(i + 1)), "b": torch.ones(4)}


class NoFuse(nn.Module):
    modalities = ("a", "b")

    def encode(self, batch):
        return batch


def fails(reason="never"):
    raise RuntimeError(reason)


def number():
    return 3


def other_names():
    net = Net()
    net.modalities = ("a", "c")
    return net


constant = 5
"""


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Makes a config beside a module ``mine`` with changed keys."""
    (tmp_path / "mine.py").write_text(MODULE)

    def make(*settings: str) -> RunConfig:
        path = tmp_path / "mine.yaml"
        path.write_text(
            "model: {target: 'mine:Net', modalities: [a, b], output: risk}\n"
            "data: {target: 'mine:Data'}\n"
        )
        return load_config(path, settings)

    return make


def run_once(config: RunConfig) -> None:
    network = build_network(config, CPU).network
    dataset = build_dataset(config)
    features, constants = encode_batch(network, collate([dataset[0]]), dataset.tokens[0])
    fuse_function(network, config.model.output, constants)(**features)


def refused(config: RunConfig, *phrases: str, kind: type[Exception] = ContractError) -> str:
    """The message of making everything and encoding the first sample."""
    with pytest.raises(kind) as caught:
        run_once(config)
    message = str(caught.value)
    for phrase in phrases:
        assert phrase in message
    return message


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


def test_installed_packages_register_names(config: Any, monkeypatch: pytest.MonkeyPatch):
    def entries(group: str) -> list[EntryPoint]:
        return [EntryPoint("mynet", "mine:Net", group)] if group == "lmd_cli.models" else []

    monkeypatch.setattr(targets, "entry_points", entries)
    assert type(build_network(config("model.target=mynet"), CPU).network).__name__ == "Net"
    refused(config("model.target=mynt"), "there are crn, mynet, simplebev; did you mean mynet?")


def test_ours_come_through_the_same_door():
    options = {"image_size": [64, 64], "grid": [8, 2, 8], "encoder": "res50"}
    model = {"target": "simplebev", "modalities": ["camera", "radar"], "output": "segmentation"}
    made = RunConfig.model_validate(
        {"model": {**model, "options": options}, "data": {"target": "mine:Data"}}
    )
    assert type(build_network(made, CPU).network).__name__ == "SimpleBEV"


# -- targets that cannot be used ------------------------------------------------------------


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
        ("model.target=mine:NoFuse", ["gave a NoFuse without fuse", "CONTRACT.md"]),
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


# -- what networks and data sets give -------------------------------------------------------


def network_with(**given: Any) -> Any:
    class Net(nn.Module):
        modalities = ("a", "b")

        def encode(self, batch: Any) -> Any:
            return given.get("features", {"a": torch.ones(1, 2), "b": torch.ones(1, 2)})

        def fuse(self, features: Any) -> Any:
            return given.get("outputs", {"risk": features["a"] + features["b"]})

    return Net()


GOOD = torch.ones(1, 2)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ([GOOD, GOOD], "Net.encode gave a list; expected a dict with a, b"),
        ({"a": GOOD}, "gave features of a; the modalities are a, b"),
        ({"a": GOOD, "b": GOOD, "c": GOOD}, "gave features of a, b, c; the modalities are a, b"),
        ({"a": GOOD, "b": 3}, "b at sample tok holds a int; expected tensors"),
        ({"a": GOOD, "b": []}, "b at sample tok has no tensors"),
        ({"a": GOOD.int(), "b": GOOD}, "a at sample tok holds a tensor of torch.int32; expected"),
        ({"a": GOOD, "b": [GOOD.to(torch.complex64)]}, "holds a tensor of torch.complex64"),
        ({"a": GOOD, "b": {"x": GOOD / 0}}, "b at sample tok holds infinite values"),
        ({"a": GOOD * float("nan"), "b": GOOD}, "a at sample tok holds NaN; expected finite"),
    ],
)
def test_features_that_cannot_be_used(features: Any, said: str):
    with pytest.raises(ContractError) as caught:
        encode_batch(network_with(features=features), {}, "tok")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (GOOD, "Net.fuse gave a Tensor; expected a dict of tensors by name"),
        (
            {"risks": GOOD, "x": GOOD},
            "output is 'risk'; Net.fuse gives risks, x; did you mean risks",
        ),
        ({"risk": 3.0}, "output risk is of float; expected a tensor"),
        (
            {"risk": GOOD.long()},
            "output risk is of torch.int64; expected a tensor of real floating",
        ),
        ({"risk": GOOD.to(torch.complex64)}, "output risk is of torch.complex64"),
    ],
)
def test_outputs_that_cannot_be_used(outputs: Any, said: str):
    with pytest.raises(ContractError) as caught:
        fuse_function(network_with(outputs=outputs), "risk", {})(a=GOOD, b=GOOD)
    assert said in str(caught.value)


def test_exceptions_of_the_networks_code_are_told_with_their_line():
    class Bad(nn.Module):
        modalities = ("a",)

        def encode(self, batch: Any) -> Any:
            return {"a": batch["mising"]}

        def fuse(self, features: Any) -> Any:
            return {"risk": features["a"] @ torch.ones(3, 5)}

    with pytest.raises(ContractError, match=r"Bad.encode at sample tok raised KeyError.*line \d+"):
        encode_batch(Bad(), {}, "tok")
    with pytest.raises(ContractError, match=r"Bad.fuse raised RuntimeError.*test_contract.py"):
        fuse_function(Bad(), "risk", {})(a=torch.ones(1, 2))


def test_constants_and_the_names_that_are_asked_for_reach_fuse():
    class Full(nn.Module):
        modalities = ("a",)
        asked: Any = None

        def encode(self, batch: Any) -> Any:
            return {"a": batch["a"]}

        def constants(self, batch: Any) -> Any:
            return {"shift": batch["shift"]}

        def fuse(self, features: Any, outputs: Any = (), shift: Any = None) -> Any:
            self.asked = outputs
            return {"risk": features["a"] + shift}

    network = Full()
    features, constants = encode_batch(network, {"a": GOOD, "shift": 2 * GOOD}, "0")
    assert torch.equal(fuse_function(network, "risk", constants)(**features), 3 * GOOD)
    assert network.asked == ["risk"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.options.item=7", "item 0 (0) is a int; expected a dict of tensors by name"),
        ("data.options.item={}", "item 0 (0) is empty"),
        ("data.options.item={a: 3}", "item 0 (0): 'a' is a int; expected a tensor"),
    ],
)
def test_items_that_cannot_be_used(config: Any, setting: str, said: str):
    refused(config(setting), "data.target 'mine:Data'", said)


def test_an_item_that_cannot_be_read_is_data_that_an_evaluation_may_skip(config: Any):
    made = config("data.options.item=raise")
    refused(made, "item 0 (0) raised KeyError: 'no file 0'", "mine.py, line", kind=DataError)


def test_data_sets_may_name_and_collate_their_items(tmp_path: Path):
    (tmp_path / "named.py").write_text(
        "import torch\n"
        "class Data(list):\n"
        "    tokens = ['x', 'y']\n"
        "    def collate(self, items):\n"
        "        return {'points': [i['points'] for i in items], 'kind': 'cloud'}\n"
        "def make(tokens=('x', 'y')):\n"
        "    found = Data([{'points': torch.ones(n, 3)} for n in (1, 2)])\n"
        "    found.tokens = list(tokens)\n"
        "    return found\n"
    )
    path = tmp_path / "named.yaml"
    path.write_text(
        "model: {target: 'm:n', modalities: [a], output: o}\ndata: {target: 'named:make'}\n"
    )
    dataset = build_dataset(load_config(path))
    assert dataset.index_of("y") == 1
    batch = collate([dataset[1]])
    assert batch["kind"] == "cloud"
    assert [tuple(p.shape) for p in batch["points"]] == [(2, 3)]
    with pytest.raises(ContractError, match="sample z is not in"):
        dataset.index_of("z")
    for tokens, said in (("[x]", "tokens must be 2 strings"), ("[x, x]", "'x' is there twice")):
        with pytest.raises(ContractError, match=said):
            build_dataset(load_config(path, [f"data.options.tokens={tokens}"]))


def test_samples_that_are_batches_are_not_joined():
    sample = Sample("x", "", {"a": GOOD}, batched=True)
    assert torch.equal(collate([sample])["a"], GOOD)
    with pytest.raises(ValueError, match="cannot be joined"):
        collate([sample, sample])


# -- configs, rules, pictures ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.modalities=[a, a]", "a is listed twice"),
        ("model.modalities=[a, bias]", "'bias' cannot be a modality's name"),
        ("model.modalities=[]", "model.modalities is []: expected a list of different names"),
        ("model.channel=-1", "model.channel is -1: expected an integer from 0"),
        ("model.optons.x=1", "unknown key model.optons; did you mean model.options?"),
        ("data.options=3", "data.options is 3: expected a mapping of names to values"),
        ("data.split=val", "unknown key data.split"),
        ("rules.x=3", "rules is {'x': 3}: expected a mapping of patterns"),
    ],
)
def test_configs_that_cannot_be_used(config: Any, setting: str, said: str):
    with pytest.raises(ConfigError) as caught:
        config(setting)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("{mixx: {activation: taylor}}", "rules: 'mixx' matches no module; near: mix"),
        ("{mix: {activaton: taylor}}", "rules: 'mix' sets 'activaton'; there are batch_norm"),
        ("{mix: {activation: tylor}}", "activation must be one of"),
    ],
)
def test_rules_for_no_module(config: Any, rules: str, said: str):
    refused(config(f"rules={rules}"), said, kind=ConfigError)


def test_rules_of_the_config_hold_whenever_the_network_is_decomposed(config: Any):
    """The pattern '' is the root, where relu is called."""
    plain, ruled = (
        build_network(config(*rules), CPU).network
        for rules in ((), ("rules={'': {activation: sum}}",))
    )
    assert module_rules(ruled) == {"": {"activation": "sum"}}
    features = {"a": torch.rand(1, 4), "b": torch.rand(1, 4)}
    with torch.no_grad():
        for network in (plain, ruled):
            network.mix.weight.fill_(0.5)
            network.mix.weight[:, 2:] = -0.1
            network.mix.bias.fill_(1.0)
            features["a"], features["b"] = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])[:, None]
    found = {}
    for name, network in (("plain", plain), ("ruled", ruled)):
        fuse = fuse_function(network, "risk", {})
        found[name] = decompose(fuse, features)
    same = decompose(fuse_function(plain, "risk", {}), features, "identity-ratio-sum")
    assert torch.equal(found["ruled"].parts["a"], same.parts["a"])
    assert not torch.equal(found["ruled"].parts["a"], found["plain"].parts["a"])


def test_every_gap_is_listed_with_what_would_fill_it(config: Any, tmp_path: Path):
    made = config("model.target=gappy:Net")
    text = MODULE.replace("torch.relu(self.mix", "torch.digamma(torch.lgamma(self.mix")
    text = text.replace('features["b"]))\n', 'features["b"])))\n')
    (tmp_path / "gappy.py").write_text(text)
    found = inspect_network(made)
    filled = {row.operation: row.register for row in found.gaps}
    assert filled == {f"torch.{n}": f"@register_rule(torch.{n})" for n in ("lgamma", "digamma")}
    assert not inspect_network(config()).gaps


@pytest.mark.parametrize(
    ("shape", "channel", "picked"),
    [
        ((1,), 0, (1,)),
        ((1, 5), 3, (5,)),
        ((1, 5, 4), 3, (5,)),
        ((1, 2, 3, 4), 1, (3, 4)),
        ((1, 2, 6, 3, 4), 1, (3, 4)),
    ],
)
def test_what_of_an_output_is_shown(shape: tuple[int, ...], channel: int, picked: Any):
    output = torch.rand(shape)
    assert tuple(shown(output, channel, "o").shape) == picked
    if len(shape) == 5:
        assert torch.equal(shown(output, channel, "o"), output[0, channel, 3])


@pytest.mark.parametrize("shape", [(2, 3), (), (1, 2, 3, 4, 5, 6)])
def test_outputs_of_other_shapes_are_not_shown(shape: tuple[int, ...]):
    with pytest.raises(ContractError, match=r"output o has the shape"):
        shown(torch.zeros(shape), 0, "o")


def test_a_channel_that_is_not_there():
    with pytest.raises(ContractError, match=r"model.channel is 2; .* the channels 0 to 1"):
        shown(torch.zeros(1, 2, 3, 4), 2, "o")
