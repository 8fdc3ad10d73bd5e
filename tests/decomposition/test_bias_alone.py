"""The bias followed by itself, through products of features too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from rule_oracle import normal
from torch import Tensor

from lmd_cli.decomposition import LeakError, decompose, decompose_bias
from lmd_cli.decomposition.frozen import products
from lmd_cli.decomposition.rules import bilinear

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


def none(camera: Tensor, radar: Tensor) -> Tensor:
    return (camera - 2 * radar + 0.2).relu()


@pytest.mark.parametrize(("fuse", "count"), [(early, 2), (late, 3), (none, 0)])
@pytest.mark.parametrize("absent", [(), ("camera",), ("radar",), ("camera", "radar")])
def test_it_is_the_bias_of_all_parts(fuse: Fuse, count: int, absent: tuple[str, ...]) -> None:
    met = products(decompose(fuse, BOTH, keep_frozen=True).tape or [])
    assert met == count
    features = {n: torch.zeros_like(x) if n in absent else x for n, x in BOTH.items()}
    wanted, found = decompose(fuse, features), decompose_bias(fuse, features, "identity-ratio", met)
    assert torch.equal(found.total, wanted.total)
    torch.testing.assert_close(found.bias, wanted.bias, rtol=0, atol=1e-12)


def test_parts_are_left_out_behind_the_last_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention weights' product meets two rows: a constant, and what is left of the parts."""
    met: list[tuple[int, ...]] = []
    terms = bilinear._terms

    def noted(*arguments: object) -> object:
        met.append(arguments[3].rows)  # type: ignore[attr-defined]
        return terms(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bilinear, "_terms", noted)
    decompose_bias(early, BOTH, "identity-ratio", 2)
    bias = 2
    assert met == [(0,), (1,), (bias,)]


def test_writes_to_views_of_what_has_no_parts_are_refused() -> None:
    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        met = camera * radar
        kept = (camera - radar).clone()
        view = kept[:, :1]
        kept += 1
        return met + kept + view

    wanted = decompose(fuse, BOTH).bias
    with pytest.raises(LeakError, match="has views"):
        decompose_bias(fuse, BOTH, "identity-ratio", 1)
    assert bool(wanted.any())
