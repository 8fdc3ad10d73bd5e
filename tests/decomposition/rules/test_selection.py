"""Max-pooling and related operations by brute force: the largest total and its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from lmd_cli.decomposition.registry import function_name
from tests.support.rule_oracle import Sample, aliases, assert_rows, assert_total, lookup, rows_of

Window = list[tuple[int, ...]]  # positions along the pooled dimensions
#: Keyword arguments of fixed pools, then output sizes of adaptive ones.
FIXED: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 1, "dilation": 2},
    {"kernel_size": 2, "stride": 2, "ceil_mode": True},
]
ADAPTIVE = (1, 2, 3)
SIZES = {1: (7,), 2: (5, 4), 3: (4, 3, 5)}


def spans(size: int, options: dict[str, Any]) -> list[list[int]]:
    """The positions that each output position of a fixed pool looks at, along one dimension."""
    kernel, padding = options["kernel_size"], options.get("padding", 0)
    stride, dilation = options.get("stride", kernel), options.get("dilation", 1)
    reach = dilation * (kernel - 1)
    room = (size + 2 * padding - reach - 1) / stride
    count = (math.ceil(room) if options.get("ceil_mode") else math.floor(room)) + 1
    starts = [i * stride - padding for i in range(count)]
    starts = [s for s in starts if s < size + padding]  # a window may not start in the right margin
    return [[p for p in range(s, s + reach + 1, dilation) if 0 <= p < size] for s in starts]


def adaptive_spans(size: int, out: int) -> list[list[int]]:
    return [
        list(range(math.floor(i * size / out), math.ceil((i + 1) * size / out))) for i in range(out)
    ]


def brute_force(total: Tensor, part: Tensor, windows: list[list[list[int]]]) -> Tensor:
    """``part`` at the place of ``total``'s maximum in every window, plane by plane."""
    shape = [len(spans_) for spans_ in windows]
    planes = zip(total.flatten(0, 1), part.flatten(0, 1), strict=True)
    picked = [plane[where(values, window)] for values, plane in planes for window in each(windows)]
    return torch.stack(picked).reshape(*total.shape[:2], *shape)


def each(windows: list[list[list[int]]]) -> Iterator[Window]:
    for spans_ in product(*windows):
        yield list(product(*spans_))


def where(values: Tensor, window: Window) -> tuple[int, ...]:
    return max(window, key=lambda position: float(values[position]))


def spatial(function: Any) -> int:
    digits = [c for c in function.__name__ + function_name(function) if c.isdigit()]
    return int(digits[0])


def pools(kind: str) -> list[Any]:
    """Those that give values alone, and those that give their places too."""
    names = [f"{kind}{n}d{places}" for n in SIZES for places in ("", "_with_indices")]
    return [f for f in aliases(*names) if f.__module__ != "torch._C._nn"]


def check_pool(call: Callable[[Tensor], Any], sample: Sample, windows: Any) -> None:
    result = sample.through(call, "identity-ratio")
    assert_total(result, call(sample.total))
    rows = {k: [brute_force(sample.total, h, windows)] for k, h in sample.rows().items()}
    assert_rows(result, rows)


@pytest.mark.parametrize("function", pools("max_pool"), ids=function_name)
def test_max_pool(function: Any) -> None:
    sample = Sample(2, 2, *SIZES[spatial(function)])
    for options in FIXED:
        windows = [spans(size, options) for size in SIZES[spatial(function)]]
        check_pool(lambda x: function(x, **options), sample, windows)  # noqa: B023


@pytest.mark.parametrize("function", pools("adaptive_max_pool"), ids=function_name)
def test_adaptive_max_pool(function: Any) -> None:
    sample = Sample(2, 2, *SIZES[spatial(function)])
    for out in ADAPTIVE:
        windows = [adaptive_spans(size, out) for size in SIZES[spatial(function)]]
        check_pool(lambda x: function(x, out), sample, windows)  # noqa: B023


def test_pool_indices_are_plain_and_those_of_torch() -> None:
    sample = Sample(2, 2, 5, 4)
    result = sample.through(torch.nn.MaxPool2d(2, return_indices=True), "identity-ratio")
    pooled, indices = torch.nn.functional.max_pool2d(sample.total, 2, return_indices=True)
    assert torch.equal(result.total[0], pooled)
    assert torch.equal(result.total[1], indices)


def test_pool_without_a_batch() -> None:
    sample = Sample(3, 5, 4)
    result = sample.through(torch.nn.MaxPool2d(2), "identity-ratio")
    batched = Sample(3, 5, 4)
    rows = {
        name: [
            brute_force(batched.total[None], h[None], [spans(5, FIXED[0]), spans(4, FIXED[0])])[0]
        ]
        for name, h in batched.rows().items()
    }
    assert_rows(result, rows)


EXTREMA = aliases("max", "min", "amax", "amin")
#: Functions that order or pick along one dimension, and their calls.
ORDERED: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], int]]] = {
    "topk": [((2,), {}, -1), ((3, 0, False), {}, 0), ((2,), {"dim": 1, "sorted": False}, 1)],
    "sort": [((), {}, -1), ((1,), {"descending": True}, 1), ((), {"dim": 0, "stable": True}, 0)],
    "kthvalue": [((2,), {}, -1), ((3, 1, True), {}, 1)],
    "mode": [((), {}, -1), ((0,), {"keepdim": True}, 0)],
    "cummax": [((1,), {}, 1)],
    "cummin": [((), {"dim": 0}, 0)],
    "median": [((1,), {}, 1), ((0, True), {}, 0), ((), {"dim": -1, "keepdim": True}, -1)],
    "nanmedian": [((1,), {}, 1)],
    "msort": [((), {}, 0)],
}


@pytest.mark.parametrize("function", EXTREMA, ids=function_name)
@pytest.mark.parametrize("arguments", [{"dim": 1}, {"dim": -1, "keepdim": True}, {"dim": 0}])
def test_extremum_along_a_dimension(function: Any, arguments: dict[str, Any]) -> None:
    sample, dim = Sample(3, 4, 5), arguments["dim"]
    sign = 1.0 if function.__name__.endswith("max") else -1.0
    place = (sign * sample.total).argmax(dim, keepdim=True)
    keep = arguments.get("keepdim", False)
    rows = {
        name: [h.take_along_dim(place, dim) if keep else h.take_along_dim(place, dim).squeeze(dim)]
        for name, h in sample.rows().items()
    }
    result = sample.through(lambda x: function(x, **arguments), "identity-ratio")
    assert_total(result, function(sample.total, **arguments))
    assert_rows(result, rows)


@pytest.mark.parametrize("function", EXTREMA, ids=function_name)
def test_extremum_of_all(function: Any) -> None:
    sample = Sample(3, 4, 5)
    best = torch.argmax if function.__name__.endswith("max") else torch.argmin
    result = sample.through(function, "identity-ratio")
    assert_rows(result, {k: [h.flatten()[best(sample.total)]] for k, h in sample.rows().items()})


@pytest.mark.parametrize("keep", [False, True])
def test_equals_are_read_where_torch_says(keep: bool) -> None:
    sample = Sample(3, 6)
    sample.parts = {name: part.round() for name, part in sample.parts.items()}
    sample.bias = sample.bias.round()
    total = sample.total
    assert ((total == total.amax(1, keepdim=True)).sum(1) > 1).any()
    result = sample.through(lambda x: x.max(1, keepdim=keep), "identity-ratio")
    index = total.max(1, keepdim=True).indices
    assert torch.equal(result.total.indices, index if keep else index.squeeze(1))
    camera = sample.parts["camera"].gather(1, index)
    assert torch.equal(result.parts["camera"].values, camera if keep else camera.squeeze(1))


@pytest.mark.parametrize("name", ["amax", "amin"])
@pytest.mark.parametrize("dims", [(1, 2), (0, -1), (-2,), ()])
@pytest.mark.parametrize("keepdim", [False, True])
def test_extremum_over_several_dimensions(name: str, dims: tuple[int, ...], keepdim: bool) -> None:
    sample, function = Sample(3, 4, 5), getattr(torch, name)
    over = [d % 3 for d in dims] or [0, 1, 2]
    kept = [d for d in range(3) if d not in over]
    shape = [1 if d in over else n for d, n in enumerate((3, 4, 5))]

    def rows(h: Tensor) -> Tensor:
        return h.permute(*kept, *over).reshape(*(h.shape[d] for d in kept), -1)

    best = (torch.argmax if name == "amax" else torch.argmin)(rows(sample.total), -1)
    actual = {k: rows(h).gather(-1, best.unsqueeze(-1))[..., 0] for k, h in sample.rows().items()}
    wanted = {k: [h.reshape(shape) if keepdim else h] for k, h in actual.items()}
    result = sample.through(lambda x: function(x, dims, keepdim), "identity-ratio")
    assert_total(result, function(sample.total, dims, keepdim))
    assert_rows(result, wanted)


def read_at(total: Tensor, values: Tensor, part: Tensor, dim: int) -> Tensor:
    """``part`` where ``total`` has each of ``values`` along ``dim`` (all are different)."""
    lines, wanted = total.movedim(dim, -1), values.movedim(dim, -1)
    where = (lines.unsqueeze(-2) == wanted.unsqueeze(-1)).long().argmax(-1)
    return part.movedim(dim, -1).gather(-1, where).movedim(-1, dim)


@pytest.mark.parametrize("function", aliases(*ORDERED), ids=function_name)
def test_ordered_values_are_read_where_they_were(function: Any) -> None:
    for args, kwargs, dim in lookup(ORDERED, function):
        sample = Sample(3, 4, 5)
        plain = function(sample.total, *args, **kwargs)
        values = plain if isinstance(plain, Tensor) else plain.values
        reduced = values.dim() < 3
        full = values.unsqueeze(dim) if reduced else values
        rows = {k: read_at(sample.total, full, h, dim) for k, h in sample.rows().items()}
        wanted = {k: [h.squeeze(dim) if reduced else h] for k, h in rows.items()}
        result = sample.through(lambda x: function(x, *args, **kwargs), "identity-ratio")  # noqa: B023
        assert_total(result, plain)
        assert_rows(result, wanted)
        if not isinstance(plain, Tensor):
            assert torch.equal(result.total.indices, plain.indices)


@pytest.mark.parametrize("name", ["median", "nanmedian"])
def test_median_of_all(name: str) -> None:
    sample = Sample(3, 4, 5)
    place = sample.total.flatten().argsort()[29]  # the lower of the two in the middle of 60
    result = sample.through(lambda x: getattr(x, name)(), "identity-ratio")
    assert_rows(result, {k: [h.flatten()[place]] for k, h in sample.rows().items()})


TWO = ["maximum", "minimum", "fmax", "fmin", "max", "min"]


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("constant", [False, True])
def test_extremum_of_two_tensors(name: str, constant: bool) -> None:
    sample, other = Sample(3, 4, 5), Sample(4, 5, seed=7)
    value = other.total if constant else None
    first = sample.total > other.total
    first = first if "max" in name else ~first
    function = getattr(torch, name)

    def both(x: Tensor) -> Tensor:
        return function(x, value if constant else 0.5 * x[:1] + other.total)

    if not constant:
        second = 0.5 * sample.total[:1] + other.total
        first = sample.total > second if "max" in name else sample.total < second
    rows = {
        k: [torch.where(first, h, 0.0 if constant else 0.5 * h[:1])]
        for k, h in sample.rows().items()
    }
    rows["bias"] = [rows["bias"][0] + torch.where(first, 0.0, other.total)]
    result = sample.through(both, "identity-ratio")
    assert_total(result, both(sample.total))
    assert_rows(result, rows)
    plain_first = sample.through(
        lambda x: function(other.total.expand(3, 4, 5), x), "identity-ratio"
    )
    assert plain_first.residual < 1e-14


def test_the_larger_of_a_tensor_and_a_constant_is_relu() -> None:
    sample = Sample(3, 4, 5)
    zero = torch.zeros(()).double()
    clipped = sample.through(lambda x: torch.maximum(x, zero), "identity-ratio")
    assert_rows(sample.through(torch.relu, "identity-ratio"), rows_of(clipped))
