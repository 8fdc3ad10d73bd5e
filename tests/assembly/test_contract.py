"""What networks and data sets of one's own give, and what is said if it cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lmd_cli.assembly.build import build_dataset
from lmd_cli.assembly.forward import encode_batch, fuse_function
from lmd_cli.config.loading import load_config
from lmd_cli.data import Sample, collate
from lmd_cli.decomposition import decompose
from lmd_cli.errors import ContractError, DataError
from tests.support.custom_module import refused


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


@pytest.mark.parametrize(("by", "said"), [(0.0, "NaN"), (-1.0, "infinite values")])
def test_an_output_that_is_not_finite_is_not_decomposed(by: float, said: str):
    network = network_with()
    network.fuse = lambda features: {"risk": features["a"] / (features["b"] * 0) + by / GOOD[0, 0]}
    features = {"a": GOOD if by else GOOD * 0, "b": GOOD}
    with pytest.raises(ContractError, match=f"output risk holds {said} for finite features"):
        decompose(fuse_function(network, "risk", {}), features)


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
