"""Plain tensors that parts are written into: what they held is bias, the rest what was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.decomposition import NoRuleError, decompose
from lmd_cli.decomposition.linearised.replay import replay, replay_deviation
from tests.support.rule_oracle import assert_rows, directional_rows, normal

SHAPE = (2, 4, 3, 3)
INPUTS = {"camera": normal(*SHAPE), "radar": normal(*SHAPE, seed=1)}
EXTRAS = {"camera": [normal(*SHAPE, seed=2)], "radar": [normal(*SHAPE, seed=3)]}
INDEX = torch.tensor([1, 0])
HELD = normal(*SHAPE, seed=4)


def filled(x: Tensor) -> Tensor:
    canvas = torch.empty_like(x)
    canvas.copy_(HELD)
    return canvas


CANVASES: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": lambda x: torch.zeros(SHAPE, dtype=x.dtype),
    "new_zeros": lambda x: x.new_zeros(SHAPE),
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full": lambda x: torch.full(SHAPE, 0.3, dtype=x.dtype),
    "empty, then filled": filled,
    "a constant": lambda x: HELD.clone(),
    "a view of a constant": lambda x: torch.stack([HELD, HELD])[1],
    "a transposed one": lambda x: x.new_ones(2, 3, 3, 4).permute(0, 3, 1, 2),
    "channels last": lambda x: HELD.clone(memory_format=torch.channels_last),
    "made of features": lambda x: x.detach() * 0.0 + 0.5,
}
WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "setitem": lambda c, x: c.__setitem__(0, x[0]),
    "setitem of all": lambda c, x: c.__setitem__(slice(None), x),
    "setitem by an index": lambda c, x: c.__setitem__((slice(None), INDEX), x[:, :2]),
    "setitem by a list of lists": lambda c, x: c.__setitem__([[0, 1], [2, 3]], x[:, 1]),
    "setitem by a mask": lambda c, x: c.__setitem__(HELD > 0, x[HELD > 0]),
    "setitem by a 0-d mask": lambda c, x: c.__setitem__(torch.tensor(True), x),
    "setitem of one value": lambda c, x: c.__setitem__((0, slice(1, 3)), x.mean()),
    "index_put_": lambda c, x: c.index_put_((INDEX, INDEX), x[:, 0], accumulate=True),
    "copy_": lambda c, x: c.copy_(x),
    "copy_ to a part": lambda c, x: c[:, 1:3].copy_(x[:, :2]),
    "add_": lambda c, x: c.add_(x),
    "+=": lambda c, x: c.__iadd__(x[:1]),
    "index_add_": lambda c, x: c.index_add_(0, INDEX, x, alpha=2.0),
    "index_copy_": lambda c, x: c.index_copy_(0, INDEX, x),
    "scatter_": lambda c, x: c.scatter_(1, INDEX.expand(2, 3, 3, 2).permute(0, 3, 1, 2), x),
    "scatter_add_": lambda c, x: c.scatter_add_(0, torch.zeros_like(x).long(), x),
    "masked_scatter_": lambda c, x: c.masked_scatter_(HELD > 0, x),
    "fill_": lambda c, x: c.fill_(x.mean()),
    "masked_fill_": lambda c, x: c.masked_fill_(HELD > 0, x.mean()),
    "where into a slice": lambda c, x: c[1].copy_(torch.where(HELD[1] > 0, x[1], c[1])),
    "out= of add": lambda c, x: torch.add(x, x, out=c),
    "out= of cat": lambda c, x: torch.cat([x[:1], x[1:]], out=c),
    "out= of mul": lambda c, x: torch.mul(x, 3.0, out=c),
    "twice": lambda c, x: (c[0].add_(x[0]), c[:, 1].mul_(-2.0), c[0].add_(x[1])),
}


def check(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """The parts by differences of the plain function; the total, bit for bit."""
    plain = function(**{name: x.clone() for name, x in INPUTS.items()})
    result = decompose(function, INPUTS, extras=EXTRAS, audit=True, keep_maps=True)
    assert torch.equal(result.total, plain)
    assert_rows(result, directional_rows(function, INPUTS, EXTRAS), 1e-9)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("canvas", ["zeros_like", "empty, then filled"])
def test_a_write_into_a_canvas(canvas: str, write: str) -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        made = CANVASES[canvas](camera)
        WRITES[write](made, camera + 2.0 * radar + HELD)
        return made * 3.0

    check(function)


@pytest.mark.parametrize("write", ["setitem", "index_add_", "setitem by a mask", "out= of mul"])
@pytest.mark.parametrize("canvas", CANVASES)
def test_a_canvas_of_any_kind(canvas: str, write: str) -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        made = CANVASES[canvas](camera)
        WRITES[write](made, camera + 2.0 * radar)
        return made - camera

    check(function)


def test_out_makes_a_plain_tensor_larger() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        made = torch.empty(0, dtype=camera.dtype)
        torch.add(camera, radar, out=made)
        return made * 3.0

    check(function)


def assigned(canvas: Tensor, x: Tensor) -> Tensor:
    canvas[:, 1] = x[:, 2]
    return canvas


#: Writes of features into memory that carries no parts.
INTO_INTEGERS: dict[str, Callable[[Tensor], Tensor]] = {
    "out= of a comparison": lambda x: torch.gt(x, 0.0, out=torch.empty(SHAPE, dtype=torch.bool)),
    "out= that grows": lambda x: torch.gt(x, 0.0, out=torch.empty(0, dtype=torch.bool)),
    "copy_": lambda x: torch.zeros(SHAPE, dtype=torch.int64).copy_(x),
    "setitem": lambda x: assigned(torch.zeros(SHAPE, dtype=torch.int64), x),
}


@pytest.mark.parametrize("write", INTO_INTEGERS)
def test_what_features_leave_in_integers_is_a_constant(write: str) -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        return camera * INTO_INTEGERS[write](radar) + radar

    plain = function(**INPUTS)
    result = decompose(function, INPUTS, audit="raise", keep_maps=True)
    assert torch.equal(result.total, plain)
    assert torch.equal(result.parts["radar"], INPUTS["radar"])
    assert replay_deviation(replay(result, INPUTS), result) == 0.0


def test_out_that_makes_larger_what_has_parts_is_an_error() -> None:
    with pytest.raises(NoRuleError, match=r"torch.mul .*larger"):
        decompose(lambda camera, radar: torch.mul(camera, 2.0, out=radar[:1].clone()), INPUTS)


def test_parts_cross_from_one_canvas_into_another() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        first, second = torch.zeros_like(camera), torch.ones_like(radar)
        first[0] = camera[1]
        second[:, :2] += first[:, 1:3]
        first[0] = 0.5
        second[1] = radar[0]
        return first + second

    check(function)


def test_writes_of_another_type() -> None:
    """The target keeps its own."""
    inputs = {name: x.float() for name, x in INPUTS.items()}

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + radar
        x *= torch.full((3,), 0.5, dtype=torch.float64)
        x[0] = HELD[0]
        canvas = torch.zeros(SHAPE, dtype=torch.float64)
        canvas += x
        return canvas.float() + x

    plain = function(**{name: x.clone() for name, x in inputs.items()})
    result = decompose(function, inputs, audit="raise")
    assert torch.equal(result.total, plain)
    assert result.parts["camera"].dtype == result.bias.dtype == torch.float32
    assert torch.equal(result.parts["camera"][1], inputs["camera"][1])
    assert torch.equal(result.bias[0], 2.0 * HELD[0].float())


def test_a_larger_result_does_not_fit_a_smaller_target() -> None:
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        decompose(lambda camera, radar: camera[:1].add_(radar), INPUTS)


def test_complex_canvases_and_their_real_halves() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        canvas = torch.zeros(SHAPE, dtype=torch.complex128)
        canvas.real[0] = camera[0]
        canvas.imag[:] = radar
        torch.view_as_real(canvas)[1, ..., 0] += camera[0]
        torch.conj(canvas)[:, 0] *= 2.0
        return (canvas * (1.0 + 2.0j)).real + canvas.imag

    check(function)


def test_a_buffer_of_the_network_is_a_canvas_and_stays_plain() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("held", torch.zeros(SHAPE).double())

        def forward(self, camera: Tensor, radar: Tensor) -> Tensor:
            self.held[0] = camera[0]
            return self.held + radar

    network = Memory()
    first = decompose(network, INPUTS)
    assert torch.equal(first.parts["camera"][0], INPUTS["camera"][0])
    assert torch.equal(network.held[0], INPUTS["camera"][0])
    second = decompose(network, {"radar": INPUTS["radar"], "camera": 2.0 * INPUTS["camera"]})
    assert torch.equal(second.parts["radar"], INPUTS["radar"])
    assert torch.equal(second.parts["camera"][0], 2.0 * INPUTS["camera"][0])
    assert not second.bias.any()
