"""Writes in place: what the plain network computes, or an error; never the caller's tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmd_cli.decomposition import Decomposition, NoRuleError, decompose
from tests.support.rule_oracle import assert_rows, directional_rows, normal

SHAPE = (2, 4, 3, 2)

Function = Callable[..., Any]


def inputs() -> dict[str, Tensor]:
    return {"camera": normal(*SHAPE), "radar": normal(*SHAPE, seed=1)}


def extras() -> dict[str, list[Tensor]]:
    return {"camera": [normal(*SHAPE, seed=2)], "radar": [normal(*SHAPE, seed=3)]}


def run(function: Function, **options: Any) -> Decomposition:
    return decompose(function, inputs(), extras=extras(), audit=True, **options)


def check_affine(function: Function) -> None:
    """The parts, by differences of the plain function; the total, bit for bit."""
    plain = function(**{name: x.clone() for name, x in inputs().items()})
    rows = directional_rows(function, inputs(), extras())
    for audit in (False, True):  # an audit carries concatenations out at once
        result = decompose(function, inputs(), extras=extras(), audit=audit)
        assert torch.equal(result.total, plain)
        assert_rows(result, rows, 1e-10)


def view_of_sum(write: Callable[[Tensor], Any]) -> Function:
    """Writes to a view of a new tensor and returns the tensor itself."""

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar + 1.0
        write(x)
        return x * 3.0

    return function


def views(x: Tensor) -> dict[str, Tensor]:
    return {
        "chunk": x.chunk(2, dim=1)[0],
        "second chunk": x.chunk(2, dim=1)[1],
        "narrow": x.narrow(2, 1, 2),
        "view": x.view(2, 24),
        "reshape": x.reshape(-1),
        "flatten": x.flatten(1),
        "slice": x[:, 1:3],
        "index": x[0],
        "step": x[:, ::2],
        "transpose": x.transpose(1, 2),
        "permute": x.permute(3, 0, 1, 2),
        "unbind": x.unbind(1)[2],
        "split": x.split([1, 3], 1)[1],
        "unsqueeze": x.unsqueeze(0),
        "diagonal": x.diagonal(dim1=2, dim2=3),
        "select": x.select(3, 1),
        "movedim": x.movedim(1, -1),
        "unfold": x.unfold(2, 1, 1),
        "view of a view": x.flatten(2)[:, 1].chunk(2, 1)[0],
    }


VIEWS = list(views(normal(*SHAPE)))

WRITES: dict[str, Callable[[Tensor], Any]] = {
    "mul_": lambda v: v.mul_(-2.0),
    "add_": lambda v: v.add_(0.5),
    "setitem": lambda v: v.__setitem__(0, 0.3),
    "copy_": lambda v: v.copy_(v.flip(0)),
    "masked_fill_": lambda v: v.masked_fill_(v > 0, 1.5),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("view", VIEWS)
def test_write_to_a_view_shows_in_the_base(view: str, write: str) -> None:
    check_affine(view_of_sum(lambda x: WRITES[write](views(x)[view])))


@pytest.mark.parametrize("view", VIEWS)
def test_write_to_the_base_shows_in_the_view(view: str) -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar + 1.0
        seen = views(x)[view]
        x.mul_(-3.0)
        return seen * 2.0

    check_affine(function)


@pytest.mark.parametrize("view", VIEWS)
def test_activation_of_a_view(view: str) -> None:
    """In place through a view, against the same network written out of place."""

    def written(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar + 1.0
        F.relu(views(x)[view], inplace=True)
        return x

    def apart(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar + 1.0
        touched = torch.zeros(SHAPE)
        views(touched)[view].fill_(1.0)
        return torch.where(touched > 0, F.relu(x), x)

    a, b = run(written), run(apart)
    assert torch.equal(a.total, b.total)
    for name in a.parts:
        assert torch.equal(a.parts[name], b.parts[name])
        assert torch.equal(a.extras[name][0], b.extras[name][0])
    assert torch.equal(a.bias, b.bias)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("first", ["base", "view"])
def test_a_write_may_add_parts_to_all_views(view: str, first: str) -> None:
    """The base has no bias part, and no radar part, until something is written to it."""

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0
        seen = views(x)[view]
        written = x if first == "base" else seen
        written.add_(0.3)
        written[0] += views(radar)[view][0] if first == "view" else radar[0]
        written.mul_(3.0)
        return x.sum() + seen * 2.0

    check_affine(function)


def test_parts_that_are_not_stored_row_by_row_grow() -> None:
    grid = normal(2, 3, 2, 2, seed=4)

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = F.grid_sample(camera + radar, grid, align_corners=False)
        x[0].add_(0.3)
        return x * 2.0

    check_affine(function)


ALIASES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "reshape": lambda x: x.reshape(-1),
    "flatten": lambda x: x.flatten(1),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", ALIASES)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed"])
def test_a_copy_of_the_total_is_a_copy_of_the_parts(name: str, layout: str) -> None:
    """Whether a call copies depends on the total's layout; the parts may be laid out otherwise."""

    def arranged(x: Tensor) -> Tensor:
        if layout == "transposed":
            return x.permute(0, 1, 3, 2)
        formats = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
        return x.contiguous(memory_format=formats[layout])

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = arranged(camera) * 1.0 + arranged(radar)
        y = ALIASES[name](x)
        F.relu(y, inplace=True)
        y.mul_(2.0)
        return x + y.reshape(-1)[0]

    def reference(camera: Tensor, radar: Tensor) -> Tensor:
        x = arranged(camera) * 1.0 + arranged(radar)
        y = ALIASES[name](x)
        shared = y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        y = F.relu(y) * 2.0
        return (y.reshape(x.shape) if shared else x) + y.reshape(-1)[0]

    plain = function(**{k: v.clone() for k, v in inputs().items()})
    torch.testing.assert_close(reference(**inputs()), plain)
    result = run(function)
    assert torch.equal(result.total, plain)
    assert max(record.residual for record in result.operations) < 1e-14


def test_grid_sample_then_view() -> None:
    """The parts of grid_sample are laid out otherwise than its total."""
    grid = normal(2, 3, 2, 2, seed=4)

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = F.grid_sample(camera + radar, grid, align_corners=False)
        return x.view(8, -1) * 2.0

    check_affine(function)


def test_concatenation_keeps_what_it_joined() -> None:
    """The concatenation is not carried out at once; a later write must not change it."""
    conv = nn.Conv2d(8, 3, 1).double()

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        a, b = camera * 1.0, radar * 1.0
        joined = torch.cat([a, b], 1)
        F.relu(a, inplace=True)
        a.mul_(7.0)
        b.zero_()
        return conv(joined) + a.mean() + b.mean()

    def reference(camera: Tensor, radar: Tensor) -> Tensor:
        joined = torch.cat([camera * 1.0, radar * 1.0], 1)
        return conv(joined) + (F.relu(camera) * 7.0).mean()

    expected = run(reference)
    for audit in (False, True):
        result = decompose(function, inputs(), extras=extras(), audit=audit)
        torch.testing.assert_close(result.total, expected.total, rtol=0, atol=1e-15)
        for name in result.parts:
            torch.testing.assert_close(result.parts[name], expected.parts[name], rtol=0, atol=1e-14)


def test_empty_tensors_do_not_share_memory() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        first, second = camera[:0] * 1.0, radar[:0] * 1.0
        first.add_(1.0)
        second.mul_(2.0)
        return torch.cat([first, second, camera + radar])

    assert torch.equal(run(function).parts["camera"], inputs()["camera"])


def test_many_tensors_that_come_and_go() -> None:
    """Views are still found after the list of live tensors was swept."""

    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera * 2.0 + radar + 1.0
        view = x[0]
        for _ in range(600):
            camera = camera * 1.0
        view.mul_(3.0)
        return x + camera

    check_affine(function)


def windows(x: Tensor) -> Tensor:
    return x.flatten().unfold(0, 5, 2)


@pytest.mark.parametrize(
    "write", [lambda x: windows(x).zero_(), lambda x: windows(x)[2:4, 1:].fill_(3.0)]
)
def test_one_value_for_all_of_overlapping_windows(write: Any) -> None:
    check_affine(view_of_sum(write))


@pytest.mark.parametrize("write", [lambda x: windows(x).add_(1.0), lambda x: windows(x).mul_(2.0)])
def test_overlapping_windows_that_are_written_to_twice_are_an_error(write: Any) -> None:
    with pytest.raises(NoRuleError, match="overlap"):
        run(view_of_sum(write))


SQUARE = torch.tensor([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [3.0, 1.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "write",
    [lambda x: x.baddbmm_(x, SQUARE[None]), lambda x: torch.matmul(x, SQUARE, out=x)],
)
def test_a_product_that_reads_what_it_writes_is_an_error(write: Any) -> None:
    """Torch gives what depends on the order of its loops, not the product."""
    with pytest.raises(NoRuleError, match="read while it writes"):
        decompose(lambda camera: write(camera * 1.0), {"camera": normal(1, 3, 3)})


def test_a_sparse_factor_is_no_memory_that_is_written_to() -> None:
    def function(camera: Tensor) -> Tensor:
        return (camera * 1.0).addmm_(SQUARE.to_sparse(), camera)

    features = normal(3, 3)
    result = decompose(function, {"camera": features}, audit="raise")
    torch.testing.assert_close(result.parts["camera"], features + SQUARE @ features)


def test_elementwise_operations_that_read_what_they_write() -> None:
    def function(camera: Tensor, radar: Tensor) -> Tensor:
        x = camera + 2.0 * radar
        x.add_(x)
        return torch.sub(x, x[:], alpha=2, out=x)

    assert torch.equal(run(function).parts["camera"], -2.0 * inputs()["camera"])
