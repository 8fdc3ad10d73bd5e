"""Whatever would drop parts silently is an error that names the function and the module."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rule_oracle import normal
from torch import Tensor, nn

from lmd_cli.decomposition import (
    DecomposedTensor,
    Decomposition,
    DecompositionError,
    LeakError,
    NoRuleError,
    decompose,
)

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


def into_canvas(write: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        canvas = torch.zeros_like(x)
        write(canvas, x)
        return canvas

    return function


INDEX = torch.tensor([1, 0])
WRITES: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "setitem": (lambda c, x: c.__setitem__(0, x[0]), "__setitem__"),
    "setitem by mask": (lambda c, x: c.__setitem__(c == 0, x.flatten()), "__setitem__"),
    "copy_": (lambda c, x: c.copy_(x), "copy_"),
    "add_": (lambda c, x: c.add_(x), "add_"),
    "+=": (lambda c, x: c.__iadd__(x), "add_"),
    "mul_": (lambda c, x: c.mul_(x), "mul_"),
    "index_add_": (lambda c, x: c.index_add_(0, INDEX, x), "index_add_"),
    "index_copy_": (lambda c, x: c.index_copy_(0, INDEX, x), "index_copy_"),
    "scatter_": (lambda c, x: c.scatter_(0, torch.zeros_like(x).long(), x), "scatter_"),
    "masked_scatter_": (lambda c, x: c.masked_scatter_(c == 0, x), "masked_scatter_"),
    "fill_": (lambda c, x: c.fill_(x.mean()), "fill_"),
    "masked_fill_": (lambda c, x: c.masked_fill_(c == 0, x.mean()), "masked_fill_"),
    "out= of add": (lambda c, x: torch.add(x, x, out=c), "torch.add"),
    "out= of cat": (lambda c, x: torch.cat([x[:1], x[1:]], out=c), "torch.cat"),
}


@pytest.mark.parametrize("name", WRITES)
def test_writing_into_a_plain_canvas(name: str) -> None:
    write, function = WRITES[name]
    with pytest.raises(LeakError, match="drop its parts") as error:
        run(into_canvas(write))
    assert function in str(error.value)
    assert "'neck.suspect' (Calls)" in str(error.value)


def test_out_is_refused_for_a_decomposed_target_too() -> None:
    with pytest.raises(LeakError, match="out= is not supported"):
        run(lambda x: torch.add(x, 1.0, out=x.clone()))


@torch.jit.script
def scripted_relu(x: Tensor) -> Tensor:
    return torch.relu(x) * 2.0


class Scriptable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2.0


def test_scripted_function() -> None:
    with pytest.raises(LeakError, match="below the level of torch functions") as error:
        run(scripted_relu)
    assert "aten.relu" in str(error.value)
    assert "'neck.suspect' (Calls)" in str(error.value)


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, normal(*SHAPE))])
def test_scripted_module(make: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(
        DecompositionError,
        match=r"scripted code \(forward\) in module 'neck\.suspect'.* made from$",
    ):
        run(make(Scriptable()))


def test_custom_autograd_function() -> None:
    with pytest.raises(NoRuleError, match="custom autograd function Cube") as error:
        run(Cube.apply)
    assert "neck.suspect" in str(error.value)


LEAVES_TORCH: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: torch.from_numpy(x.numpy() * 2),
    "asarray": lambda x: torch.from_numpy(np.asarray(x)),
    "array": lambda x: torch.from_numpy(np.array(x)),
    "tolist": lambda x: torch.tensor(x.tolist()),
    "torch.tensor": lambda x: torch.tensor(x),
    "torch.tensor of a list": lambda x: torch.tensor([x[0, 0, 0, 0], x[0, 0, 0, 1]]),
    "as_tensor": lambda x: torch.as_tensor(x),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "dlpack": lambda x: torch.from_dlpack(x),
    "data_ptr": lambda x: x.data_ptr(),
    "storage": lambda x: torch.tensor(x.untyped_storage()),
}


@pytest.mark.parametrize("name", LEAVES_TORCH)
def test_values_that_leave_torch(name: str) -> None:
    with pytest.raises(LeakError, match="drop the parts") as error:
        run(LEAVES_TORCH[name])
    assert "'neck.suspect' (Calls)" in str(error.value)
    assert ".detach()" in str(error.value)


FILLED: dict[str, Callable[[Tensor], Tensor]] = {
    "full_like": lambda x: torch.full_like(x, x.mean()),
    "new_full": lambda x: x.new_full(x.shape, x.mean()),
    "new_tensor": lambda x: torch.zeros(1).new_tensor(x),
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
    assert "register a rule" in message
    assert "plain_modules" in message


def test_module_that_drops_the_parts_of_one_output() -> None:
    with pytest.raises(LeakError, match=r"neck\.suspect"):
        run(lambda x: (x * 2.0, x.detach().exp()))


def test_plain_modules_may_return_plain_tensors() -> None:
    result = run(lambda x: x.detach() * 2.0, plain_modules=["neck.suspect"])
    torch.testing.assert_close(result.bias, 2.0 * (INPUTS["camera"] + INPUTS["radar"]))
    assert torch.equal(result.parts["camera"], INPUTS["camera"])


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
PRODUCTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "linear": (lambda x: F.linear(x, x[0, 0]), "linear"),
    "conv2d": (lambda x: F.conv2d(x, x), "conv2d"),
    "batch_norm": (
        lambda x: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double(), x[0, :, 0, 0]),
        "batch_norm",
    ),
    "layer_norm": (lambda x: F.layer_norm(x, (3,), x[0, 0, 0]), "layer_norm"),
    "prelu": (lambda x: F.prelu(x, x[0, :, 0, 0]), "prelu"),
    "clamp": (lambda x: x.clamp(max=x.mean()), "clamp"),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_two_decomposed_tensors(name: str) -> None:
    call, function = PRODUCTS[name]
    with pytest.raises(NoRuleError) as error:
        run(call)
    assert function in str(error.value)
    assert "'neck.suspect' (Calls)" in str(error.value)


NO_RULE: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "cumprod": (lambda x: x.cumprod(1), "cumprod"),
    "as_strided": (lambda x: x.as_strided((2, 2), (1, 2)), "as_strided"),
    "lgamma": (lambda x: x.lgamma(), "lgamma"),
    "bincount": (lambda x: torch.bincount(INDEX, x[0, 0, 0, :2]), "bincount"),
}


@pytest.mark.parametrize("name", NO_RULE)
def test_function_without_a_rule(name: str) -> None:
    call, function = NO_RULE[name]
    with pytest.raises(NoRuleError) as error:
        run(call)
    message = str(error.value)
    assert "no rule for torch." in message
    assert function in message
    assert "in module 'neck.suspect' (Calls)" in message
    assert "@register_rule(" in message
    assert "lmd_cli.decomposition.registry" in message


def test_outside_any_module_the_message_says_so() -> None:
    with pytest.raises(NoRuleError, match="outside any module"):
        decompose(lambda camera: camera.cumprod(1), {"camera": INPUTS["camera"]})


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "rounding division": (lambda x: torch.div(x, 2.0, rounding_mode="floor"), "rounding"),
    "rounding division in place": (
        lambda x: x.clone().div_(2.0, rounding_mode="trunc"),
        "rounding",
    ),
    "reduction while scattering": (
        lambda x: x.scatter(0, torch.zeros(1, 4, 3, 3).long(), x, reduce="multiply"),
        "not linear",
    ),
    "bytes as another type": (lambda x: x.view(torch.int64), "another type"),
    "differences with ends": (
        lambda x: x.diff(prepend=torch.zeros(2, 4, 3, 1).double()),
        "prepend",
    ),
    "batch statistics": (
        lambda x: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double(), training=True),
        r"\.eval\(\)",
    ),
    "dropout while training": (lambda x: F.dropout(x, 0.5, training=True), r"\.eval\(\)"),
    "RReLU while training": (lambda x: F.rrelu(x, training=True), r"\.eval\(\)"),
    "attention with dropout": (
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        "dropout is random",
    ),
    "a recurrent layer": (
        lambda x: torch.lstm(x[0], (x[0], x[0]), [], False, 1, 0.0, False, False, False),
        "unroll it",
    ),
    "a recurrent cell": (
        lambda x: torch.gru_cell(x[0, 0], x[0, 0], x[0, 0], x[0, 0]),
        "unroll it",
    ),
    "noise": (lambda x: torch.bernoulli(x.sigmoid()), "random"),
    "an inverse": (lambda x: torch.linalg.inv(x), "not linear in the matrix"),
    "eigenvalues": (lambda x: torch.linalg.eigh(x), "not linear in the matrix"),
    "a loss": (lambda x: F.mse_loss(x, torch.zeros_like(x)), "not part of a prediction"),
    "another shape in place": (lambda x: x.unsqueeze_(0), "out-of-place form"),
    "an angle": (lambda x: torch.atan2(x, x.flip(0)), "no linear part"),
    "a matrix norm": (lambda x: torch.linalg.norm(x[0, 0], 2), "matrix norm 2 has no rule"),
    "a nuclear norm": (lambda x: x[0, 0].norm("nuc"), "nuclear norm has no rule"),
    "a norm of order 0": (lambda x: x.norm(0, 1), "norm of order 0"),
    "two powers": (lambda x: x**x, "both the base and the exponent"),
    "mixed exponents": (
        lambda x: x ** torch.tensor([-1.0, 0.5, 2.0]).double(),
        "both sides of 0 or 1",
    ),
    "exponents of another shape": (
        lambda x: x[0, 0, 0] ** torch.full((2, 3), 2.0).double(),
        "expand the base",
    ),
    "a product while reducing": (
        lambda x: x.scatter_reduce(0, torch.zeros(1, 4, 3, 3).long(), x, "prod"),
        "reduce='prod' is not linear",
    ),
    "a product while reducing in place": (
        lambda x: x.clone().scatter_reduce_(0, torch.zeros(1, 4, 3, 3).long(), x, "amax"),
        "reduce='amax' is not linear",
    ),
    "an activation of complex numbers": (lambda x: torch.tanh(torch.fft.fft(x)), "complex"),
    "log_softmax along a guessed dimension": (lambda x: F.log_softmax(x), "guessed dimension"),
    "softmax along a guessed dimension": (lambda x: F.softmax(x), "give the dimension"),
    "a decomposed index": (lambda x: torch.zeros(3)[x], "index carries parts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_are_not_linear(name: str) -> None:
    call, why = REFUSED[name]
    with pytest.raises(NoRuleError, match=why) as error:
        run(call)
    assert "neck.suspect" in str(error.value)


@pytest.mark.parametrize(
    ("option", "name"), [("add_zero_attn", "add_zero_attn"), ("add_bias_kv", "bias_k")]
)
def test_attention_with_added_keys(option: str, name: str) -> None:
    attention = nn.MultiheadAttention(3, 1, **{option: True}).double().eval()
    with pytest.raises(NoRuleError, match=f"MultiheadAttention.*{name} has no rule"):
        run(lambda x: attention(x[0], x[0], x[0])[0])


def test_a_decomposed_tensor_is_useless_outside() -> None:
    kept: list[Tensor] = []

    def function(camera: Tensor) -> Tensor:
        kept.append(camera * 2.0)
        return camera * 1.0

    decompose(function, {"camera": INPUTS["camera"]})
    assert isinstance(kept[0], DecomposedTensor)
    with pytest.raises(DecompositionError, match="outside its decomposition"):
        kept[0] + 1.0
    assert "tensor" in repr(kept[0])
