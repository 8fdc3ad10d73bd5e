"""How the oracle calls sums, products, scatters and in-place writes: one entry for each name.

A case is a function of (torch function, camera, radar), both of shape (2, 3, 4). What is written
in place is made by :func:`fresh`, so that no input is written to; ``x`` has every part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.linear_cases import MASK, ROWS
from tests.support.rule_oracle import normal
from tests.support.scatter_cases import OFFSET, PLAIN, REDUCED, SCATTER, Case, fresh


def binary(*more: Any) -> list[Case]:
    """Two decomposed operands, a plain one on either side, a number, broadcasting."""
    return [
        lambda f, c, r: f(c, r),
        lambda f, c, r: f(fresh(c, r), r[:1, :, :1]),
        lambda f, c, r: f(c, PLAIN),
        lambda f, c, r: f(c[0], PLAIN),
        lambda f, c, r: f(c, 0.3),
        *more,
    ]


def with_alpha() -> list[Case]:
    return binary(
        lambda f, c, r: f(c, r, alpha=3),
        lambda f, c, r: f(fresh(c, r), PLAIN, alpha=-0.7),
        lambda f, c, r: f(c, other=r),
    )


def plain_first() -> list[Case]:
    return [lambda f, c, r: f(PLAIN, c), lambda f, c, r: f(PLAIN[:1], fresh(c, r))]


def inplace(*arguments: Callable[[Tensor, Tensor], tuple[Any, ...]], **kwargs: Any) -> list[Case]:
    """``f(x, ...)`` on a fresh ``x``; both the result and ``x`` are looked at."""

    def case(make: Callable[[Tensor, Tensor], tuple[Any, ...]]) -> Case:
        def run(function: Any, camera: Tensor, radar: Tensor) -> Any:
            x = fresh(camera, radar)
            result = function(x, *make(camera, radar), **kwargs)
            return x if result is None else (x, result)

        return run

    return [case(make) for make in arguments]


ADD_INPLACE = [
    *inplace(lambda c, r: (c,), lambda c, r: (PLAIN,), lambda c, r: (0.3,), lambda c, r: (r[0],)),
    lambda f, c, r: f(c * 2.0, PLAIN),
    lambda f, c, r: f(c * 2.0, r),
]
ALPHA_INPLACE = [
    *ADD_INPLACE,
    *inplace(lambda c, r: (c,), lambda c, r: (PLAIN,), lambda c, r: (2,), alpha=3),
]

SUM: dict[str, list[Case]] = {
    **{name: with_alpha() for name in ("add", "sub", "subtract")},
    "__add__": binary(*plain_first()),
    "__radd__": binary(),
    "__sub__": binary(*plain_first()),
    "__rsub__": binary(),
    "rsub": binary(lambda f, c, r: f(c, PLAIN, alpha=2)),
    **dict.fromkeys(("add_", "sub_", "subtract_"), ALPHA_INPLACE),
    **dict.fromkeys(("__iadd__", "__isub__"), ADD_INPLACE),
    **{
        name: [
            lambda f, c, r: f([c, r], 1),
            lambda f, c, r: f([c, r, fresh(c, r)], dim=-1),
            lambda f, c, r: f((c, PLAIN), 0),
            lambda f, c, r: f([c[:1], r[1:], c]),
            lambda f, c, r: f(tensors=[r, c], dim=1),
        ]
        for name in ("cat", "concat", "concatenate")
    },
    "stack": [
        lambda f, c, r: f([c, r]),
        lambda f, c, r: f([c, PLAIN, fresh(c, r)], dim=-1),
    ],
    **{
        name: [lambda f, c, r: f([c, r]), lambda f, c, r: f((PLAIN, fresh(c, r)))]
        for name in ("hstack", "vstack", "dstack", "column_stack", "row_stack")
    },
    "torch.where": [
        lambda f, c, r: f(MASK, c, r),
        lambda f, c, r: f(MASK, 0.3, r),
        lambda f, c, r: f(c.detach() > 0, fresh(c, r), PLAIN),
        lambda f, c, r: f(MASK, c[:1], 0),
        lambda f, c, r: f(MASK, input=c, other=r),
    ],
    "torch.Tensor.where": [
        lambda f, c, r: f(c, MASK, r),
        lambda f, c, r: f(PLAIN, MASK, c),
        lambda f, c, r: f(c, MASK, 2.0),
    ],
    "masked_fill": [
        lambda f, c, r: f(c, MASK, 0.3),
        lambda f, c, r: f(fresh(c, r), MASK, -1),
        lambda f, c, r: f(c, MASK, torch.tensor(0.2, dtype=torch.float64)),
        lambda f, c, r: f(c, MASK, r[0, 0, 0]),
        lambda f, c, r: f(PLAIN, MASK, r[0, 0, 0]),
    ],
    "masked_fill_": [
        *inplace(lambda c, r: (MASK, 0.3), lambda c, r: (MASK, 2)),
        lambda f, c, r: f(c * 1.0, MASK, 0.3),
    ],
    "__setitem__": inplace(
        lambda c, r: (0, 0.3),
        lambda c, r: ((slice(None), 1), c[:, 0]),
        lambda c, r: ((Ellipsis, ROWS[:2]), r[..., :2]),
        lambda c, r: ((slice(None), MASK), 2),
        lambda c, r: (PLAIN > 0, 0.1),
        lambda c, r: ((0, MASK), c[0, 0, 0]),
        lambda c, r: (slice(1, 2), PLAIN[1:]),
        lambda c, r: ([0, 1], c[[1, 0]]),
        lambda c, r: (PLAIN > 0, c.flatten()[: int((PLAIN > 0).sum())]),
    ),
    "copy_": inplace(lambda c, r: (c,), lambda c, r: (PLAIN,), lambda c, r: (r[0],)),
    "zero_": inplace(lambda c, r: ()),
    "fill_": inplace(
        lambda c, r: (0.3,), lambda c, r: (torch.tensor(2.0),), lambda c, r: (r[0, 0, 0],)
    ),
}


def scaling(*more: Case) -> list[Case]:
    return [
        lambda f, c, r: f(c, 1.7),
        lambda f, c, r: f(fresh(c, r), PLAIN),
        lambda f, c, r: f(c[0], PLAIN),
        lambda f, c, r: f(c, PLAIN[0, 0]),
        lambda f, c, r: f(c, 3),
        *more,
    ]


PRODUCT: dict[str, list[Case]] = {
    **{
        name: scaling(lambda f, c, r: f(PLAIN, c), lambda f, c, r: f(PLAIN[0, 0], fresh(c, r)))
        for name in ("mul", "multiply", "__mul__")
    },
    "__rmul__": scaling(),
    **{
        name: scaling(lambda f, c, r: f(c, other=PLAIN))
        for name in ("div", "divide", "true_divide")
    },
    "__truediv__": scaling(),
    **{
        name: inplace(lambda c, r: (1.7,), lambda c, r: (PLAIN,), lambda c, r: (PLAIN[0, 0],))
        for name in (
            *("mul_", "multiply_", "div_", "divide_", "true_divide_"),
            *("__imul__", "torch.Tensor.__itruediv__"),
        )
    },
    **{name: inplace(lambda c, r: ()) for name in ("neg_", "negative_")},
    **{
        name: [lambda f, c, r: f(fresh(c, r), normal(4, 5)), lambda f, c, r: f(normal(2, 6, 3), c)]
        for name in ("matmul", "__matmul__", "torch.linalg.matmul")
    },
    "__rmatmul__": [lambda f, c, r: f(fresh(c, r), normal(2, 6, 3))],
    **{
        name: [
            lambda f, c, r: f(fresh(c, r)[0], normal(4, 5)),
            lambda f, c, r: f(normal(5, 3), c[1]),
        ]
        for name in ("mm", "spmm")
    },
    "bmm": [lambda f, c, r: f(fresh(c, r), normal(2, 4, 5)), lambda f, c, r: f(normal(2, 5, 3), c)],
    "mv": [lambda f, c, r: f(fresh(c, r)[0], normal(4)), lambda f, c, r: f(normal(5, 4), c[0, 0])],
    "dot": [lambda f, c, r: f(fresh(c, r)[0, 0], normal(4)), lambda f, c, r: f(normal(4), c[0, 0])],
    "inner": [lambda f, c, r: f(fresh(c, r), normal(5, 4)), lambda f, c, r: f(normal(5, 4), c)],
    **{
        name: [
            lambda f, c, r: f(fresh(c, r)[0, 0], normal(3)),
            lambda f, c, r: f(normal(3), c[0, 0]),
        ]
        for name in ("outer", "ger")
    },
    "cross": [lambda f, c, r: f(fresh(c, r), PLAIN, 1), lambda f, c, r: f(PLAIN, c, dim=1)],
    "linalg_cross": [lambda f, c, r: f(fresh(c, r), PLAIN, dim=1)],
    "linalg_vecdot": [lambda f, c, r: f(fresh(c, r), PLAIN), lambda f, c, r: f(PLAIN, c, dim=0)],
    "vdot": [lambda f, c, r: f(fresh(c, r)[0, 0], normal(4))],
    "tensordot": [
        lambda f, c, r: f(fresh(c, r), normal(3, 4, 2), dims=([1, 2], [0, 1])),
        lambda f, c, r: f(normal(5, 2), c, dims=1),
    ],
    "kron": [
        lambda f, c, r: f(fresh(c, r)[0], normal(2, 2)),
        lambda f, c, r: f(normal(2, 2), c[0]),
    ],
    "einsum": [
        lambda f, c, r: f("bij,jk->bik", fresh(c, r), normal(4, 5)),
        lambda f, c, r: f("jk,bij->ki", normal(4, 5), c),
        lambda f, c, r: f("bij,jk", [c, normal(4, 2)]),
        lambda f, c, r: f("bii->bi", fresh(c, r)[:, :, :3]),
    ],
}  # fmt: skip


def accumulated(shape: Callable[[Tensor], Tensor], *products: Callable[[Tensor, Tensor], Any]):  # type: ignore[no-untyped-def]
    """``f(input, a, b)`` with a decomposed or plain input, and with decomposed or plain factors."""
    cases: list[Case] = []
    for make in products:
        cases += [
            lambda f, c, r, m=make: f(shape(PLAIN), *m(fresh(c, r), PLAIN)),
            lambda f, c, r, m=make: f(shape(r), *m(PLAIN, c), beta=0.5, alpha=2),
            lambda f, c, r, m=make: f(shape(fresh(c, r)), *m(PLAIN, OFFSET), alpha=-1),
        ]
    return cases


def written(cases: list[Case]) -> list[Case]:
    """The same in place; a plain target is refused, so every target is made decomposed."""

    def case(make: Case) -> Case:
        def run(f: Any, c: Tensor, r: Tensor) -> Any:
            def onto(x: Tensor, *args: Any, **kwargs: Any) -> Any:
                return f(x + 0.0 * c.sum(), *args, **kwargs)

            return make(onto, c, r)

        return run

    return [case(make) for make in cases]


ACCUMULATED: dict[str, list[Case]] = {
    "addmm": accumulated(lambda x: x[0, :, :3], lambda a, b: (a[0], b[1].mT)),
    "baddbmm": accumulated(lambda x: x[..., :3], lambda a, b: (a, b.mT)),
    "addbmm": accumulated(lambda x: x[0, :, :3], lambda a, b: (a, b.mT)),
    "addmv": accumulated(lambda x: x[0, :, 0], lambda a, b: (a[0], b[0, 1])),
    "addr": accumulated(lambda x: x[0], lambda a, b: (a[0, :, 0], b[0, 1])),
    "addcmul": [
        lambda f, c, r: f(c, r, PLAIN, value=0.3),
        lambda f, c, r: f(PLAIN, OFFSET, fresh(c, r)),
        lambda f, c, r: f(fresh(c, r), PLAIN, OFFSET[0]),
    ],
    "addcdiv": [
        lambda f, c, r: f(c, r, PLAIN, value=0.3),
        lambda f, c, r: f(PLAIN, fresh(c, r), OFFSET),
        lambda f, c, r: f(fresh(c, r), PLAIN, OFFSET[0]),
    ],
    "lerp": [
        lambda f, c, r: f(c, r, 0.3),
        lambda f, c, r: f(fresh(c, r), PLAIN, OFFSET),
        lambda f, c, r: f(PLAIN, c, 0.7),
        lambda f, c, r: f(PLAIN, OFFSET, r),
    ],
    "nan_to_num": [lambda f, c, r: f(fresh(c, r))],
}
NEW: dict[str, list[Case]] = {
    **ACCUMULATED,
    **REDUCED,
    **{f"{name}_": written(cases) for name, cases in ACCUMULATED.items()},
    **{f"{name}_": written(cases) for name, cases in REDUCED.items()},
    "masked_select": [
        lambda f, c, r: f(fresh(c, r), MASK),
        lambda f, c, r: f(c[:, :, :1], PLAIN > 0),
    ],
    "complex": [lambda f, c, r: torch.view_as_real(f(c, fresh(c, r))),
                lambda f, c, r: torch.view_as_real(f(PLAIN, c) * torch.complex(PLAIN, OFFSET))],
    "block_diag": [lambda f, c, r: f(c[0], PLAIN[0, 0], fresh(c, r)[1], torch.ones(()).double())],
    "broadcast_tensors": [lambda f, c, r: f(c[:, :1], r[0], PLAIN[..., :1])],
    "meshgrid": [
        lambda f, c, r: f(c[0, 0], r[0, :, 0], PLAIN[:, 0, 0], indexing="ij"),
        lambda f, c, r: f([c[0, 0], r[0, :, 0]], indexing="xy"),
    ],
    "linalg_multi_dot": [lambda f, c, r: f([PLAIN[0], fresh(c, r)[0].mT, OFFSET[1]])],
    "chain_matmul": [lambda f, c, r: f(PLAIN[0], fresh(c, r)[0].mT, OFFSET[1])],
    "bilinear": [
        lambda f, c, r: f(fresh(c, r), PLAIN, normal(5, 4, 4), normal(5)),
        lambda f, c, r: f(OFFSET, c, normal(5, 4, 4)),
    ],
}  # fmt: skip

CASES = {**SUM, **SCATTER, **PRODUCT, **NEW}
