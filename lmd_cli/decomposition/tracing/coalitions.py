"""A run that follows the values of all coalitions of modalities (:mod:`..coalitions`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, reduce
from math import isnan
from operator import or_
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.coalitions import (
    UNDEFINED,
    CoalitionLayout,
    dividends_of,
    value_at,
    values_of,
    within,
)
from lmd_cli.decomposition.linearised.program import Step
from lmd_cli.decomposition.maps import Affine, Bilinear, Map, Secant, Stack, summed
from lmd_cli.decomposition.memory import expanded
from lmd_cli.decomposition.pytrees import map_leaves
from lmd_cli.decomposition.registry import RuleInfo
from lmd_cli.decomposition.secants import elementwise, product
from lmd_cli.decomposition.tracing.audit import OperationRecord
from lmd_cli.decomposition.tracing.calls import Call
from lmd_cli.decomposition.tracing.session import Session

#: Kinds of rules whose maps are linear at the operating point only.
_CURVED = ("activation", "statistic", "softmax")


@dataclass(eq=False, slots=True)
class _Between(Affine):
    """With the parts of the clean sample, which need no map."""

    stack: Stack = (torch.empty(0), ())


@dataclass(eq=False)
class Edges(Mapping[tuple[int, int], Affine]):
    """An operation along the edges (m, S) of its players, each worked out when it is asked for.

    Attributes:
        keys_in_order: all of them.
        players: the modalities that its arguments depend on.
        arguments: the dividends of each.
        between: takes the values at both ends, and the results' difference, to the map.
        results: at each coalition, where ``between`` needs them.
    """

    keys_in_order: tuple[tuple[int, int], ...]
    players: int
    arguments: Sequence[Mapping[int, Tensor]]
    between: Callable[..., Affine]
    results: Mapping[int, Tensor]
    made: dict[tuple[int, int], Affine] = field(default_factory=dict)

    def __getitem__(self, edge: tuple[int, int]) -> Affine:
        m, low = edge[0], edge[1] & self.players
        if not self.players >> m & 1:
            raise KeyError(edge)
        if (m, low) not in self.made:
            high = low | 1 << m
            us, vs = ([value_at(own, s) for own in self.arguments] for s in (low, high))
            rise = (self.results[high] - self.results[low],) if self.results else ()
            self.made[m, low] = self.between(us, vs, *rise)
        return self.made[m, low]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.keys_in_order)

    def __len__(self) -> int:
        return len(self.keys_in_order)


def _tangent(
    run: Callable[..., Tensor] | None, us: Sequence[Tensor], vs: Sequence[Tensor], rise: Tensor
) -> Affine:
    """The map at the operating point, and what it misses as a constant."""
    if run is None:
        return Affine(None, (), rise)
    h = [(v - u).unsqueeze(0) for u, v in zip(us, vs, strict=True)]
    return Affine(run, (), rise - run(*h)[0])


class CoalitionSession(Session):
    """Linear operations take the dividends as they are; every other one runs at each coalition's
    values. What no operation of torch computes from features stays as it is at the operating point:
    indices and masks, numbers that leave torch, and detached tensors."""

    layout: CoalitionLayout

    def __init__(self, *given: Any, **options: Any):
        super().__init__(*given, **options)
        self._index = 0
        if self.program is not None:
            self.program.edges = True

    @contextmanager
    def open(self) -> Iterator[Session]:
        """See :meth:`.Session.open`.

        Raises:
            MemoryError: the values of all coalitions do not fit.
        """
        try:
            with super().open() as session:
                yield session
        except (MemoryError, RuntimeError) as error:
            on_cpu = "DefaultCPUAllocator" in str(error)  # torch has no class for it
            if not (on_cpu or isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))):
                raise
            count = 1 << len(self.layout.modalities)
            raise MemoryError(
                f"coalitions: the values of {count} coalitions, each as large as a plain pass, do "
                f"not fit; take identity-ratio-shapley, or a smaller batch ({error})"
            ) from error

    def broken(self, record: OperationRecord, rule: RuleInfo) -> str:
        """What a coalition has no value for is no fault of a rule."""
        undefined = f"has no parts: {UNDEFINED}"
        return undefined if isnan(record.residual) else super().broken(record, rule)

    def hold(self, what: str) -> None:
        """Weights, divisors and places follow the coalitions: nothing is held."""

    def _register_one(self, call: Call, t: Tensor, raw: Any, step: Step | None, index: int) -> None:
        self._index = index
        super()._register_one(call, t, raw, step, index)
        self._index = 0

    def _completed(self, call: Call, raw: Any, total: Tensor) -> Map:
        if self._is_linear(call, raw):
            return super()._completed(call, raw, total)
        with self.paused():
            return self._between(call, raw, total)

    def _is_linear(self, call: Call, raw: Any) -> bool:
        if isinstance(raw, Bilinear):
            return any(self._players(t) == 0 for t in raw.operands)
        if not isinstance(raw, Affine):
            return True  # made of other operations
        curved = raw.curve is not None or raw.secant is not None or raw.splits
        operands = {id(t) for t in raw.operands or call.carrying}
        held = any(id(t) not in operands for t in call.carrying)
        return not (curved or call.rule.kind in _CURVED or (held and call.rule.kind == "linear"))

    # -- values -------------------------------------------------------------------------------

    def _players(self, t: Tensor) -> int:
        """The modalities that a tensor's dividends are of."""
        rows = self.parts(t)[1]
        players = (s for s, row in enumerate(self.layout.rows_of_coalitions) if row in rows)
        return reduce(or_, players, 0)

    def _dividends(self, t: Tensor) -> dict[int, Tensor]:
        """d(S) for all coalitions that have one, and none."""
        stack, rows = self.parts(t)
        present = dict(zip(rows, stack, strict=True))
        coalitions = enumerate(self.layout.rows_of_coalitions)
        dividends = {s: present[row] for s, row in coalitions if row in present}
        return dividends if 0 in dividends else {0: torch.zeros_like(t)} | dividends

    def _values(self, t: Tensor) -> dict[int, Tensor]:
        """v(S) for all coalitions of its players, that of all as it is computed."""
        players = self._players(t)
        return values_of(self._dividends(t), players) | {players: t}

    def _between(self, call: Call, raw: Affine | Bilinear, total: Tensor) -> Affine:
        """The parts of an operation that is not linear, and its maps along the edges."""
        values = {id(t): self._values(t) for t in call.carrying}
        players = reduce(or_, (max(known) for known in values.values()), 0)
        made = {s: self._at(call, values, s) for s in within(players)[:-1]} | {players: total}
        made = {s: y.to(total.dtype) for s, y in made.items()}
        operands, edges = self._edges(call, raw, made, players)
        stack = self._stacked(made, players)
        return _Between(None, operands, made[0], edges=edges, stack=stack)

    def _at(self, call: Call, values: dict[int, dict[int, Tensor]], s: int) -> Tensor:
        """The result for a coalition."""

        def value(leaf: Any) -> Any:
            known = values.get(id(leaf))
            return leaf if known is None else known[s & max(known)]

        result = call.run(**map_leaves(value, dict(call.given)))
        chosen: Tensor = result[self._index] if isinstance(result, (tuple, list)) else result
        return chosen

    def _stacked(self, values: dict[int, Tensor], players: int) -> Stack:
        """The dividends of a result."""
        recorded, row_of = torch.is_grad_enabled(), self.layout.rows_of_coalitions
        made = dividends_of(values, players, self.masked) if recorded else values
        ordered = sorted(made, key=row_of.__getitem__)
        stack = torch.stack([made[s] for s in ordered])
        if not recorded:
            dividends_of(dict(zip(ordered, stack, strict=True)), players, self.masked)
        return stack, tuple(row_of[s] for s in ordered)

    # -- along edges --------------------------------------------------------------------------

    def _edges(
        self, call: Call, raw: Affine | Bilinear, made: dict[int, Tensor], players: int
    ) -> tuple[tuple[Tensor, ...], Mapping[tuple[int, int], Affine]]:
        """The operation along each edge, if anything goes along them, and what it is of."""
        if self.program is None and not any(self.layout.extras.values()):
            return (), {}
        x = call.carrying[0]
        operands, between = raw.operands or (x,), None
        if isinstance(raw, Bilinear):
            secant: Secant | None = product(raw.product, *raw.operands)
        else:
            secant = raw.secant
            if raw.curve is not None:
                secant = elementwise(operands[0], raw.curve)
        if secant is not None:
            operands, between = secant.operands, secant.between
        for buffer in map(self.buffer_of, operands):
            assert buffer is not None
            buffer.shared = True  # its dividends are read when an edge is asked for
        dividends = [self._dividends(t) for t in operands]
        results = {s: y.clone() for s, y in made.items()} if between is None else {}
        run = raw.run if isinstance(raw, Affine) else None
        edges = (edge for edge in self.layout.edges() if players >> edge[0] & 1)
        return operands, Edges(
            tuple(edges), players, dividends, between or partial(_tangent, run), results
        )

    def _through(self, linear_map: Map, total: Tensor) -> Stack:
        if not isinstance(linear_map, _Between):
            return super()._through(linear_map, total)
        stack, rows = linear_map.stack
        parts = dict(zip(rows, stack, strict=True))
        stacks = [self.parts(t) for t in linear_map.operands]
        edges = linear_map.edges or {}
        for m, s in edges if any(self.layout.extras.values()) else ():
            if own := tuple(self.layout.extra_rows_along(m, s)):
                run, constant = edges[m, s].run, edges[m, s].constant
                given = (_only(stack, rows, own) for stack, rows in stacks)
                moved = summed(None if run is None else run(*given), constant)
                assert moved is not None
                wide = moved.to(total.dtype).expand(len(own), *total.shape)
                parts |= dict(zip(own, wide, strict=True))
        if len(parts) == len(rows):
            return stack, rows
        ordered = tuple(sorted(parts))
        return torch.stack([parts[row] for row in ordered]), ordered

    def _kept_map(self, linear_map: Map) -> Map:
        if not isinstance(linear_map, _Between):
            return super()._kept_map(linear_map)
        assert linear_map.constant is not None
        return Affine(None, (), linear_map.constant.clone(), edges=linear_map.edges)


def _only(stack: Tensor, rows: tuple[int, ...], wanted: tuple[int, ...]) -> Tensor:
    """Some of the rows, zeros where absent."""
    at = [i for i, row in enumerate(rows) if row in wanted]
    return expanded(stack[at], tuple(rows[i] for i in at), wanted)
