"""The linear maps that stand for nonlinear operations once the clean pass is done.

A map is kept by the session and replayed on plain tensors (:mod:`.replay`): that is eq. 14 taken
literally. Each states how one stream, a modality's or the bias's, goes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from lmd_cli.decomposition.errors import DecompositionError
from lmd_cli.decomposition.tree import map_tensors

#: Whose constants a stream can carry by itself: BatchNorm's, or those of the other norms.
Origin = Literal["batch_norm", "norm"]


@dataclass
class Stream:
    """One pass of the linearised network: a modality's own, the bias's, or that of some constants.

    Attributes:
        modality: index of the modality, ``None`` for the bias.
        uniform_share: 1 / (M + 1).
        bias_inputs: what the bias stream fed to the map at each index; activation splits and
            products need it.
        keep: whether the bias stream fills ``bias_inputs``.
        origin: with no modality, the stream of eq. 10's constants of this kind and no others: what
            ``uniform`` shares out.
    """

    modality: int | None
    uniform_share: float
    bias_inputs: dict[int, Any]
    keep: bool = True
    origin: Origin | None = None

    @property
    def is_bias(self) -> bool:
        """Whether this stream carries all constants."""
        return self.modality is None and self.origin is None

    def remember(self, index: int, value: Callable[[], Any]) -> None:
        """Keeps what the bias stream feeds to the map at ``index``."""
        if self.keep:
            self.bias_inputs[index] = value()

    def constant_share(self, split: str, origin: Origin) -> float:
        """Share of a constant of eq. 10 under ``identity`` or ``uniform``."""
        if self.origin is not None:
            return 1.0 if self.origin == origin else 0.0
        if split == "uniform":
            return self.uniform_share
        return 1.0 if self.is_bias else 0.0


class FrozenMap(Protocol):
    """A linearised operation."""

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        """Takes a stream's tensor through the map that stands at ``index`` of the tape."""


@dataclass(frozen=True)
class FrozenSlope:
    """Activation: eq. 9, with Appendix C's shares of the bias (M, *shape), if any."""

    slope: Tensor
    remainder: Tensor | None
    shares: Tensor | None

    @property
    def plain(self) -> bool:
        """Nothing but a factor."""
        return self.remainder is None and self.shares is None

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        if self.shares is not None:
            h = self._split(h, stream, index)
        out = h * self.slope
        if self.remainder is not None and stream.is_bias:
            out = out + self.remainder
        return out

    def _split(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        assert self.shares is not None
        if stream.modality is None:
            return h * (1.0 - self.shares.sum(0))
        return h + self.shares[stream.modality] * stream.bias_inputs[index]


@dataclass(frozen=True)
class FrozenAffine:
    """BatchNorm, or a norm with clean statistics: eq. 10."""

    scale: Tensor
    constant: Tensor
    split: str
    origin: Origin = "norm"

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        share = stream.constant_share(self.split, self.origin)
        out = h * self.scale
        return out.add_(share * self.constant) if share else out


@dataclass(frozen=True)
class FrozenCentred:
    """A norm under the ratio rule: eq. 11, each stream centred by its own mean."""

    scale: Tensor
    shift: Tensor | None
    mean: Callable[[Tensor], Tensor]

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        if h.is_cuda:  # one pass over memory; on a CPU it is no faster
            out = torch.addcmul(-self.mean(h) * self.scale, h, self.scale)
        else:
            out = (h - self.mean(h)).mul_(self.scale)
        return out + self.shift if self.shift is not None and stream.is_bias else out


@dataclass(frozen=True)
class FrozenSelection:
    """Max-pooling and its kin: each stream is read where the total was largest."""

    pick: Callable[[Tensor], Tensor]
    finish: Callable[[Tensor], Any] = lambda selected: selected

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        return self.pick(h)


@dataclass(frozen=True)
class FrozenProduct:
    """A product of two decomposed tensors: a modality's stream meets itself and the bias.

    ``bias_inputs`` holds the pair of factors that the bias stream had; ``constant_a`` and
    ``constant_b`` are factors that have no other part (frozen attention weights).
    """

    product: Callable[[Tensor, Tensor], Tensor]
    constant_a: Tensor | None = None
    constant_b: Tensor | None = None

    @property
    def linear(self) -> bool:
        """Whether one factor is a constant."""
        return self.constant_a is not None or self.constant_b is not None

    def __call__(self, h: Any, stream: Stream, index: int) -> Tensor:
        a, b = h
        if stream.is_bias:
            return self.product(a, b)
        if stream.origin is not None:
            self._require_apart(a, b)
        if self.constant_a is not None:
            return self.product(self.constant_a, b)
        if self.constant_b is not None:
            return self.product(a, self.constant_b)
        if stream.origin is not None:
            return self.product(a, b)  # both are zero
        bias_a, bias_b = stream.bias_inputs[index]
        return self.product(a, b + bias_b) + self.product(bias_a, b)

    def _require_apart(self, a: Tensor, b: Tensor) -> None:
        """Constants that go through alone must not have reached what multiplies parts.

        Raises:
            DecompositionError: they have, so what they make depends on the parts.
        """
        multipliers = [a] if self.constant_a is not None else [b]
        multipliers = multipliers if self.linear else [a, b]
        if any(bool(x.any()) for x in multipliers):
            raise DecompositionError(
                "constants that are shared out reach a product of two features: what they make "
                "depends on the features"
            )


@dataclass(frozen=True)
class FrozenConstant:
    """A comparison, an index, a detached value: what it was at the operating point.

    Tensors are copied on the way in and out: the network may go on to write to them.
    """

    value: Any

    @classmethod
    def of(cls, value: Any) -> FrozenConstant:
        """Keeps a copy."""
        return cls(map_tensors(torch.clone, value))

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Any:
        return map_tensors(torch.clone, self.value)


@dataclass(frozen=True)
class FrozenJacobian:
    """Softmax at the operating point: J = diag(y) - y y^T, or nothing but the constant y.

    Attributes:
        output: y (*shape); logits: x (*shape).
        dim: dimension of the sum, negative.
        constant: the weights are constants, J is not used.
    """

    output: Tensor
    dim: int
    constant: bool
    logits: Tensor

    @property
    def remainder(self) -> Tensor:
        """y - J x, of the bias."""
        return self.output - self.jacobian(self.logits)

    def jacobian(self, h: Tensor) -> Tensor:
        """J h for h ``(..., *shape)``."""
        weighted = self.output * h
        return weighted - self.output * weighted.sum(self.dim, keepdim=True)

    def __call__(self, h: Tensor, stream: Stream, index: int) -> Tensor:
        if self.constant:
            return self.output.expand_as(h).clone() if stream.is_bias else torch.zeros_like(h)
        out = self.jacobian(h)
        return out + self.remainder if stream.is_bias else out


def needs_bias(tape: Iterable[FrozenMap]) -> bool:
    """Whether a modality's stream meets the bias's: in activation splits, and in products."""
    return products(tape) > 0 or any(getattr(m, "shares", None) is not None for m in tape)


def products(tape: Iterable[FrozenMap]) -> int:
    """How many products are met up to the last one of two factors that both vary."""
    met = [m for m in tape if isinstance(m, FrozenProduct)]
    return max((i for i, m in enumerate(met, start=1) if not m.linear), default=0)


def shared_alike(tape: Sequence[FrozenMap]) -> bool:
    """Whether variants that differ only in where constants go have parts that differ by constants.

    They do where features are multiplied with each other before any constant can be shared out.
    """
    varying = (i for i, m in enumerate(tape) if isinstance(m, FrozenProduct) and not m.linear)
    shared = (FrozenAffine, FrozenCentred, FrozenSlope)
    return not any(isinstance(m, shared) for m in tape[: max(varying, default=0)])
