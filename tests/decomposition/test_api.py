"""``decompose``: inputs, outputs, variants, and what is refused."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from lmd_cli.decomposition import (
    ConservationError,
    Decomposition,
    InputError,
    LeakError,
    NoRuleError,
    Parts,
    decompose,
    register_rule,
    unregister_rule,
)
from lmd_cli.decomposition.maps import linear
from lmd_cli.decomposition.registry import function_name
from tests.support.rule_oracle import normal

C, R = normal(2, 3), normal(2, 3, seed=1)

Pair = namedtuple("Pair", ["near", "far"])


def both(output: Callable[[Tensor, Tensor], Any], **options: Any) -> Decomposition:
    return decompose(output, {"camera": C, "radar": R}, **options)


def test_tensor_output() -> None:
    result = both(lambda camera, radar: 2.0 * camera + radar + 0.5)
    assert torch.equal(result.total, 2.0 * C + R + 0.5)
    assert list(result.parts) == ["camera", "radar"]
    assert torch.equal(result.parts["camera"], 2.0 * C)
    assert torch.equal(result.parts["radar"], R)
    assert torch.equal(result.bias, torch.full_like(C, 0.5))
    assert result.residual < 1e-15
    assert all(type(t) is Tensor for t in (result.total, result.bias, *result.parts.values()))
    with pytest.raises(TypeError, match=r"\.parts\[name\]"):
        result[0]


def test_dict_output_is_mirrored_and_indexed() -> None:
    result = both(lambda camera, radar: {"a": camera + 1.0, "b": {"c": radar * 3.0}, "n": 7})
    assert list(result) == ["a", "b", "n"]
    assert result.total["n"] == 7
    assert result.total.keys() == result.bias.keys() == result.parts["radar"].keys()
    assert isinstance(result["b"], Parts)
    assert torch.equal(result["b"]["c"].parts["radar"], 3.0 * R)
    assert torch.equal(result["b"]["c"].parts["camera"], torch.zeros_like(C))
    assert torch.equal(result["a"].bias, torch.ones_like(C))
    assert result["a"].residual == result["b"].residual == 0.0


def test_list_and_tuple_outputs_are_mirrored_and_iterated() -> None:
    result = both(lambda camera, radar: [camera, (radar, camera - radar)])
    first, second = result
    assert torch.equal(first.parts["camera"], C)
    assert torch.equal(second[1].parts["radar"], -R)
    assert isinstance(result.total, list)
    assert isinstance(result.total[1], tuple)


def test_namedtuple_output() -> None:
    result = both(lambda camera, radar: Pair(camera, radar))
    assert isinstance(result.parts["camera"], Pair)
    assert torch.equal(result.parts["radar"].far, R)


def test_plain_output_of_a_function_is_bias() -> None:
    code = normal(4)
    result = both(lambda camera, radar: (camera + radar, code))
    assert torch.equal(result.bias[1], code)
    assert torch.equal(result.parts["camera"][1], torch.zeros(4, dtype=torch.float64))


def test_nested_inputs() -> None:
    inputs = {"camera": {"depth": [C, 2.0 * C], "colour": {"rgb": R}}, "radar": (R,)}
    extras = {"camera": [{"depth": [R, R], "colour": {"rgb": C}}]}

    def function(camera: Any, radar: Any) -> Tensor:
        return camera["depth"][0] + camera["depth"][1] + camera["colour"]["rgb"] - radar[0]

    result = decompose(function, inputs, extras=extras)
    torch.testing.assert_close(result.parts["camera"], 3.0 * C + R)
    torch.testing.assert_close(result.extras["camera"][0], 2.0 * R + C)
    assert result.extras["radar"] == []


def test_constants_belong_to_no_modality() -> None:
    scale, code = normal(3, seed=2), normal(2, 3, seed=3)
    result = decompose(
        lambda camera, scale, code: camera * scale + code["x"],
        {"camera": C},
        constants={"scale": scale, "code": {"x": code}},
    )
    torch.testing.assert_close(result.parts["camera"], C * scale)
    assert torch.equal(result.bias, code)


BAD_INPUTS: dict[str, tuple[Any, str]] = {
    "sparse": (C.to_sparse(), r"'camera': expected a dense tensor"),
    "on meta": (C.to("meta"), r"'camera': expected a dense tensor"),
    "integers": (C.long(), r"'camera': expected a floating-point tensor, got torch.int64"),
    "Booleans": (C > 0, "got torch.bool"),
    "complex": (torch.complex(C, C), "got torch.complex128"),
    "a nested integer": ({"a": [C, C.int()]}, r"'camera'\['a'\]\[1\].*torch.int32"),
    "a list of numbers": ([1.0, 2.0], r"'camera'\[0\].*got float"),
    "nothing": (None, "got NoneType"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_inputs_that_are_not_floating_tensors(name: str) -> None:
    value, message = BAD_INPUTS[name]
    with pytest.raises(InputError, match=message) as error:
        decompose(lambda camera: camera, {"camera": value})
    assert "constants=" in str(error.value)


BAD_EXTRAS: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"camera": [C[:1]]}, r"extra 0 of 'camera' is .*\(1, 3\),.* the input .*\(2, 3\)"),
    "second one": ({"camera": [C, C.T]}, r"extra 1 of 'camera' is a tensor of shape \(3, 2\)"),
    "structure": ({"radar": [{"x": R}]}, "extra 0 of 'radar' has another structure"),
    "modality": ({"lidar": [C]}, r"'lidar', which is not a modality \(known: camera, radar\)"),
    "type": ({"camera": [C.float()]}, "extra 0 of 'camera'.*torch.float32.*torch.float64"),
    "no tensor": ({"camera": [3.0]}, "extra 0 of 'camera'.*float"),
}


@pytest.mark.parametrize("name", BAD_EXTRAS)
def test_extras_that_do_not_match(name: str) -> None:
    extras, message = BAD_EXTRAS[name]
    with pytest.raises(InputError, match=message):
        both(lambda camera, radar: camera + radar, extras=extras)


def test_names_of_modalities() -> None:
    with pytest.raises(InputError, match="'bias' is the name of a part"):
        decompose(lambda bias: bias, {"bias": C})
    with pytest.raises(InputError, match="at least one modality"):
        decompose(lambda: C, {})


def test_a_function_that_forgets_its_inputs() -> None:
    with pytest.raises(LeakError, match="no output carries parts"):
        both(lambda camera, radar: C + R)


def test_uniform_counts_modalities_and_not_stacked_parts() -> None:
    norm = nn.BatchNorm1d(3).double().eval()
    norm.running_mean.fill_(2.0)
    constant = float(-2.0 / (1.0 + norm.eps) ** 0.5)
    names = ("camera", "radar", "lidar")
    for count in (1, 2, 3):
        inputs = {name: normal(2, 3, seed=i) for i, name in enumerate(names[:count])}
        extras = {"camera": [C, R, C + R]}

        def function(**streams: Tensor) -> Tensor:
            return norm(sum(list(streams.values())[1:], streams["camera"]))

        result = decompose(function, inputs, "uniform-ratio", extras=extras)
        share = torch.full_like(C, constant / (count + 1))
        torch.testing.assert_close(result.bias, share, rtol=1e-13, atol=0)
        scale = (1.0 + norm.eps) ** -0.5
        torch.testing.assert_close(result.extras["camera"][1], R * scale + share)


class Networks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3).double()

    def forward(self, camera: Tensor) -> Tensor:
        return self.inner(camera)

    def branch(self, camera: Tensor, scale: float = 1.0) -> Tensor:
        return self.inner(camera) * scale


NETWORK = Networks()

CALLABLES: dict[str, Callable[..., Tensor]] = {
    "module": NETWORK,
    "bound method": NETWORK.branch,
    "partial": functools.partial(NETWORK.branch, scale=2.0),
    "closure over the module": lambda camera, network=NETWORK: network(camera),
    "closure": (lambda network: lambda camera: network(camera))(NETWORK),
    "closure over a method": (lambda method: lambda camera: method(camera))(NETWORK.branch),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_names_are_relative_to_the_root(name: str) -> None:
    root = NETWORK if name == "closure over the module" else None  # a default is not a closure
    result = decompose(CALLABLES[name], {"camera": C}, audit=True, root=root)
    assert result.operations[0].module == "inner"


def test_modules_outside_the_root_are_named_by_their_class() -> None:
    result = decompose(
        lambda camera: NETWORK(camera) + nn.ReLU()(camera), {"camera": C}, audit=True
    )
    assert [record.module for record in result.operations] == ["<Linear>", "<ReLU>", ""]


def test_operation_records() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).double()
    result = decompose(
        (lambda net: lambda camera, radar: net(camera + radar))(network),
        {"camera": C, "radar": R},
        audit=True,
    )
    assert [record.order for record in result.operations] == [0, 1, 2]
    assert [record.kind for record in result.operations] == ["sum", "linear", "activation"]
    last = result.operations[-1]
    assert last.module == "1"
    assert last.operation == "torch.nn.functional.relu"
    assert "eq. 9" in last.equation
    assert last.total_norm == pytest.approx(float(result.total.norm()), rel=1e-14)
    norms = {**result.parts, "bias": result.bias}
    scale = sum(float(part.norm()) for part in norms.values())
    for name, part in norms.items():
        assert last.shares[name] == pytest.approx(float(part.norm()) / scale, rel=1e-14)
    assert sum(last.shares.values()) == pytest.approx(1.0)


def test_rules_are_registered_once_and_taken_back() -> None:
    with pytest.raises(ValueError, match="unknown kind 'magic'; one of structure, linear"):
        register_rule(torch.softmax, kind="magic")

    @register_rule(torch.lgamma, kind="constant")
    def rule(call: Any, **arguments: Any) -> Any:
        return call.plain(), None

    try:
        with pytest.raises(ValueError, match=r"torch\.lgamma has a rule already"):
            register_rule(torch.lgamma)(rule)
        result = both(lambda camera, radar: camera + torch.lgamma(radar))
        assert torch.equal(result.bias, torch.lgamma(R))
    finally:
        unregister_rule(torch.lgamma)
    unregister_rule(torch.lgamma)
    with pytest.raises(NoRuleError, match=r"no rule for torch\.lgamma"):
        both(lambda camera, radar: torch.lgamma(camera))


KEYWORDS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sigmoid": (torch.sigmoid, {}),
    "relu": (F.relu, {"inplace": False}),
    "threshold": (F.threshold, {"threshold": 0.1, "value": 0.0}),
    "clamp": (torch.clamp, {"max": 0.3}),
    "amax": (torch.amax, {"dim": 1}),
    "clone": (torch.clone, {}),
    "masked_fill": (torch.masked_fill, {"mask": C > 0, "value": 0.3}),
    "reshape": (torch.reshape, {"shape": (3, 2)}),
    "sum": (torch.sum, {"dim": 0}),
    "linear": (F.linear, {"weight": normal(4, 3)}),
    "layer_norm": (F.layer_norm, {"normalized_shape": (3,)}),
    "max_pool1d": (F.max_pool1d, {"kernel_size": 2}),
    "avg_pool1d": (F.avg_pool1d, {"kernel_size": 2}),
    "pad": (F.pad, {"pad": (1, 1), "value": 0.3}),
    "mul": (torch.mul, {"other": 2.0}),
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_the_input_may_be_named(name: str) -> None:
    function, arguments = KEYWORDS[name]
    result = both(lambda camera, radar: function(input=camera + radar, **arguments), audit=True)
    assert torch.equal(result.total, function(input=C + R, **arguments))
    assert result.residual < 1e-14


def doubled(x: Tensor) -> Tensor:
    """A user's function that takes part in torch's override protocol."""
    if has_torch_function((x,)):
        return handle_torch_function(doubled, (x,), x)
    return torch.from_numpy(2.0 * x.numpy())


def test_a_rule_for_a_users_own_function() -> None:
    with pytest.raises(NoRuleError, match=r"no rule for doubled.*@register_rule\(doubled\), or "):
        both(lambda camera, radar: doubled(camera + radar))

    @register_rule(doubled, kind="linear", equation="eq. 13")
    def rule(call: Any, x: Tensor) -> Any:
        return call.function(x), linear(lambda h: 2.0 * h)

    try:
        result = both(lambda camera, radar: doubled(camera + radar), audit=True)
        assert torch.equal(result.parts["radar"], 2.0 * R)
        assert result.operations[-1].operation == "doubled"
    finally:
        unregister_rule(doubled)


def test_names_of_what_torch_does_not_know() -> None:
    assert function_name(torch.relu) == "torch.relu"
    assert function_name(doubled) == "doubled"
    assert function_name([1]) == "[1]"


def test_parts_that_overflow_are_told_with_what_mends_it() -> None:
    def through(gated: Callable[[Tensor], Tensor]) -> Decomposition:
        return both(
            lambda camera, radar: functools.reduce(lambda x, _: gated(x), range(14), camera + radar)
        )

    with pytest.raises(ConservationError, match=r"not finite.*F\.silu"):
        through(lambda x: 3.0 * x * torch.sigmoid(x))
    assert through(lambda x: 3.0 * F.silu(x)).residual < 1e-12
