"""The bias followed by itself, through products of features too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lmd_cli.decomposition import decompose, decompose_bias
from lmd_cli.decomposition.linearised.program import products_of, products_of_features
from lmd_cli.decomposition.maps import Stack
from lmd_cli.decomposition.memory import Buffer
from lmd_cli.decomposition.result import kept_program
from lmd_cli.decomposition.tracing import results
from tests.support.rule_oracle import normal

Fuse = Callable[[Tensor, Tensor], Tensor]
BOTH = {"camera": normal(1, 3, 4), "radar": normal(1, 3, 4, seed=1)}


def early(camera: Tensor, radar: Tensor) -> Tensor:
    """Features are multiplied first, and views are written to behind."""
    met = torch.cat([camera * camera, camera * radar, radar], 1)  # (1, 9, 4)
    out = (met + 0.3).relu() * 2
    out[:, :2] += 1
    return out.softmax(-1) * out


def late(camera: Tensor, radar: Tensor) -> Tensor:
    """A bias is in both factors, twice."""
    scores = (camera + 0.3) @ (radar - 0.2).transpose(1, 2)  # (1, 3, 3)
    return (scores @ radar + 0.1) * (camera + 0.5)


def weighted(camera: Tensor, radar: Tensor) -> Tensor:
    """Attention weights are constants of the operating point."""
    return (camera + 0.3).softmax(-1) * (radar - 0.2)


def written(camera: Tensor, radar: Tensor) -> Tensor:
    kept = (camera - radar).clone()
    view = kept[:, :1]
    kept += 1
    return kept + view


def both(camera: Tensor, radar: Tensor) -> Tensor:
    """Writes behind a product, also to what was made before it."""
    kept = (camera - radar).clone()
    view = kept[:, :1]
    met = camera * radar
    kept += 1
    kept[:, 1:] *= 2
    return met + kept + view + torch.cat([view, camera[:, 1:]], 1)


def none(camera: Tensor, radar: Tensor) -> Tensor:
    return (camera - 2 * radar + 0.2).relu()


@pytest.mark.parametrize(
    ("fuse", "products"),
    [
        (early, [True, True, False]),
        (late, [True, True, True]),
        (weighted, [False]),
        (written, []),
        (both, [True]),
        (none, []),
    ],
)
def test_products_of_features_are_told_from_those_with_constants(
    fuse: Fuse, products: list[bool]
) -> None:
    program = kept_program(decompose(fuse, BOTH, keep_maps=True))
    assert products_of(program) == products
    assert products_of_features(program) == sum(products)


@pytest.mark.parametrize("fuse", [early, late, weighted, written, both, none])
@pytest.mark.parametrize("absent", [(), ("camera",), ("radar",), ("camera", "radar")])
def test_it_is_the_bias_of_all_parts(fuse: Fuse, absent: tuple[str, ...]) -> None:
    features = {n: torch.zeros_like(x) if n in absent else x for n, x in BOTH.items()}
    count = products_of_features(kept_program(decompose(fuse, BOTH, keep_maps=True)))
    wanted = decompose(fuse, features)
    actual = decompose_bias(fuse, features, "identity-ratio", count)
    assert torch.equal(actual.total, wanted.total)
    torch.testing.assert_close(actual.bias, wanted.bias, rtol=0, atol=1e-12)


def noted_products(fuse: Fuse, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, ...]]]:
    """The rows of both factors of each product that is met when the bias is asked for."""
    met: list[list[tuple[int, ...]]] = []
    made = results.bilinear_parts

    def noted(product: object, a: Stack, b: Stack, *rest: object) -> object:
        met.append([a[1], b[1]])
        return made(product, a, b, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(results, "bilinear_parts", noted)
    count = products_of_features(kept_program(decompose(fuse, BOTH, keep_maps=True)))
    met.clear()
    decompose_bias(fuse, BOTH, "identity-ratio", count)
    return met


def test_parts_are_left_out_behind_the_last_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention weights' product meets constants, and what is left of the parts."""
    bias = 2
    assert noted_products(early, monkeypatch) == [
        [(0,), (0,)],
        [(0,), (1,)],
        [(bias,), (bias,)],
    ]


def test_nothing_but_the_bias_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, ...]] = []
    put = Buffer.put

    def noted(self: Buffer, stack: Tensor, own: tuple[int, ...], place: object) -> None:
        given.append(own)
        put(self, stack, own, place)  # type: ignore[arg-type]

    monkeypatch.setattr(Buffer, "put", noted)
    decompose_bias(weighted, BOTH, "identity-ratio")
    assert given[:2] == [(0,), (1,)]  # the inputs
    assert set(given[2:]) == {(2,)}
