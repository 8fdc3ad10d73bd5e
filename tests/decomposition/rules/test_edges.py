"""Linear and selecting operators on tensors without dimensions, without elements, and expanded
ones; NumPy's keywords; half precision; operators that no public function has a name for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition import LeakError, NoRuleError, decompose
from tests.support.rule_oracle import (
    Sample,
    affine_rows,
    assert_replayed,
    assert_rows,
    assert_total,
    normal,
    rows_of,
)

Case = Callable[[Tensor], Any]
ONE = torch.tensor([0])
LINE = torch.tensor([0, 2, 1])
SPARSE = normal(3, 4, seed=9).relu().to_sparse()
CSR = SPARSE.to_dense().to_sparse_csr()
SPARSE_MATRICES = {"COO": SPARSE, "CSR": CSR}
SPARSE_BATCH = torch.stack([SPARSE.to_dense(), SPARSE.to_dense() * 2.0]).to_sparse()
BIASES = normal(3, 3, seed=10)
SCALE = torch.eye(3).double() * 2.0 + 1.0


def check(call: Case, shape: tuple[int, ...], differentiable: bool = True) -> None:
    """Parts by the Jacobian, the total bit for bit, the program on its own."""
    sample = Sample(*shape)

    def function(camera: Tensor, radar: Tensor) -> Any:
        return call(camera + radar + sample.bias)

    options: dict[str, Any] = {"extras": sample.extras, "audit": "raise", "keep_maps": True}
    result = decompose(function, sample.parts, **options)
    assert_total(result, function(**sample.parts))
    assert_replayed(sample.parts, result)
    if differentiable:
        assert_rows(result, affine_rows(function, sample.parts, sample.extras))


WITHOUT_DIMENSIONS: dict[str, Case] = {
    "sum": lambda x: x.sum(),
    "sum along one": lambda x: x.sum(0),
    "mean": lambda x: x.mean(-1),
    "cumsum": lambda x: x.cumsum(0),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1),
    "index_select": lambda x: x.index_select(0, ONE),
    "gather": lambda x: x.gather(0, torch.tensor([0])),
    "take": lambda x: x.take(ONE),
    "repeat": lambda x: x.repeat(3, 2),
    "mask": lambda x: x[torch.tensor(True)],
    "masked_select": lambda x: x.masked_select(torch.tensor([True, False, True])),
    "max": lambda x: x.max(),
    "max along one": lambda x: x.max(0),
    "amax": lambda x: x.amax(keepdim=True),
    "aminmax": lambda x: x.aminmax(dim=0),
    "sort": lambda x: x.sort(),
    "topk": lambda x: x.topk(1),
    "kthvalue": lambda x: x.kthvalue(1),
    "cummax": lambda x: x.cummax(0),
    "median": lambda x: x.median(),
    "maximum": lambda x: torch.maximum(x, torch.zeros(3).double()),
    "scatter": lambda x: torch.scatter(x, 0, torch.tensor(0), x * 2),
    "index_add": lambda x: torch.index_add(x, 0, torch.tensor(0), x * 3),
    "index_fill": lambda x: torch.index_fill(x, 0, torch.tensor(0), 3.0),
    "scatter_reduce": lambda x: torch.scatter_reduce(x, 0, torch.tensor(0), x * 3, "amax"),
    "quantile": lambda x: x.quantile(0.5),
}


@pytest.mark.parametrize("name", WITHOUT_DIMENSIONS)
def test_without_dimensions(name: str) -> None:
    check(WITHOUT_DIMENSIONS[name], (), differentiable=name not in ("cummax", "scatter_reduce"))


WITHOUT_ELEMENTS: dict[str, Case] = {
    "sum": lambda x: x.sum(0),
    "cumsum": lambda x: x.cumsum(0),
    "flip": lambda x: x.flip(0, 1),
    "index": lambda x: x[:, torch.tensor([0, 1])],
    "mask": lambda x: x[x > 0],
    "gather": lambda x: x.gather(1, torch.zeros(0, 2, 4).long()),
    "max": lambda x: x.max(1),
    "amax": lambda x: x.amax((1, 2)),
    "sort": lambda x: x.sort(0),
    "topk": lambda x: x.topk(2),
    "pad": lambda x: F.pad(x, (1, 1), value=2.0),
    "reflected": lambda x: F.pad(x, (1, 1), "reflect"),
    "copy": lambda x: x.clone().transpose(0, 1).contiguous(),
    "repeat": lambda x: x.repeat(2, 1, 1),
    "average": lambda x: F.avg_pool2d(x[:, None], 2),
    "largest": lambda x: F.max_pool2d(x[:, None], 2),
    "interpolate": lambda x: F.interpolate(x[:, None], scale_factor=2),
    "scatter_add": lambda x: torch.scatter_add(x, 1, torch.zeros(0, 3, 4).long(), x),
    "scatter_reduce": lambda x: torch.scatter_reduce(
        normal(2, 3, 4), 0, torch.zeros(0, 3, 4).long(), x, "amax"
    ),
    "index_add": lambda x: torch.index_add(normal(2, 3, 4), 0, torch.zeros(0).long(), x),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, x),
    "maximum": lambda x: torch.maximum(x, x * 2),
    "concatenation": lambda x: torch.cat([x, x]),
}


@pytest.mark.parametrize("name", WITHOUT_ELEMENTS)
def test_without_elements(name: str) -> None:
    check(WITHOUT_ELEMENTS[name], (0, 3, 4), differentiable=False)


def expanded(x: Tensor) -> Tensor:
    return x[:, :1].expand(2, 5, 4)


OTHERS: dict[str, Case] = {
    "axis of a sum": lambda x: x.sum(axis=(0, 2), keepdims=True),
    "axis of a mean": lambda x: x.mean(axis=1, keepdims=True),
    "axis of a cumulative sum": lambda x: x.cumsum(axis=0),
    "axis of a maximum": lambda x: x.amax(axis=(0, 1)),
    "axis of an order": lambda x: x.sort(axis=0)[0],
    "axis of a transform": lambda x: torch.fft.fft(x, axis=1).imag,
    "expanded, copied": lambda x: expanded(x).clone(),
    "expanded, written to": lambda x: torch.index_put(
        expanded(x), (ONE,), torch.ones(5, 4).double()
    ),
    "expanded, pooled": lambda x: F.avg_pool2d(expanded(x)[None], 2),
    "expanded, selected": lambda x: expanded(x).max(2)[0],
    "another layout": lambda x: x[None].to(memory_format=torch.channels_last).mean((2, 3)),
    "indices apart": lambda x: x[[0, 1], :, [2, 3]],
    "a mask and indices apart": lambda x: x[torch.tensor([True, False]), :, ONE],
    "a mask of bytes": lambda x: x[torch.tensor([1, 0]).bool(), 1],
    "rotated by default": lambda x: x.rot90(),
    "rolled as a whole": lambda x: x.roll(3),
    "a permuted copy": lambda x: torch.permute_copy(x, (2, 0, 1)),
    "a strided copy": lambda x: torch.as_strided_copy(x * 2.0, (2, 2), (1, 4)),
    "copies of slices": lambda x: torch.split_copy(x, 2, 1),
    "a copied diagonal": lambda x: torch.diagonal_copy(x, 0, 1, 2),
    "bags": lambda x: F.embedding_bag(torch.tensor([[0, 1], [1, 2]]), x[0], mode="sum"),
    "mean bags": lambda x: F.embedding_bag(
        torch.tensor([0, 1, 1, 2]), x[0], torch.tensor([0, 3]), mode="mean"
    ),
    "weights of bags": lambda x: F.embedding_bag(
        torch.tensor([[0, 1], [1, 2]]), normal(3, 5), mode="sum", per_sample_weights=x[0, :2, :2]
    ),
    "equations": lambda x: torch.linalg.solve(SCALE, x),
    "equations from the right": lambda x: torch.linalg.solve(SCALE, x.mT, left=False),
    "triangular equations": lambda x: torch.linalg.solve_triangular(SCALE.triu(), x, upper=True),
    "factored equations": lambda x: torch.cholesky_solve(x, SCALE.tril().expand(2, 3, 3)),
    "a circular frame": lambda x: F.pad(x, (1, 1), "circular"),
    "a reflected volume": lambda x: F.pad(x[None, None], (1, 1, 1, 1, 1, 1), "reflect"),
    "put back where it was": lambda x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2),
    "smallest and largest": lambda x: x.aminmax(dim=1, keepdim=True),
    "quantiles": lambda x: x.quantile(torch.tensor([0.2, 0.7]).double(), 1),
    "a quantile of all": lambda x: torch.quantile(x, 0.25, interpolation="nearest"),
    "NaN loses": lambda x: torch.fmax(x, torch.full((4,), torch.nan).double()),
    "real numbers as complex ones": lambda x: (x.to(torch.complex128) * 1j).imag.clone(),
    **{
        f"{name} matrices": lambda x, s=sparse: (  # type: ignore[misc]
            s @ x[0].mT,
            x[1, :, :3] @ s,
            torch.sparse.mm(s, x[0].mT),
            torch.sparse.addmm(x[0, :, :3], s, x[1].mT, beta=0.5, alpha=2.0),
            torch.addmm(BIASES, s, x[1].mT),
            s @ x[0, 0],
            x[0] + s,
        )
        for name, sparse in SPARSE_MATRICES.items()
    },
    "a batch of sparse matrices": lambda x: torch.bmm(SPARSE_BATCH, x.mT),
    "sums of a sparse matrix's products": lambda x: torch.sparse.mm(CSR, x[0].mT, "sum"),
    "means of a sparse matrix's products": lambda x: torch.sparse.mm(CSR, x[0].mT, "mean"),
    "conjugates": lambda x: torch.complex(x, x * 2.0).conj().imag.clone(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str) -> None:
    """Operators whose call needs arguments of its own, on plain shapes."""
    check(OTHERS[name], (2, 3, 4))


def test_sums_by_number_and_by_segment() -> None:
    lengths = torch.tensor([1, 1])
    number = torch.tensor([0, 2, 2, 1])
    check(lambda x: torch.bincount(number, x[0, 0]), (2, 3, 4), differentiable=False)
    for kind in ("sum", "mean"):
        check(lambda x: torch.segment_reduce(x, kind, lengths=lengths), (2, 3, 4))  # noqa: B023
    sample = Sample(4)
    result = sample.through(lambda x: torch.bincount(number, x), "identity-ratio")
    rows = {name: [torch.bincount(number, h)] for name, h in sample.rows().items()}
    assert_rows(result, rows)


@pytest.mark.parametrize("initial", [None, 0.1])
@pytest.mark.parametrize("reduce", ["max", "min"])
def test_extremes_of_segments(reduce: str, initial: float | None) -> None:
    lengths, offsets = torch.tensor([[1, 2], [3, 0]]), torch.tensor([1, 1, 2])
    options: dict[str, Any] = {"initial": initial}
    if initial is None:  # nothing at all is infinite
        lengths, offsets = torch.tensor([[1, 2], [2, 1]]), torch.tensor([0, 1, 2])
    check(lambda x: torch.segment_reduce(x, reduce, lengths=lengths, axis=1, **options), (2, 3, 4))
    check(lambda x: torch.segment_reduce(x, reduce, offsets=offsets, **options), (2, 3, 4))


def test_the_first_among_equals_of_a_segment() -> None:
    camera, radar = torch.tensor([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]]).double()
    result = decompose(
        lambda camera, radar: torch.segment_reduce(camera + radar, "max", lengths=ONE + 3),
        {"camera": camera, "radar": radar},
    )
    assert (result.parts["camera"], result.parts["radar"]) == (camera[:1], radar[:1])


#: What an activation gives where a constant made its input -inf: a constant, and finite parts.
INFINITE = torch.tensor([0.0, -torch.inf, 0.0, 0.0]).double()


def assigned(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = -torch.inf
    return x


def canvas(x: Tensor) -> Tensor:
    made = torch.full((2, 3, 4), -torch.inf).double()
    made[:, 1:] = x[:, 1:]
    return made


MASKED: dict[str, Case] = {
    "sum": lambda x: x + INFINITE,
    "concatenation": lambda x: torch.cat([x, INFINITE.expand(2, 1, 4)], 1),
    "choice": lambda x: torch.where(INFINITE < 0, INFINITE, x),
    "fill": lambda x: x.masked_fill(INFINITE < 0, -torch.inf),
    "assignment": assigned,
    "canvas": canvas,
    "frame": lambda x: F.pad(x, (1, 1), value=-torch.inf),
    "scattered into": lambda x: torch.full((2, 3, 4), -torch.inf).double().scatter(1, PLACES, x),
    "filled slices": lambda x: x.index_fill(1, ONE, -torch.inf),
    "selected": lambda x: (x + INFINITE).topk(4)[0],
    "pooled": lambda x: F.max_pool1d(x + INFINITE, 2, 1),
    "gathered": lambda x: (x + INFINITE).flip(1).roll(1, 2)[:, :, [1, 1, 2]],
}
PLACES = torch.tensor([0, 1]).reshape(1, 2, 1).expand(2, 2, 4)


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("activation", [torch.relu, torch.sigmoid, torch.exp])
def test_infinite_constants_leave_finite_parts(name: str, activation: Any) -> None:
    sample = Sample(2, 3, 4)
    result = sample.through(lambda x: activation(MASKED[name](x)), "identity-ratio")
    assert torch.isfinite(result.total).all()
    assert all(torch.isfinite(row[0]).all() for row in rows_of(result).values())
    assert result.residual < 1e-14


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_each_part(dtype: torch.dtype) -> None:
    camera, radar = (normal(1, 2, 4, 4, seed=s).to(dtype) for s in (0, 1))
    calls: list[Case] = [
        lambda x: x.flip(-1),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.interpolate(x, (3, 3), mode="bilinear"),
        lambda x: F.max_pool2d(x, 2),
        lambda x: x.amax(1),
    ]
    for call in calls:
        result = decompose(
            lambda camera, radar: call(camera + radar),  # noqa: B023
            {"camera": camera, "radar": radar},
        )
        assert result.total.dtype == result.parts["camera"].dtype == dtype
        assert result.residual < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda x: torch.linalg.solve(x[..., :3], x), "not linear in the matrix"),
        (lambda x: torch.sparse.mm(SPARSE.float(), x[0].mT.float(), "amax"), "scatter_reduce"),
        (lambda x: SPARSE * x[0], "its result is sparse"),
        (lambda x: x.clone().resize_(3), "the size of memory"),
        (lambda x: torch.zeros(3).double().resize_as_(x), "the size of memory"),
        (lambda x: F.embedding_bag(ONE, x[0], ONE, mode="max"), "torch.amax"),
        (lambda x: F.embedding(ONE, x[0] * 1.0, max_norm=1.0), "max_norm rescales"),
        (lambda x: torch.embedding_renorm_(x[0] * 1.0, ONE, 1.0, 2.0), "max_norm"),
        (lambda x: torch.view_copy(x, torch.int64), "another type|no rule"),
    ],
)
def test_refused(call: Case, why: str) -> None:
    with pytest.raises((NoRuleError, LeakError), match=why):
        decompose(lambda camera: call(camera * 1.0), {"camera": normal(2, 3, 4)})
