"""Methods that take modalities away: leave-one-out and exact Shapley values.

A modality is absent when its features are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import factorial
from typing import Any

import torch

from lmd_cli.attribution.interface import (
    Explainer,
    Features,
    Fuse,
    Maps,
    combine,
    completed,
    run,
)
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.errors import MethodError

#: Shapley values enumerate 2^M coalitions up to this M.
MOST_MODALITIES = 10


@dataclass(frozen=True)
class Plain:
    """A method without an operating point: a function of ``fuse`` and the features."""

    split: Callable[[Fuse, Features], Maps]
    fuse: Fuse

    def parts(self, features: Features) -> Maps:
        return self.split(self.fuse, features)


class LeaveOneOut:
    """Occlusion: modality m's part is G(x) - G(x with m zeroed), the baseline of table 1."""

    name = "leave-one-out"

    def at(self, fuse: Fuse, features: Features) -> Explainer:
        return Plain(leave_one_out, fuse)


class Shapley:
    """Exact Shapley values of v(S) = G(x with all but S zeroed); the bias part is v of none."""

    name = "shapley"

    def at(self, fuse: Fuse, features: Features) -> Explainer:
        return Plain(lambda g, x: shapley(partial(run, g), x), fuse)


def leave_one_out(fuse: Fuse, features: Features) -> Maps:
    """G(x) - G(x with m zeroed) for each modality; what these miss of G(x) is the bias.

    M + 1 passes.
    """
    total = run(fuse, features)
    maps = {
        name: combine(torch.sub, total, run(fuse, features, frozenset({name}))) for name in features
    }
    return completed(total, maps)


def shapley(value: Callable[[Features, frozenset[str]], Any], features: Features) -> Maps:
    """Shapley values by enumeration: phi_m = sum over S without m of w(|S|) (v(S + m) - v(S)).

    Args:
        value: v; called once for each of the 2^M coalitions, with the features and the names of
            those that are absent.
        features: of M modalities.

    Returns:
        phi_m for each modality, and v of the empty coalition as ``bias``; they sum to v(all).

    Raises:
        MethodError: more than :data:`MOST_MODALITIES` modalities.
    """
    names, sums = tuple(features), Accumulator()
    require_few(names)
    for coalition in coalitions(names):
        v = value(features, frozenset(names) - coalition)
        for name in names:
            sums.add(name, v, shapley_weight(name in coalition, len(coalition), len(names)))
        if not coalition:
            sums.add(BIAS, v, 1.0)
    return {name: sums.sums[name] for name in (*names, BIAS)}


def require_few(names: tuple[str, ...]) -> None:
    """Refuses more modalities than can be enumerated.

    Raises:
        MethodError: with the number of coalitions.
    """
    if len(names) > MOST_MODALITIES:
        raise MethodError(
            f"Shapley values of {len(names)} modalities need {2 ** len(names)} passes; at most "
            f"{MOST_MODALITIES} modalities ({2**MOST_MODALITIES} passes) are enumerated. Join "
            "modalities, or use leave-one-out"
        )


def coalitions(names: tuple[str, ...]) -> Iterator[frozenset[str]]:
    """Every subset, the empty one first."""
    for size in range(len(names) + 1):
        yield from map(frozenset, combinations(names, size))


def shapley_weight(member: bool, size: int, players: int) -> float:
    """Weight of v(S), |S| = ``size``, in the value of a player in S (positive) or not in S."""
    others = size - 1 if member else size
    weight = factorial(others) * factorial(players - others - 1) / factorial(players)
    return weight if member else -weight


class Accumulator:
    """Weighted sums of trees, by name."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}

    def add(self, name: str, tree: Any, weight: float) -> None:
        """Adds ``weight * tree``."""
        if name in self.sums:  # out of place: trees of batch 1 and of larger batches meet
            self.sums[name] = combine(lambda a, b: a + weight * b, self.sums[name], tree)
        else:
            self.sums[name] = combine(lambda term: weight * term, tree)
