"""Leave-one-out and Shapley values against their definitions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.attribution import parts, scores
from lmd_cli.attribution.removal import (
    LeaveOneOut,
    Shapley,
    coalitions,
    shapley,
    shapley_weight,
)
from lmd_cli.errors import MethodError
from tests.support.random_networks import Case, cases
from tests.support.rule_oracle import normal

RUNS = settings(max_examples=25, deadline=None, derandomize=True)


def leaves(tree: Any) -> list[Tensor]:
    return pytree.tree_leaves(tree)


def plain(case: Case, present: set[str]) -> list[Tensor]:
    """The network's outputs with the features of all others zeroed."""
    inputs = {
        name: pytree.tree_map(torch.clone if name in present else torch.zeros_like, tree)
        for name, tree in case.inputs.items()
    }
    with torch.no_grad():
        return leaves(case.network(**inputs))


def by_permutations(case: Case) -> dict[str, list[Tensor]]:
    """A modality's Shapley value is the mean of what it adds over all orders of arrival."""
    orders = list(permutations(case.inputs))
    actual: dict[str, list[Tensor]] = {name: [] for name in case.inputs}
    for name in actual:
        gains = []
        for order in orders:
            before = set(order[: order.index(name)])
            gains.append(
                [
                    a - b
                    for a, b in zip(plain(case, before | {name}), plain(case, before), strict=True)
                ]
            )
        actual[name] = [torch.stack(column).mean(0) for column in zip(*gains, strict=True)]
    return actual


def close(actual: Any, wanted: Any) -> None:
    for a, b in zip(leaves(actual), leaves(wanted), strict=True):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11 * scale)


@RUNS
@given(cases(max_blocks=3))
def test_shapley_is_the_mean_over_orders(case: Case) -> None:
    actual = parts(Shapley(), case.network, case.inputs)
    for name, wanted in by_permutations(case).items():
        close(actual[name], wanted)
    close(actual["bias"], plain(case, set()))


@RUNS
@given(cases(max_blocks=3))
def test_leave_one_out_is_the_difference(case: Case) -> None:
    actual = parts(LeaveOneOut(), case.network, case.inputs)
    total = plain(case, set(case.inputs))
    for name in case.inputs:
        rest = plain(case, set(case.inputs) - {name})
        close(actual[name], [a - b for a, b in zip(total, rest, strict=True)])


@RUNS
@given(cases(max_blocks=3), st.sampled_from([LeaveOneOut(), Shapley()]))
def test_parts_sum_to_the_output(case: Case, method: Any) -> None:
    actual = parts(method, case.network, case.inputs)
    sums = [sum(values) for values in zip(*map(leaves, actual.values()), strict=True)]
    close(sums, plain(case, set(case.inputs)))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_coalition_is_run_once(count: int) -> None:
    seen: list[tuple[bool, ...]] = []

    def fuse(**features: Tensor) -> Tensor:
        seen.append(tuple(bool(x.any()) for x in features.values()))
        return sum(features.values()) + 1.0  # type: ignore[return-value]

    features = {f"m{i}": normal(1, 2, seed=i) for i in range(count)}
    parts(Shapley(), fuse, features)
    assert len(seen) == len(set(seen)) == 2**count


def test_ten_modalities_are_enumerated_and_eleven_refused() -> None:
    calls = []

    def value(features: Mapping[str, Tensor], absent: frozenset[str]) -> Tensor:
        calls.append(1)
        return sum((features[name] for name in features if name not in absent), torch.zeros(1))

    features = {f"m{i}": normal(1) for i in range(10)}
    actual = shapley(value, features)
    assert len(calls) == 1024
    torch.testing.assert_close(actual["m3"], features["m3"])
    with pytest.raises(MethodError, match=r"11 modalities need 2048 passes; at most 10"):
        parts(Shapley(), lambda **f: f["m0"], {f"m{i}": normal(1) for i in range(11)})
    assert len(calls) == 1024


@given(st.integers(1, 8))
def test_weights_of_a_player_sum_to_zero_over_coalitions_and_to_one_where_it_is_in(
    players: int,
) -> None:
    names = tuple(map(str, range(players)))
    actual = {s: shapley_weight("0" in s, len(s), players) for s in coalitions(names)}
    assert sum(actual.values()) == pytest.approx(0.0, abs=1e-12)
    assert sum(w for s, w in actual.items() if "0" in s) == pytest.approx(1.0)


def test_a_region_is_scored_on_every_part() -> None:
    features = {"camera": normal(2, 3, 4), "radar": normal(2, 3, 4, seed=1)}

    def fuse(camera: Tensor, radar: Tensor) -> dict[str, Tensor]:
        return {"map": camera * 2.0 + radar + 0.5}

    actual = scores(LeaveOneOut(), fuse, features, lambda out: out["map"].flatten(1)[:, :2])
    torch.testing.assert_close(actual["camera"], 2.0 * features["camera"].flatten(1)[:, :2])
    torch.testing.assert_close(actual["bias"], torch.full((2, 2), 0.5, dtype=torch.float64))


def test_what_fuse_writes_to_its_inputs_is_not_seen() -> None:
    def fuse(camera: Tensor, radar: Tensor) -> Tensor:
        return camera.relu_() + radar.mul_(2.0)

    features = {"camera": normal(1, 5), "radar": normal(1, 5, seed=1)}
    kept = {name: x.clone() for name, x in features.items()}
    actual = parts(Shapley(), fuse, features)
    torch.testing.assert_close(actual["camera"], kept["camera"].relu())
    assert all(torch.equal(features[name], kept[name]) for name in kept)
