"""Calls that are other calls, and calls that have no rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import (
    NoRuleError,
    decompose,
)
from tests.decomposition.tracing.test_leaks import (
    INPUTS,
    assert_same_as,
    run,
)

WORK: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]] = {
    "linear": (lambda x: F.linear(x, x[0, 0]), lambda x: x @ x[0, 0].mT),
    "conv2d": (
        lambda x: F.conv2d(x, x).expand(2, 2, 3, 3).repeat(1, 2, 1, 1),
        lambda x: (
            torch.einsum("bchw,ochw->bo", x, x)[..., None, None]
            .expand(2, 2, 3, 3)
            .repeat(1, 2, 1, 1)
        ),
    ),
    "clamp": (
        lambda x: x.clamp(max=x.mean()),
        lambda x: torch.where(x > x.mean().detach(), x.mean().expand_as(x), x),
    ),
    "cumprod": (
        lambda x: x[:, :2].cumprod(1).repeat(1, 2, 1, 1),
        lambda x: torch.stack([x[:, 0], x[:, 0] * x[:, 1]], 1).repeat(1, 2, 1, 1),
    ),
    "as_strided": (
        lambda x: x.contiguous().as_strided((2, 4, 3, 3), (36, 9, 1, 3)),
        lambda x: x.mT,
    ),
    "differences with ends": (
        lambda x: x.diff(prepend=torch.zeros(2, 4, 3, 1).double()),
        lambda x: x - F.pad(x, (1, 0))[..., :-1],
    ),
    "another shape in place": (lambda x: (x * 1.0).unsqueeze_(0)[0], lambda x: x * 1.0),
    "largest while reducing in place": (
        lambda x: (x * 1.0).scatter_reduce_(1, torch.zeros_like(x).long(), x, "amax"),
        lambda x: torch.cat([x.amax(1, keepdim=True), x[:, 1:]], 1),
    ),
    "softmax along a guessed dimension": (lambda x: F.softmax(x), lambda x: x.softmax(1)),
    "log_softmax along a guessed dimension": (
        lambda x: F.log_softmax(x),
        lambda x: x.log_softmax(1),
    ),
    "mixed exponents": (
        lambda x: x.abs() ** torch.tensor([-1.0, 0.5, 2.0]).double(),
        lambda x: torch.stack([x.abs()[..., i] ** p for i, p in enumerate((-1.0, 0.5, 2.0))], -1),
    ),
    "out=": (lambda x: torch.add(x, 1.0, out=x.clone()), lambda x: x + 1.0),
}


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("name", WORK)
def test_calls_that_are_other_calls(name: str) -> None:
    """What one spelling gives, the other gives."""
    call, same = WORK[name]
    assert_same_as(run(call), same)


PRODUCTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "batch_norm": (
        lambda x: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double(), x[0, :, 0, 0]),
        "batch_norm",
    ),
    "layer_norm": (lambda x: F.layer_norm(x, (3,), x[0, 0, 0]), "layer_norm"),
    "prelu": (lambda x: F.prelu(x, x[0, :, 0, 0]), "prelu"),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_two_decomposed_tensors(name: str) -> None:
    call, function = PRODUCTS[name]
    with pytest.raises(NoRuleError) as error:
        run(call)
    assert function in str(error.value)
    assert "'neck.suspect' (Calls)" in str(error.value)


NO_RULE: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "lgamma": (lambda x: x.lgamma(), "lgamma"),
    "digamma": (torch.digamma, "digamma"),
    "in place": (lambda x: (x * 1.0).lgamma_(), "lgamma"),
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
    assert "or register_activation(torch." in message
    assert "(see register_rule, register_activation of lmd_cli.decomposition)" in message


def test_outside_any_module_the_message_says_so() -> None:
    with pytest.raises(NoRuleError, match="outside any module"):
        decompose(lambda camera: camera.lgamma(), {"camera": INPUTS["camera"]})


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "bytes as another type": (lambda x: x.view(torch.int64), "another type"),
    "batch statistics": (
        lambda x: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double(), training=True),
        r"\.eval\(\)",
    ),
    "dropout while training": (lambda x: F.dropout(x, 0.5, training=True), r"\.eval\(\)"),
    "RReLU while training": (lambda x: F.rrelu(x, training=True), r"\.eval\(\)"),
    "attention with dropout": (
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        "random",
    ),
    "noise": (lambda x: torch.bernoulli(x.sigmoid()), "random"),
    "an inverse": (lambda x: torch.linalg.inv(x), "not linear in the matrix"),
    "eigenvalues": (lambda x: torch.linalg.eigh(x), "not linear in the matrix"),
    "a loss": (lambda x: F.mse_loss(x, torch.zeros_like(x)), "not part of a prediction"),
    "an angle": (lambda x: torch.atan2(x, x.flip(0)), "no linear part"),
    "a matrix norm": (lambda x: torch.linalg.norm(x[0, 0], 2), "not linear in the matrix"),
    "a nuclear norm": (lambda x: x[0, 0].norm("nuc"), "not linear in the matrix"),
    "a norm of order 0": (lambda x: x.norm(0, 1), "norm of order 0"),
    "two powers": (lambda x: x**x, "both the base and the exponent"),
    "an activation of complex numbers": (lambda x: torch.tanh(torch.fft.fft(x)), "complex"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_are_not_linear(name: str) -> None:
    call, why = REFUSED[name]
    with pytest.raises(NoRuleError, match=why) as error:
        run(call)
    assert "neck.suspect" in str(error.value)


@pytest.mark.parametrize("option", ["add_zero_attn", "add_bias_kv"])
def test_attention_with_added_keys(option: str) -> None:
    """The weights are constants, so the output is affine in the values."""
    attention = nn.MultiheadAttention(3, 1, **{option: True}).double().eval()
    result = run(lambda x: attention(x[0], x[0], x[0])[0].expand(2, 4, 3, 3), audit="raise")
    x = INPUTS["camera"] + INPUTS["radar"]
    wanted = attention(x[0], x[0], x[0])[0].detach().expand(2, 4, 3, 3)
    assert torch.equal(result.total, x + wanted)


def test_an_index_must_be_an_integer_as_ever() -> None:
    with pytest.raises(IndexError, match="must be long"):
        run(lambda x: torch.zeros(3)[x])


def test_a_tensor_that_was_kept_is_plain() -> None:
    kept: list[Tensor] = []

    def function(camera: Tensor) -> Tensor:
        kept.append(camera * 2.0)
        return camera * 1.0

    decompose(function, {"camera": INPUTS["camera"]})
    assert type(kept[0]) is Tensor
    assert torch.equal(kept[0] + 1.0, INPUTS["camera"] * 2.0 + 1.0)
