"""Parts that hold the values of all coalitions of modalities: exact Shapley values at every layer.

v(S) is what the network gives at a layer with the features of the modalities outside S zero. A
tensor carries its dividends (Harsanyi, 1959), whose sum is the total:

    d(S) = sum over T within S of (-1)^(|S| - |T|) v(T),        v(S) = sum over T within S of d(T)

The bias is v of none. Linear operations take each dividend by itself, and every other one is run
as it is at the values of all coalitions. A modality's part is its Shapley value, the sum of
d(S) / |S| over the coalitions S that it is in.

Along an edge, from S to S with m, every operation is the affine map of a secant (:mod:`.secants`).
Another input of m goes along all edges of m; its part is the mean of these, weighted by
w(S) = |S|! (M - |S| - 1)! / M!.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import factorial

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.maps import Stack

#: Modalities whose coalitions are carried.
MOST = 5
#: Where a coalition has no value.
UNDEFINED = (
    "the network's value with some modality's features zero is not finite (a division, a root or a "
    "logarithm of what is zero then), so that coalitions have no values; take "
    "identity-ratio-shapley, or mend the network"
)


@dataclass(frozen=True)
class CoalitionLayout(Layout):
    """Rows: the dividends of single modalities, the extras (one row for each edge), the bias, the
    dividends of coalitions of two and more.

    A coalition is a number whose bit m says that modality m is in it.

    Raises:
        InputError: more than :data:`MOST` modalities.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.modalities)
        if count > MOST:
            edges = count << count - 1
            raise InputError(
                f"coalitions: {count} modalities have {2**count} coalitions, each as long and as "
                f"large as a plain pass, with {edges} slopes at every activation; at most {MOST} "
                "can be carried. Take identity-ratio-reveal, whose cost is linear in them"
            )

    @property
    def copies(self) -> int:
        return 1 << len(self.modalities) - 1

    @cached_property
    def rows_of_coalitions(self) -> tuple[int, ...]:
        """The row of each coalition's dividend, the bias first."""
        rows, more = [self.bias], self.interaction
        for s in range(1, 1 << len(self.modalities)):
            single = s.bit_count() == 1
            rows.append(s.bit_length() - 1 if single else more)
            more += not single
        return tuple(rows)

    @property
    def clean(self) -> tuple[int, ...]:
        return tuple(sorted(self.rows_of_coalitions))

    def edges(self) -> Iterator[tuple[int, int]]:
        """Every (m, S) with m not in S."""
        for m in range(len(self.modalities)):
            yield from ((m, s) for s in coalitions_without(m, len(self.modalities)))

    def extra_rows_along(self, m: int, s: int) -> list[int]:
        """Rows of a modality's extras on their way from S to S with m."""
        first = list(coalitions_without(m, len(self.modalities))).index(s)
        return list(self.extra_rows(self.modalities[m]))[first :: self.copies]

    @cached_property
    def outer(self) -> Layout:
        return Layout(self.modalities, self.extras)

    def reported(self, stack: Tensor, rows: tuple[int, ...]) -> Stack:
        """The rows as modalities' parts, extras and the bias."""
        made: dict[int, Tensor] = {}
        for row, part in zip(rows, stack, strict=True):
            for target, weight in self._targets[row]:
                share = part if weight == 1.0 else part * weight
                made[target] = made[target] + share if target in made else share
        reported = tuple(sorted(made))
        return torch.stack([made[row] for row in reported]) if made else stack, reported

    @cached_property
    def _targets(self) -> dict[int, list[tuple[int, float]]]:
        """For each row, where it is reported and with which weight."""
        count, outer = len(self.modalities), self.outer
        targets = {self.bias: [(outer.bias, 1.0)]}
        for s, row in enumerate(self.rows_of_coalitions[1:], start=1):
            members = [m for m in range(count) if s >> m & 1]
            targets[row] = [(m, 1.0 / len(members)) for m in members]
        for m, s in self.edges():
            reported = outer.extra_rows(self.modalities[m])
            for row, target in zip(self.extra_rows_along(m, s), reported, strict=True):
                targets[row] = [(target, edge_weight(s, count))]
        return targets


def coalitions_without(m: int, count: int) -> Iterator[int]:
    """The coalitions of ``count`` modalities that m is not in."""
    return (s for s in range(1 << count) if not s >> m & 1)


def edge_weight(s: int, count: int) -> float:
    """|S|! (M - |S| - 1)! / M!."""
    size = s.bit_count()
    return factorial(size) * factorial(count - size - 1) / factorial(count)


def within(players: int) -> list[int]:
    """Every coalition of some modalities, by number."""
    return [s for s in range(players + 1) if s & players == s]


def values_of(dividends: dict[int, Tensor], players: int) -> dict[int, Tensor]:
    """v(S) = sum of d(T), T within S, for every S of the players.

    Args:
        dividends: of some coalitions, the bias among them; those that are not there are zero.
    """
    values: dict[int, Tensor] = dict(dividends)
    for bit in _bits(players):
        for s in within(players):
            below = values.get(s ^ bit) if s & bit else None
            if below is not None:
                own = values.get(s)
                values[s] = below if own is None else own + below
    return values


def value_at(dividends: Mapping[int, Tensor], s: int) -> Tensor:
    """v(S) alone."""
    value = dividends[0]
    for t, own in dividends.items():
        if t and t & s == t:
            value = value + own
    return value


def dividends_of(
    values: dict[int, Tensor], players: int, masked: bool = False
) -> dict[int, Tensor]:
    """d(S) = sum of (-1)^(|S| - |T|) v(T), T within S: in the values' memory, unless gradients are
    recorded.

    Args:
        masked: values may be infinite (masked logits): nothing lies between two that are the same.
    """
    made = dict(values)
    for bit in _bits(players):
        for s in within(players):
            if s & bit:
                made[s] = _less(made[s], made[s ^ bit], masked)
    return made


def _less(value: Tensor, below: Tensor, masked: bool) -> Tensor:
    """``value - below``, 0 where they are the same."""
    same = value == below if masked else None
    if torch.is_grad_enabled():
        apart = value - below
        return apart if same is None else apart.masked_fill(same, 0.0)
    value.sub_(below)
    return value if same is None else value.masked_fill_(same, 0.0)


def _bits(players: int) -> Sequence[int]:
    return [1 << m for m in range(players.bit_length()) if players >> m & 1]
