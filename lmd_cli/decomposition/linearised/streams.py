"""What goes through the linearised network, and how it goes through one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.linearised.program import Env, Output, Step, read, store, zeros_at
from lmd_cli.decomposition.maps import Affine, Origin, own_terms, summed


@dataclass(frozen=True)
class Stream:
    """What goes through the linearised network: a modality's parts, the bias, or the constants of
    one kind of norm alone.

    Attributes:
        modality: its index, ``None`` for the others.
        uniform_share: 1 / (M + 1).
        edge: the coalition S from which it goes to S with the modality, where there are edges.
        origin: whose constants go alone.
        rows: how many inputs go through.
    """

    modality: int | None
    uniform_share: float
    origin: Origin | None = None
    rows: int = 1
    edge: int = 0

    @property
    def is_bias(self) -> bool:
        """Whether this stream carries all constants."""
        return self.modality is None and self.origin is None

    def weight(self, output: Output) -> float:
        """Which share of a map's constant it gets."""
        assert isinstance(output.map, Affine)
        if self.origin is not None:
            return 1.0 if output.map.origin == self.origin else 0.0
        if output.uniform:
            return self.uniform_share
        return 1.0 if self.is_bias else 0.0

    def __call__(self, step: Step, env: Env) -> None:
        """Takes the stream through one step."""
        for output in step.outputs:
            if output.map is None or self._scales(output, env):
                continue
            made = self.through(output, env)
            if made is not None:
                made = made.to(output.place.dtype).expand(self.rows, *output.place.shape)
            store(env, step, output, made)

    def _scales(self, output: Output, env: Env) -> bool:
        """Multiplies in place what the operation did, if it can be."""
        linear_map, buffer = output.map, env.get(output.place.key)
        if buffer is None or not isinstance(linear_map, Affine) or output.reads != (output.place,):
            return False
        if linear_map.slopes is not None:
            factor = None if self.modality is None else linear_map.slopes[self.modality]
        else:
            factor = linear_map.factor_alone(self.weight(output))
        return factor is not None and buffer.scale(output.place, factor)

    def through(self, output: Output, env: Env) -> Tensor | None:
        stacks = [read(env, place) for place in output.reads]
        if isinstance(output.map, Affine):
            if output.map.edges is not None:
                return self._along_edge(output, output.map.edges, stacks)
            if output.map.slopes is not None:
                return self._sloped(output.map, stacks[0])
            if output.map.shares is not None:
                stacks = [self._handed_out(output, output.map.shares, stacks[0])]
            return _affine(output, output.map, stacks, self.weight(output))
        return self._product(output, stacks[0], stacks[1])

    def whole(self, output: Output, env: Env) -> Tensor | None:
        """All of a result, whoever's parts make it, if that makes no difference."""
        if isinstance(output.map, Affine):
            if output.map.slopes is not None or output.map.edges is not None:
                return None
            return _affine(output, output.map, [read(env, p) for p in output.reads], 1.0)
        return self.through(output, env)

    def _sloped(self, linear_map: Affine, h: Tensor | None) -> Tensor | None:
        """A modality's parts times its own slope; the bias is the constant."""
        assert linear_map.slopes is not None
        assert linear_map.constant is not None
        if self.modality is None:
            return linear_map.constant.unsqueeze(0)
        own = linear_map.slopes[self.modality]
        return None if h is None or own is None else h * own

    def _along_edge(
        self, output: Output, edges: Mapping[tuple[int, int], Affine], stacks: list[Tensor | None]
    ) -> Tensor | None:
        """The edge's own map, all of its constant too; the bias is the value of no modality."""
        if self.modality is None:
            assert isinstance(output.map, Affine)
            assert output.map.constant is not None
            return output.map.constant.unsqueeze(0)
        edge = edges.get((self.modality, self.edge))
        return None if edge is None else _affine(output, edge, stacks, 1.0)

    def _handed_out(self, output: Output, shares: Tensor, h: Tensor | None) -> Tensor | None:
        """Appendix C: a modality's parts get their share of the bias, which keeps the rest."""
        if self.modality is None:
            return None if h is None else h * (1.0 - shares.sum(0))
        bias = output.bias[0]
        return summed(h, None if bias is None else shares[self.modality] * bias)

    def _product(self, output: Output, a: Tensor | None, b: Tensor | None) -> Tensor | None:
        product = output.map.product  # type: ignore[union-attr]
        if self.is_bias:
            return None if a is None or b is None else product(a, b)
        bias_a, bias_b = output.bias
        if self.origin is not None:
            _require_apart(output, a, b)
        if output.alone[0] and bias_a is not None:
            return None if b is None else product(bias_a, b)
        if output.alone[1] and bias_b is not None:
            return None if a is None else product(a, bias_b)
        if self.origin is not None:
            return None
        return own_terms(product, a, b, bias_a, bias_b)


def _require_apart(output: Output, a: Tensor | None, b: Tensor | None) -> None:
    """Constants that go through alone must not have reached what multiplies parts."""
    multipliers = [a] if output.alone[0] else [b] if output.alone[1] else [a, b]
    if any(x is not None and bool(x.any()) for x in multipliers):
        raise DecompositionError(
            "constants that are shared out reach a product of two features: what they make "
            "depends on the features"
        )


def _affine(
    output: Output, linear_map: Affine, stacks: list[Tensor | None], weight: float
) -> Tensor | None:
    """A map with a share of its constant; operands that are zero are made where others are not."""
    present, made = next((s for s in stacks if s is not None), None), None
    if linear_map.run is not None and present is not None:
        places = zip(output.reads, stacks, strict=True)
        made = linear_map.run(*(zeros_at(p, len(present)) if s is None else s for p, s in places))
    if linear_map.constant is None or not weight:
        return made
    value = linear_map.constant.unsqueeze(0)
    return summed(made, value if weight == 1.0 else weight * value)
