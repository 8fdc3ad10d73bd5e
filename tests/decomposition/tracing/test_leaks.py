"""Whatever would drop parts silently is an error that names the function and the module."""

from __future__ import annotations

import copy
import ctypes
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import (
    Decomposition,
    InputError,
    LeakError,
    NoRuleError,
    decompose,
)
from tests.support.rule_oracle import normal

SHAPE = (2, 4, 3, 3)

INPUTS = {"camera": normal(*SHAPE), "radar": normal(*SHAPE, seed=1)}


class Calls(nn.Module):
    """Calls a function on the input, in a module that errors can name."""

    def __init__(self, function: Callable[[Tensor], Any]):
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Any:
        return self._function(x)


class Network(nn.Module):
    """Fuses, then runs the suspect as ``neck.suspect``, then adds something decomposed."""

    def __init__(self, suspect: nn.Module):
        super().__init__()
        self.neck = nn.ModuleDict({"suspect": suspect})

    def forward(self, camera: Tensor, radar: Tensor) -> Any:
        x = camera + radar
        out = self.neck["suspect"](x)
        return x + out if isinstance(out, Tensor) and out.shape == x.shape else (x, out)


def run(function: Callable[[Tensor], Any], **options: Any) -> Decomposition:
    suspect = function if isinstance(function, nn.Module) else Calls(function)
    return decompose(Network(suspect), INPUTS, **options)


INDEX = torch.tensor([1, 0])


@torch.jit.script
def scripted_relu(x: Tensor) -> Tensor:
    return torch.relu(x) * 2.0


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    return torch.sigmoid(x * weight) * x


class Scriptable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


class Doubled(torch.autograd.Function):
    """Written in torch: its operators are followed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.relu(x) * 2.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2.0


class Elsewhere(Doubled):
    """Not written in torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(2.0 * x.detach().numpy())


class Handed(Doubled):
    """Hands its values to numpy without asking for a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(2.0 * x.numpy())


def assert_same_as(result: Decomposition, function: Callable[[Tensor], Tensor]) -> None:
    """The parts of the same function written with torch's own calls."""
    wanted = run(function)
    tolerance = {"rtol": 1e-14, "atol": 1e-14}
    torch.testing.assert_close(result.total, wanted.total, **tolerance)
    for name in INPUTS:
        torch.testing.assert_close(result.parts[name], wanted.parts[name], **tolerance)
    torch.testing.assert_close(result.bias, wanted.bias, **tolerance)


def test_scripted_function() -> None:
    for _ in range(4):  # torch optimises what it has seen a few times
        scripted_relu(INPUTS["camera"])
    assert_same_as(run(scripted_relu), lambda x: torch.relu(x) * 2.0)


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, normal(*SHAPE))])
def test_scripted_module(make: Callable[[nn.Module], nn.Module]) -> None:
    assert_same_as(run(make(Scriptable())), torch.relu)


def test_scripted_code_that_is_compiled_for_gradients_is_an_error() -> None:
    """It detaches what it is given, so all that it makes would be bias."""
    scripted, weight = torch.jit.script(weighted), torch.ones(1, requires_grad=True)
    run(lambda x: x + scripted(x, weight))
    for _ in range(3):
        scripted(INPUTS["camera"], weight)
    with pytest.raises(LeakError, match=r"neck.suspect.*scripted code"):
        run(lambda x: x + scripted(x, weight))


def test_custom_autograd_function() -> None:
    assert_same_as(run(Doubled.apply), lambda x: torch.relu(x) * 2.0)


@pytest.mark.parametrize("function", [Elsewhere, Handed])
def test_custom_autograd_function_that_is_not_written_in_torch(function: Any) -> None:
    with pytest.raises(NoRuleError, match=f"custom autograd function {function.__name__}") as error:
        run(function.apply)
    assert "neck.suspect" in str(error.value)
    assert f"@register_rule({function.__name__})" in str(error.value)


LEAVES_TORCH: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: torch.from_numpy(x.numpy() * 2),
    "asarray": lambda x: torch.from_numpy(np.asarray(x)),
    "array": lambda x: torch.from_numpy(np.array(x)),
    "tolist": lambda x: torch.tensor(x.tolist()),
    "torch.tensor": lambda x: torch.tensor(x),
    "torch.tensor of a list": lambda x: torch.tensor([x[0, 0, 0, 0], x[0, 0, 0, 1]]),
    "as_tensor of a list": lambda x: torch.as_tensor([x[0, 0, 0, 0], x[0, 0, 0, 1]]),
    "new_tensor": lambda x: x.new_tensor([x[0, 0, 0, 0]]),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "dlpack": lambda x: torch.from_dlpack(x),
    "data_ptr": lambda x: int(x.data_ptr()),
    "data_ptr for a kernel": lambda x: ctypes.string_at(operator.index(x.data_ptr()), 8),
    "storage": lambda x: torch.tensor(x.untyped_storage()),
}


@pytest.mark.parametrize("name", LEAVES_TORCH)
def test_values_that_leave_torch(name: str) -> None:
    with pytest.raises(LeakError, match="drop the parts") as error:
        run(LEAVES_TORCH[name])
    assert "'neck.suspect' (Calls)" in str(error.value)
    assert ".detach()" in str(error.value)


def test_as_tensor_of_a_tensor_is_that_tensor() -> None:
    assert_same_as(run(lambda x: torch.as_tensor(x) * 2.0), lambda x: x * 2.0)
    assert_same_as(run(lambda x: torch.as_tensor(data=x) * 2.0), lambda x: x * 2.0)


def test_addresses_may_be_compared() -> None:
    """Some attention layers tell by it whether query, key and value are the same tensor."""

    def function(x: Tensor) -> Tensor:
        same = x.data_ptr() == x.view(-1).data_ptr() and x.data_ptr() % 8 == 0
        other = x.data_ptr() == (x + 1.0).data_ptr()
        assert len({x.data_ptr(), x.flatten().data_ptr()}) == 1
        return x * 2.0 if same and not other else x * 3.0

    assert_same_as(run(function), lambda x: x * 2.0)


FILLED: dict[str, Callable[[Tensor], Tensor]] = {
    "full_like": lambda x: torch.full_like(x, x.mean()),
    "new_full": lambda x: x.new_full(x.shape, x.mean()),
    "new_tensor": lambda x: torch.zeros(1).new_tensor(x),
    "full": lambda x: torch.full((2, 4, 3, 3), x.mean()),
    "add": lambda x: torch.add(x, x, alpha=x.mean()),
}


@pytest.mark.parametrize("name", FILLED)
def test_new_tensors_filled_with_decomposed_values(name: str) -> None:
    with pytest.raises(LeakError, match=f"{name}.*'neck.suspect'"):
        run(FILLED[name])


def test_module_that_detaches_inside() -> None:
    with pytest.raises(LeakError) as error:
        run(lambda x: x.detach() * 2.0)
    message = str(error.value)
    assert "module 'neck.suspect' (Calls)" in message
    assert "its output depends on the features" in message
    assert "register a rule" in message
    assert "plain_modules" in message


def test_module_that_is_given_detached_values_beside_others() -> None:
    class Second(nn.Module):
        def forward(self, x: Tensor, detached: Tensor) -> Tensor:
            return detached.exp()

    second = Second()
    network = nn.ModuleDict({"second": second})
    with pytest.raises(LeakError) as error:
        decompose(
            lambda camera, radar: camera + second(camera, radar.detach()), INPUTS, root=network
        )
    assert "'second' (Second) took values that depend on the features but carry no parts" in str(
        error.value
    )
    assert "dropped before it or inside" in str(error.value)


def test_module_that_is_given_only_detached_values_is_no_leak() -> None:
    network = nn.ModuleDict({"exp": Calls(torch.exp)})
    result = decompose(
        lambda camera, radar: camera + network["exp"](radar.detach()), INPUTS, root=network
    )
    assert torch.equal(result.bias, INPUTS["radar"].exp())


def test_module_that_drops_the_parts_of_one_output() -> None:
    with pytest.raises(LeakError, match=r"neck\.suspect.*its output \[1\] depends on the features"):
        run(lambda x: (x * 2.0, x.detach().exp()))


def test_a_constant_beside_the_result_is_no_leak() -> None:
    weight = normal(*SHAPE, seed=4)
    result = run(lambda x: (x * 2.0, weight.softmax(-1)))
    assert torch.equal(result.bias[1][1], weight.softmax(-1))


def test_plain_modules_may_return_plain_tensors() -> None:
    result = run(lambda x: x.detach() * 2.0, plain_modules=["neck.suspect"])
    torch.testing.assert_close(result.bias, 2.0 * (INPUTS["camera"] + INPUTS["radar"]))
    assert torch.equal(result.parts["camera"], INPUTS["camera"])


@pytest.mark.parametrize("name", ["neck.*", "*", "neck.suspect", "<Network>"])
def test_plain_modules_by_pattern(name: str) -> None:
    if name == "<Network>":
        with pytest.raises(LeakError, match=r"neck\.suspect"):
            run(lambda x: x.detach() * 2.0, plain_modules=[name])
    else:
        assert run(lambda x: x.detach() * 2.0, plain_modules=[name]).residual < 1e-15


def test_the_root_may_be_plain() -> None:
    class Scored(nn.Module):
        def forward(self, camera: Tensor) -> Any:
            return {"x": camera * 2.0, "score": camera.detach().exp()}

    inputs = {"camera": INPUTS["camera"]}
    with pytest.raises(LeakError, match=r"'\(root\)' \(Scored\).*\['score'\] depends on the feat"):
        decompose(Scored(), inputs)
    for name in ("(root)", ""):
        result = decompose(Scored(), inputs, plain_modules=[name])
        assert torch.equal(result.bias["score"], INPUTS["camera"].exp())


@pytest.mark.parametrize(
    ("name", "said"),
    [("neck.suspct", "near: neck.suspect"), ("none", "matches no module$"), ("x.*", "no module$")],
)
def test_unknown_plain_modules(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"plain_modules: '.*' matches no module.*{said}|{said}"):
        run(torch.relu, plain_modules=[name])


def test_plain_modules_need_a_root() -> None:
    with pytest.raises(InputError, match="give root="):
        decompose(lambda camera: camera, {"camera": INPUTS["camera"]}, plain_modules=["neck"])


def test_modules_may_pass_plain_inputs_parameters_and_integers_on() -> None:
    code, weight = normal(*SHAPE, seed=5), nn.Parameter(normal(3))

    class Passes(nn.Module):
        def forward(self, x: Tensor, code: Tensor) -> Any:
            return x + code, code, weight, x.argmax(1)

    module = Passes()
    result = decompose(lambda camera: module(camera, code), {"camera": INPUTS["camera"]})
    assert torch.equal(result.total[1], code)
    assert torch.equal(result.bias[1], code)


def test_function_whose_output_carries_no_parts() -> None:
    with pytest.raises(LeakError, match="no output carries parts"):
        decompose(lambda camera: torch.zeros_like(camera), {"camera": INPUTS["camera"]})


WEIGHT = normal(4, 3, seed=9)
