"""What functions that are not linear must give, by equations of their own.

A case is a call of (torch function, x, y), both tensors with parts of everything, and the part
that a row of them must have. Two sorts are told apart: ``Slope`` gives a row's part from that row
(eq. 9: the same for the bias); ``Multilinear`` states the function again in plain arithmetic, and
a modality's part is then f(own + bias) - f(bias), what it makes with itself and the bias
(appendix D.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.support.rule_oracle import normal

Call = Callable[[Any, Tensor, Tensor], Any]
GUARD = 0.1


@dataclass(frozen=True)
class Slope:
    """``part(x, y, h, k)`` for totals x, y and rows h, k of them."""

    call: Call
    part: Callable[[Tensor, Tensor, Tensor, Tensor], Any]


@dataclass(frozen=True)
class Multilinear:
    """``again(h, k, x, y)`` is linear in h and in k; totals x, y may be divisors."""

    call: Call
    again: Callable[[Tensor, Tensor, Tensor, Tensor], Any]


CONSTANT = normal(3, 4, seed=40).abs() + 0.5
SQUARE = normal(4, 4, seed=41)


def on_x(part: Callable[[Tensor, Tensor], Any], *args: Any, **kwargs: Any) -> Slope:
    """A function of one tensor."""
    return Slope(lambda f, x, y: f(x, *args, **kwargs), lambda x, y, h, k: part(x, h))


def variances(root: bool, with_mean: bool = False) -> list[Slope]:
    """Over all, one or several dimensions, biased or not; the defining sums."""

    def form(dims: tuple[int, ...], less: float, keepdim: bool) -> Callable[..., Any]:
        def part(x: Tensor, h: Tensor) -> Any:
            count = torch.tensor([x.shape[d] for d in dims]).prod() - less
            d, e = x - x.mean(dims, True), h - h.mean(dims, True)
            value = (d * e).sum(dims, keepdim) / count
            if root:
                value = value / ((d * d).sum(dims, keepdim) / count).sqrt()
            return [value, h.mean(dims, keepdim)] if with_mean else value

        return part

    return [
        on_x(form((0, 1, 2), 1, False)),
        on_x(form((1,), 1, False), 1),
        on_x(form((1,), 0, True), 1, False, True),
        on_x(form((0, 2), 0, True), (0, 2), correction=0, keepdim=True),
        on_x(form((0, 1, 2), 0, False), unbiased=False),
    ]


def norm_of(p: float, dims: Any, keepdim: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """sum |x|^(p - 1) sign(x) h over (sum |x|^p)^(1 - 1 / p)."""

    def part(x: Tensor, h: Tensor) -> Tensor:
        if p == float("inf"):
            flat = x.abs().flatten()
            return (x.sign() * h).flatten()[flat.argmax()]
        power = (x.abs() ** (p - 1) * x.sign() * h).sum(dims, keepdim)
        return power / ((x.abs() ** p).sum(dims, keepdim) ** (1 - 1 / p))

    return part


ALL = (0, 1, 2)
NORMS = [
    on_x(norm_of(2, ALL)),
    on_x(norm_of(1, ALL), 1),
    on_x(norm_of(3, (1,), True), 3, 1, True),
    on_x(norm_of(2, (1, 2)), 2, (1, 2)),
    on_x(norm_of(float("inf"), None), float("inf")),
]


def floored(x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
    """Slope of a step function: 0 near 0, else eq. 9."""
    return torch.where(x.abs() < GUARD, 0.0, step(x) / x)


def rest(step: Callable[[Tensor], Tensor]) -> list[Slope]:
    """x - c step(x / c)."""

    def part(c: Any) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, h: h - floored(x / c, step) * h

    return [on_x(part(0.7), 0.7), on_x(part(CONSTANT), CONSTANT)]


FLOORED = [
    on_x(lambda x, h: floored(x / 0.7, torch.floor) * h / 0.7, 0.7),
    on_x(lambda x, h: floored(x / CONSTANT, torch.floor) * h / CONSTANT, CONSTANT),
]


def both(again: Callable[..., Any], *more: Any, **kwargs: Any) -> Multilinear:
    """A function of both tensors."""
    return Multilinear(
        lambda f, x, y: f(x, y, *more, **kwargs), lambda h, k, x, y: again(h, k, x, y)
    )


def cosine(h: Tensor, k: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return (h * k).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def distances(p: float) -> Slope:
    """The norm of x - y."""
    form = norm_of(p, ALL)
    return Slope(lambda f, x, y: f(x, y, p), lambda x, y, h, k: form(x - y, h - k))


CLOSED_FORMS: dict[str, list[Slope | Multilinear]] = {
    "var": list(variances(False)),
    "std": list(variances(True)),
    "var_mean": list(variances(False, True)),
    "std_mean": list(variances(True, True)),
    "linalg_vector_norm": list(NORMS),
    "norm": [*NORMS, on_x(norm_of(2, (1,)), dim=1), on_x(norm_of(2, (1, 2)), "fro", (1, 2))],
    "linalg_norm": [
        on_x(norm_of(2, ALL)),
        on_x(norm_of(3, (1,)), 3, 1),
        on_x(norm_of(1, (0,)), 1, 0),
    ],
    "dist": [distances(2), distances(1), distances(3)],
    "pairwise_distance": [
        Slope(lambda f, x, y: f(x, y, 2.0, 0.0), lambda x, y, h, k: norm_of(2, (2,))(x - y, h - k))
    ],
    "cosine_similarity": [both(cosine, dim=-1)],
    "hypot": [
        Slope(lambda f, x, y: f(x, y), lambda x, y, h, k: (x * h + y * k) / torch.hypot(x, y))
    ],
    **{key: list(FLOORED) for key in ("floor_divide", "__floordiv__")},
    **{key: list(rest(torch.floor)) for key in ("remainder", "__mod__")},
    "fmod": list(rest(torch.trunc)),
}
CLOSED_FORMS["prod"] = [
    Multilinear(lambda f, x, y: f(x, 1), lambda h, k, x, y: h[:, 0] * h[:, 1] * h[:, 2]),
    Multilinear(lambda f, x, y: f(y, 0, True), lambda h, k, x, y: k[:1] * k[1:]),
    Multilinear(lambda f, x, y: f(x[0, 0]), lambda h, k, x, y: h[0, 0].cumprod(0)[-1]),
]

CLOSED_FORMS["cumprod"] = [
    Multilinear(
        lambda f, x, y: f(x, 1),
        lambda h, k, x, y: torch.stack([h[:, 0], h[:, 0] * h[:, 1], h.prod(1)], 1),
    )
]
CLOSED_FORMS["pdist"] = [
    Slope(
        lambda f, x, y: f(x[0]),
        lambda x, y, h, k: torch.stack(
            [norm_of(2, (0,))(x[0, i] - x[0, j], h[0, i] - h[0, j])
             for i, j in ((0, 1), (0, 2), (1, 2))]
        ),
    )
]  # fmt: skip
CLOSED_FORMS["cdist"] = [
    Slope(
        lambda f, x, y, p=p: f(x, y, p),
        lambda x, y, h, k, p=p: norm_of(p, (-1,))(
            x.unsqueeze(2) - y.unsqueeze(1), h.unsqueeze(2) - k.unsqueeze(1)
        ),
    )
    for p in (1.0, 2.0, 3.0)
]
CLOSED_FORMS["ldexp"] = [on_x(lambda x, h: 8.0 * h, torch.tensor(3.0).double())]
CLOSED_FORMS["copysign"] = [
    on_x(lambda x, h: -x.sign() * h, torch.tensor(-1.0).double()),
    on_x(lambda x, h: CONSTANT.sign() * x.sign() * h, CONSTANT),
]
CLOSED_FORMS["xlogy"] = [on_x(lambda x, h: h * CONSTANT.log(), CONSTANT)]
CLOSED_FORMS["special_xlog1py"] = [on_x(lambda x, h: h * CONSTANT.log1p(), CONSTANT)]

WEIGHT = normal(2, 4, 4, seed=42)

#: Rows of dimension 1 that the elements of another tensor go to.
LANDING = torch.tensor([1, 0, 1])
WIDE_LANDING = LANDING.reshape(1, 3, 1).expand(2, 3, 4)


def landed(h: Tensor, k: Tensor) -> Tensor:
    """Each row times all that goes there."""
    return torch.stack([h[:, 0] * k[:, 1], h[:, 1] * k[:, 0] * k[:, 2], h[:, 2]], 1)


def landed_alone(h: Tensor, k: Tensor) -> Tensor:
    """The same without what was there, unless nothing goes there."""
    return torch.stack([k[:, 1], k[:, 0] * k[:, 2], h[:, 2]], 1)


def corner(h: Tensor, k: Tensor) -> Tensor:
    """Products in the first image's first three columns only, by two rows."""
    made = h.clone()
    made[0, 0, :3] = h[0, 0, :3] * k[0, 1, :3]
    made[0, 1, :3] = h[0, 1, :3] * k[0, 0, :3]
    return made


#: Products of several decomposed tensors; x and y are (2, 3, 4).
PRODUCTS: dict[str, Multilinear] = {
    "addcmul": Multilinear(
        lambda f, x, y: torch.addcmul(x, y, x[:1], value=0.3),
        lambda h, k, x, y: h + 0.3 * k * h[:1],
    ),
    "addcmul_": Multilinear(
        lambda f, x, y: (x * 2.0).addcmul_(y, x), lambda h, k, x, y: 2.0 * h + k * h
    ),
    "addcdiv": Multilinear(
        lambda f, x, y: torch.addcdiv(x, y, x, value=2), lambda h, k, x, y: h + 2 * k / x
    ),
    "lerp": Multilinear(
        lambda f, x, y: torch.lerp(x, y, x[:, :1]), lambda h, k, x, y: h + h[:, :1] * (k - h)
    ),
    "lerp_": Multilinear(
        lambda f, x, y: (x + 1.0 - 1.0).lerp_(y, y), lambda h, k, x, y: h + k * (k - h)
    ),
    "addmm": Multilinear(
        lambda f, x, y: torch.addmm(x[0, :, :3], x[0], y[0].mT, beta=0.5, alpha=2),
        lambda h, k, x, y: 0.5 * h[0, :, :3] + 2 * h[0] @ k[0].mT,
    ),
    "addmm_": Multilinear(
        lambda f, x, y: (x[0, :, :3] * 1.0).addmm_(x[0], y[0].mT),
        lambda h, k, x, y: h[0, :, :3] + h[0] @ k[0].mT,
    ),
    "addmv": Multilinear(
        lambda f, x, y: torch.addmv(y[0, :, 0], x[0], y[1, 0]),
        lambda h, k, x, y: k[0, :, 0] + h[0] @ k[1, 0],
    ),
    "addr": Multilinear(
        lambda f, x, y: torch.addr(y[0], x[0, :, 0], y[1, 0]),
        lambda h, k, x, y: k[0] + h[0, :, :1] * k[1, 0],
    ),
    "baddbmm": Multilinear(
        lambda f, x, y: torch.baddbmm(x[..., :3], x, y.mT), lambda h, k, x, y: h[..., :3] + h @ k.mT
    ),
    "addbmm": Multilinear(
        lambda f, x, y: torch.addbmm(x[0, :, :3], x, y.mT),
        lambda h, k, x, y: h[0, :, :3] + (h @ k.mT).sum(0),
    ),
    "multi_dot": Multilinear(
        lambda f, x, y: torch.linalg.multi_dot([x[0], y[0].mT, x[1]]),
        lambda h, k, x, y: h[0] @ k[0].mT @ h[1],
    ),
    "chain_matmul": Multilinear(
        lambda f, x, y: torch.chain_matmul(x[0], SQUARE, y[0].mT),
        lambda h, k, x, y: h[0] @ SQUARE @ k[0].mT,
    ),
    "bilinear": Multilinear(
        lambda f, x, y: torch.nn.functional.bilinear(x, y, WEIGHT, WEIGHT[:, 0, 0]),
        lambda h, k, x, y: torch.stack(
            [((h @ WEIGHT[o]) * k).sum(-1) + WEIGHT[o, 0, 0]
             for o in range(2)], -1),
    ),
    "three factors": Multilinear(
        lambda f, x, y: torch.einsum("bij,bkj,bil->bkl", x, y, x),
        lambda h, k, x, y: (k @ h.mT) @ h,
    ),
    "three factors with an ellipsis": Multilinear(
        lambda f, x, y: torch.einsum("...ij,...j,ij", x, y[:, 0], y[0]),
        lambda h, k, x, y: ((h * k[0]).sum(1) * k[:, 0]).sum(-1),
    ),
    "four factors, one constant": Multilinear(
        lambda f, x, y: torch.einsum("bij,jk,bik,bik->bi", [x, SQUARE, y, x]),
        lambda h, k, x, y: ((h @ SQUARE) * k * h).sum(-1),
    ),
    "cross": Multilinear(
        lambda f, x, y: torch.cross(x, y, 1),
        lambda h, k, x, y: torch.stack(
            [h[:, 1] * k[:, 2] - h[:, 2] * k[:, 1], h[:, 2] * k[:, 0] - h[:, 0] * k[:, 2],
             h[:, 0] * k[:, 1] - h[:, 1] * k[:, 0]], 1),
    ),
    "vecdot": Multilinear(
        lambda f, x, y: torch.linalg.vecdot(x, y), lambda h, k, x, y: (h * k).sum(-1)
    ),
    "weight norm": Multilinear(
        lambda f, x, y: torch._weight_norm(x, y[:, :1, :1]),
        lambda h, k, x, y: h * k[:, :1, :1] / x.square().sum((1, 2), True).sqrt(),
    ),
    "scatter_reduce": Multilinear(
        lambda f, x, y: torch.scatter_reduce(x, 1, WIDE_LANDING, y, "prod"),
        lambda h, k, x, y: landed(h, k),
    ),
    "scatter_reduce without itself": Multilinear(
        lambda f, x, y: torch.scatter_reduce(x, 1, WIDE_LANDING, y, "prod", include_self=False),
        lambda h, k, x, y: landed_alone(h, k),
    ),
    "scatter_reduce of a corner": Multilinear(
        lambda f, x, y: torch.scatter_reduce(x, 1, WIDE_LANDING[:1, :2, :3], y, "prod"),
        lambda h, k, x, y: corner(h, k),
    ),
    "scatter_reduce_": Multilinear(
        lambda f, x, y: (x * 1.0).scatter_reduce_(1, WIDE_LANDING, y, "prod"),
        lambda h, k, x, y: landed(h, k),
    ),
    "scatter": Multilinear(
        lambda f, x, y: torch.scatter(x, 1, WIDE_LANDING, y, reduce="multiply"),
        lambda h, k, x, y: landed(h, k),
    ),
    "scatter_": Multilinear(
        lambda f, x, y: (y * 1.0).scatter_(1, WIDE_LANDING, 0.5, reduce="multiply"),
        lambda h, k, x, y: landed(k, torch.full_like(k, 0.5)),
    ),
    "index_reduce": Multilinear(
        lambda f, x, y: torch.index_reduce(x, 1, LANDING, y, "prod"),
        lambda h, k, x, y: landed(h, k),
    ),
    "index_reduce_": Multilinear(
        lambda f, x, y: (x * 1.0).index_reduce_(1, LANDING, y, "prod", include_self=False),
        lambda h, k, x, y: landed_alone(h, k),
    ),
    "segment_reduce": Multilinear(
        lambda f, x, y: torch.segment_reduce(
            y.transpose(0, 1).contiguous(), "prod", lengths=torch.tensor([2, 0, 1]), initial=2.0
        ),
        lambda h, k, x, y: torch.stack(
            [2.0 * k[:, 0] * k[:, 1], torch.full_like(k[:, 0], 2.0), 2.0 * k[:, 2]]
        ),
    ),
    "a quotient of both": Multilinear(lambda f, x, y: x / y, lambda h, k, x, y: h / y),
}  # fmt: skip
