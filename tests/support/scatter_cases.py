"""How the oracle calls what writes one tensor into another: one entry for each name, as in
:mod:`joining_cases`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.linear_cases import INDEX, MASK, ROWS
from tests.support.rule_oracle import normal

Case = Callable[[Any, Tensor, Tensor], Any]

PLAIN = normal(2, 3, 4, seed=30)
OFFSET = normal(2, 3, 4, seed=31)
# Rows to write to, in dimension 1; (2, 2, 4) without and (2, 4, 4) with repetitions.
UNIQUE_INDEX = torch.tensor([[2, 0], [1, 2]]).unsqueeze(-1).expand(2, 2, 4)
CUBE_INDEX = INDEX.unsqueeze(-1).expand(2, 4, 4)
NARROW_INDEX = CUBE_INDEX[:1, :3, :2]


def fresh(camera: Tensor, radar: Tensor) -> Tensor:
    """A new tensor with parts of both modalities and of the bias."""
    return camera + 2.0 * radar + OFFSET


def scatters(first: Callable[[Tensor, Tensor], Tensor]) -> dict[str, list[Case]]:
    """Calls shared by the two forms; ``first`` makes what is scattered into."""

    def called(*args: Any, **kwargs: Any) -> Case:
        def run(f: Any, c: Tensor, r: Tensor) -> Any:
            filled = [a(c, r) if callable(a) else a for a in args]
            return f(first(c, r), *filled, **kwargs)

        return run

    tall = lambda c, r: torch.cat([c, r], 1)[:, :4]  # noqa: E731  (2, 4, 4)
    radar, plain, whole = (lambda c, r: r), PLAIN, fresh
    return {
        "index_add": [
            called(0, ROWS[:2], radar),
            called(0, ROWS[:2], plain, alpha=1.7),
            called(0, ROWS[:2], radar, alpha=-0.3),
            called(1, ROWS, whole, alpha=2),
        ],
        "index_copy": [called(0, ROWS[:2], radar), called(0, ROWS[:2], plain)],
        "scatter": [
            called(1, UNIQUE_INDEX, lambda c, r: r[:, 1:]),
            called(1, UNIQUE_INDEX, 0.3),
            called(1, UNIQUE_INDEX, 2),
            called(1, UNIQUE_INDEX, value=3),
            called(1, index=UNIQUE_INDEX, src=plain[:, :2]),
        ],
        "scatter_add": [called(1, CUBE_INDEX, tall), called(1, CUBE_INDEX[:, :3], plain)],
        "masked_scatter": [called(MASK, radar), called(MASK, plain), called(PLAIN > 0, whole)],
    }


OUT_OF_PLACE = scatters(lambda c, r: c)
INPLACE = scatters(fresh)
SCATTER: dict[str, list[Case]] = {
    **OUT_OF_PLACE,
    **{f"{name}_": cases for name, cases in INPLACE.items()},
    "slice_scatter": [
        lambda f, c, r: f(c, r[:, :2], 1, 0, 2),
        lambda f, c, r: f(PLAIN, r[:1], dim=0, start=1),
    ],
    "select_scatter": [lambda f, c, r: f(c, r[:, 0], 1, 2), lambda f, c, r: f(c, PLAIN[0], 0, 1)],
    "diagonal_scatter": [
        lambda f, c, r: f(c[0], r[0].diagonal()),
        lambda f, c, r: f(PLAIN[0], r[1, :, 0]),
    ],
}


def tall(camera: Tensor, radar: Tensor) -> Tensor:
    """Both, one under the other (2, 4, 4)."""
    return torch.cat([camera, radar], 1)[:, :4]


def extremes(call: Callable[..., Any]) -> list[Case]:
    """The larger and the smaller of all that goes to one place, with or without what is there."""
    return [
        lambda f, c, r, how=how, own=own: call(f, c, r, how, include_self=own)
        for how in ("amax", "amin")
        for own in (True, False)
    ]


REDUCED: dict[str, list[Case]] = {
    "index_fill": [
        lambda f, c, r: f(c, 1, ROWS, 0.3),
        lambda f, c, r: f(fresh(c, r), 0, ROWS[:1], 2),
        lambda f, c, r: f(c, 1, ROWS, r[0, 0, 0]),
    ],
    "index_put": [
        lambda f, c, r: f(c, (ROWS,), r[:1].expand(3, 3, 4), True),
        lambda f, c, r: f(c, (ROWS[:2], ROWS[:2]), PLAIN[0, :2]),
        lambda f, c, r: f(fresh(c, r), (MASK.expand(2, 3, 4),), torch.tensor(0.3).double()),
        lambda f, c, r: f(PLAIN, (ROWS[:2],), r, accumulate=False),
    ],
    "scatter_reduce": [
        lambda f, c, r: f(c, 1, CUBE_INDEX[:, :3], r, "sum"),
        lambda f, c, r: f(fresh(c, r), 1, CUBE_INDEX[:, :3], PLAIN, reduce="mean"),
        lambda f, c, r: f(PLAIN, 1, CUBE_INDEX[:, :3], r, "mean", include_self=False),
        *extremes(lambda f, c, r, how, **more: f(c, 1, CUBE_INDEX[:, :3], r, how, **more)),
        *extremes(lambda f, c, r, how, **more: f(PLAIN, 1, CUBE_INDEX, tall(c, r), how, **more)),
        *extremes(lambda f, c, r, how, **more: f(c, 0, CUBE_INDEX[:, :3] % 2, r, how, **more)),
    ],
    "index_reduce": [
        lambda f, c, r: f(c, 0, ROWS[:2], r, "mean"),
        lambda f, c, r: f(fresh(c, r), 1, ROWS, PLAIN, "mean", include_self=False),
        *extremes(lambda f, c, r, how, **more: f(c, 1, ROWS, r, how, **more)),
        *extremes(lambda f, c, r, how, **more: f(PLAIN, 2, ROWS, c[..., :3], how, **more)),
    ],
    "put": [
        lambda f, c, r: f(c, torch.tensor([[3, -1], [7, 0]]), r[0, 0, :].reshape(2, 2)),
        lambda f, c, r: f(fresh(c, r), torch.tensor([3, 3]), PLAIN[0, 0, :2], accumulate=True),
        lambda f, c, r: f(PLAIN, torch.tensor([5]), r[0, 0, :1]),
    ],
}
#: Those whose derivative torch does not have, or has wrong.
NOT_DIFFERENTIABLE: dict[str, list[Case]] = {
    "scatter": [
        lambda f, c, r: f(c, 1, CUBE_INDEX[:, :3], r, reduce="add"),
        lambda f, c, r: f(fresh(c, r), 1, UNIQUE_INDEX, 0.3, reduce="add"),
    ],
    "as_strided_scatter": [
        lambda f, c, r: f(c, r[0], (3, 4), (4, 1), 12),
        lambda f, c, r: f(fresh(c, r).mT, PLAIN[0, :2], (2, 4), (1, 3)),
    ],
    "scatter_reduce": extremes(
        lambda f, c, r, how, **more: f(fresh(c, r), 1, NARROW_INDEX, PLAIN, how, **more)
    ),
}
