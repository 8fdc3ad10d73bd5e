"""The YAML of a network of one's own: its keys, its rules, and what of its output is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lmd_cli.assembly.build import build_network
from lmd_cli.assembly.forward import fuse_function
from lmd_cli.decomposition import decompose, module_rules
from lmd_cli.errors import ConfigError, ContractError
from lmd_cli.evaluation.decomposed_sample import shown
from lmd_cli.workflows.check import preflight
from lmd_cli.workflows.inspect import inspect_network
from tests.support.custom_module import CPU, MODULE, refused


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
    actual = {}
    for name, network in (("plain", plain), ("ruled", ruled)):
        fuse = fuse_function(network, "risk", {})
        actual[name] = decompose(fuse, features)
    same = decompose(fuse_function(plain, "risk", {}), features, "identity-ratio-sum")
    assert torch.equal(actual["ruled"].parts["a"], same.parts["a"])
    assert not torch.equal(actual["ruled"].parts["a"], actual["plain"].parts["a"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("[mixx]", "plain_modules: 'mixx' matches no module; near: mix"),
        ("['x.*']", "plain_modules: 'x.*' matches no module"),
    ],
)
def test_plain_modules_that_are_not_there(config: Any, names: str, said: str):
    refused(config(f"plain_modules={names}"), said, kind=ConfigError)


@pytest.mark.parametrize("names", ["[cut]", "['c*']", "[cut, (root)]"])
def test_plain_modules_of_the_config_hold_in_every_command(config: Any, tmp_path: Path, names: str):
    """Inspecting, checking and decomposing a network that detaches on purpose."""
    text = MODULE.replace("class Net", CUT + "class Net").replace(
        "self.mix = ", "self.cut = Cut()\n        self.mix = "
    )
    text = text.replace("total = torch.relu(", "total = self.cut(features['a']) + torch.relu(")
    text = text.replace("nn.Linear(width, 3)", "nn.Linear(width, 4)")
    (tmp_path / "cutting.py").write_text(text)
    leaking = config("model.target=cutting:Net")
    gaps = [row.register for row in inspect_network(leaking).gaps]
    assert gaps == ["plain_modules=['cut']"]
    assert not preflight(leaking).ok
    allowed = config("model.target=cutting:Net", f"plain_modules={names}")
    assert not inspect_network(allowed).gaps
    assert preflight(allowed).ok
    network = build_network(allowed, CPU).network
    features = {"a": torch.rand(1, 4), "b": torch.rand(1, 4)}
    result = decompose(fuse_function(network, "risk", {}), features)
    assert result.residual < 1e-6


CUT = """
class Cut(nn.Module):
    def forward(self, x):
        return x.detach()


"""


def test_every_gap_is_listed_with_what_would_fill_it(config: Any, tmp_path: Path):
    made = config("model.target=gappy:Net")
    text = MODULE.replace("torch.relu(self.mix", "torch.digamma(torch.lgamma(self.mix")
    text = text.replace('features["b"]))\n', 'features["b"])))\n')
    (tmp_path / "gappy.py").write_text(text)
    actual = inspect_network(made)
    filled = {row.operation: row.register for row in actual.gaps}
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


def test_the_check_sees_numbers_that_are_none_inside_the_network(config: Any, tmp_path: Path):
    """They are hidden by ``where`` before the output, and the parts with them."""
    made = config("model.target=hidden:Net")
    text = MODULE.replace(
        "total = torch.relu(", "hole = (-features['a'].square() - 1).log()\n        "
    )
    text = text.replace(
        'self.mix(features["a"] + features["b"]))',
        "total = self.mix(torch.where(hole.isnan(), features['a'] + features['b'], hole))",
    )
    (tmp_path / "hidden.py").write_text(text)
    failed = [check for check in preflight(made).checks if check.status == "FAIL"]
    assert "largest residual nan (torch.Tensor.log in (root))" in failed[0].detail
    assert preflight(config()).ok
