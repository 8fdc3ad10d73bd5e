"""Writes to inputs and through detached views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import LeakError, decompose
from tests.decomposition.tracing.test_inplace import check_affine, extras, inputs, run

Function = Callable[..., Any]


INPUT_WRITES: dict[str, Function] = {
    "relu_": lambda camera, radar: F.relu(camera, inplace=True) + radar,
    "add_": lambda camera, radar: camera.add_(radar).mul_(2.0),
    "setitem": lambda camera, radar: camera.__setitem__(0, 1.0) or camera + radar,
    "zero_": lambda camera, radar: camera.zero_() + radar,
    "view": lambda camera, radar: camera.view(-1).mul_(2.0).view_as(radar) + camera + radar,
    "chunk": lambda camera, radar: camera.chunk(2, 1)[0].mul_(3.0).sum() + camera + radar,
    "view, then the input": lambda camera, radar: (camera[0], camera.mul_(3.0))[0] + radar[0],
    "input, then a view": lambda camera, radar: (camera.mul_(2.0), camera[0].mul_(3.0))[0] + radar,
    "module": lambda camera, radar: nn.Sequential(nn.ReLU(inplace=True), nn.Flatten())(
        camera + 0.0 * radar
    ),
}


@pytest.mark.parametrize("name", INPUT_WRITES)
def test_the_callers_inputs_are_not_written_to(name: str) -> None:
    given, riding = inputs(), extras()
    function = INPUT_WRITES[name]
    plain = function(**{k: v.clone() for k, v in given.items()})
    result = decompose(function, given, extras=riding, audit=True)
    assert torch.equal(result.total, plain)
    assert result.residual < 1e-14
    for name_, value in inputs().items():
        assert torch.equal(given[name_], value)
        assert torch.equal(riding[name_][0], extras()[name_][0])


def test_inputs_that_are_written_to_keep_their_parts_right() -> None:
    for name in ("add_", "view", "chunk", "view, then the input", "input, then a view"):
        check_affine(INPUT_WRITES[name])


BEHIND: dict[str, Callable[[Tensor], Any]] = {
    "detach": lambda x: x.detach().zero_(),
    "data": lambda x: x.data.mul_(2.0),
    "detached view": lambda x: x.view(-1).detach()[3:].fill_(1.0),
    "detached setitem": lambda x: x.detach().__setitem__(0, 0.0),
}


@pytest.mark.parametrize("name", BEHIND)
def test_a_write_through_a_detached_view_is_an_error(name: str) -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar
        BEHIND[name](x)
        return x * 2.0

    with pytest.raises(LeakError, match="detached view"):
        run(function)


def test_a_write_through_a_detached_view_of_the_output_is_an_error() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar
        x.detach().zero_()
        return x

    with pytest.raises(LeakError, match="detached view"):
        run(function)


def test_scaling_by_a_detached_view_of_itself() -> None:
    """``x.mul_(x.detach())``: the constant changes while it is being used."""

    def written(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar
        x.mul_(x.detach())
        x.add_(x.detach(), alpha=2)
        return x.div_(x.detach().abs() + 1.0)

    def apart(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar
        x = x * x.detach()
        x = torch.add(x, x.detach(), alpha=2)
        return x / (x.detach().abs() + 1.0)

    a, b = run(written), run(apart)
    assert torch.equal(a.total, b.total)
    for name in a.parts:
        torch.testing.assert_close(a.parts[name], b.parts[name], rtol=0, atol=1e-15)


def test_gradients_through_a_write_to_a_view_of_an_input() -> None:
    camera = inputs()["camera"].requires_grad_()
    given = {"camera": camera, "radar": inputs()["radar"]}

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        camera.view(-1)[:5].mul_(3.0)
        return camera * camera.detach() + radar

    plain = function(inputs()["camera"], inputs()["radar"])
    result = decompose(function, given, grad=True)
    assert torch.equal(result.total, plain)
    result.parts["camera"].sum().backward()
    scale = torch.ones_like(camera).detach()
    scale.view(-1)[:5] = 3.0
    torch.testing.assert_close(camera.grad, scale * (scale * camera.detach()))


def test_gradients_through_a_write_to_an_input() -> None:
    camera = inputs()["camera"].requires_grad_()
    given = {"camera": camera, "radar": inputs()["radar"]}
    result = decompose(lambda camera, radar: F.relu(camera, inplace=True) + radar, given, grad=True)
    result.parts["camera"].sum().backward()
    assert torch.equal(camera.grad, (camera > 0).double())
    assert torch.equal(camera, inputs()["camera"])
