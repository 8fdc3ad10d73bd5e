"""Values of a function with some modalities absent, each worked out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from lmd_cli.decomposition import Variant
from lmd_cli.decomposition.pytrees import map_tensors

T = TypeVar("T")

#: Key of the function itself, beside those that are derived from it.
PLAIN = "plain"


@dataclass(frozen=True)
class Alone:
    """One sample, and what was worked out from it alone; kept as long as the sample is.

    Attributes:
        features: of every modality, batch 1.
        known: values by (key of the function, absent modalities).
    """

    features: Mapping[str, Any]
    known: dict[Any, Any] = field(default_factory=dict)


class Coalitions:
    """A function of features that remembers what it gave with which of them present.

    Features are distinguished by identity, so the same objects must be passed again. Several
    methods at one sample then share their passes. Where all that is present comes from one sample
    (a perturbed sensor with the others absent), the value is that sample's own, and is worked out
    once however many meet it.

    Args:
        function: called as ``function(**features)``.
        broadcasts: whether it adds features up, so that features of batch 1 (of the clean sample,
            and zeros) go with those of larger batches.
        samples: by the identity of a tree of features, the samples of its batch, if the function
            depends on nothing but its features.
        linear: the part that the network linearised at the clean sample gives for a modality's
            features, called with the variant, the modality and them; ``None`` where nobody
            has worked it out.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        broadcasts: bool,
        samples: Mapping[int, Sequence[Alone]] | None = None,
        linear: Callable[[Variant, str, Any], Any] | None = None,
    ):
        self.function, self.broadcasts = function, broadcasts
        self.__wrapped__ = function
        self.passes = 0
        self._key, self._gives_total = PLAIN, False
        self._samples = samples or {}
        self._linear = linear
        self._known: dict[Any, Any] = {}
        self._made: dict[Any, tuple[Any, Any]] = {}

    def __call__(self, **features: Any) -> Any:
        return self.function(**features)

    def like(self, function: Callable[..., Any]) -> Coalitions:
        """Another function of the same features, with a memory of its own."""
        return Coalitions(function, broadcasts=self.broadcasts)

    def beside(self, function: Callable[..., tuple[Any, Any]], key: str) -> Coalitions:
        """A function that gives its value and this function's too, which is remembered here.

        Args:
            function: depends on nothing but the features.
            key: what distinguishes it from others.
        """
        other = Coalitions(function, broadcasts=self.broadcasts, samples=self._samples)
        other._key, other._gives_total, other._known = key, True, self._known
        return other

    def linear(self, variant: Variant, modality: str, tree: Any) -> Any:
        """A modality's part of other features at the clean sample's operating point, if known."""
        return None if self._linear is None else self._linear(variant, modality, tree)

    def once(self, key: str, features: Mapping[str, Any], make: Callable[[], T]) -> T:
        """What ``make`` gives at these features, made once."""
        at = (key, *((name, id(tree)) for name, tree in features.items()))
        if at not in self._made:
            self._made[at] = (dict(features), make())
        value: T = self._made[at][1]
        return value

    def value(self, features: Mapping[str, Any], absent: frozenset[str]) -> Any:
        """The function with the features of some modalities zeroed, without gradients."""
        at = tuple((n, None if n in absent else id(tree)) for n, tree in features.items())
        if (self._key, at) not in self._known:
            samples = self._whose(features, absent)
            if samples is None:
                self._work_out(self._known, at, features, absent, dict(features))
            else:
                values = [self._own(sample, absent) for sample in samples]
                self._known[self._key, at] = (_joined(values), dict(features))
        return self._known[self._key, at][0]

    def _whose(self, features: Mapping[str, Any], absent: frozenset[str]) -> Sequence[Alone] | None:
        """The samples that all present features are of, if they are of the same."""
        owners = [
            self._samples.get(id(tree)) for name, tree in features.items() if name not in absent
        ]
        first = owners[0] if owners else None
        return first if all(samples is first for samples in owners) else None

    def _own(self, sample: Alone, absent: frozenset[str]) -> Any:
        if (self._key, absent) not in sample.known:
            self._work_out(sample.known, absent, sample.features, absent, None)
        return sample.known[self._key, absent][0]

    def _work_out(
        self,
        known: dict[Any, Any],
        at: Any,
        features: Mapping[str, Any],
        absent: frozenset[str],
        keep: Any,
    ) -> None:
        """Runs the function; ``keep`` is kept, so that no other features take its identity."""
        self.passes += 1
        inputs = {
            name: map_tensors(self._zeros if name in absent else torch.clone, tree)
            for name, tree in features.items()
        }
        with torch.no_grad():
            value = self.function(**inputs)
        if self._gives_total:
            value, total = value
            known.setdefault((PLAIN, at), (total, keep))
        known[self._key, at] = (value, keep)

    def _zeros(self, leaf: Tensor) -> Tensor:
        return torch.zeros_like(leaf[:1] if self.broadcasts else leaf)


def _joined(values: list[Any]) -> Any:
    """Trees of batch 1 as one of a larger batch."""
    if len(values) == 1:
        return values[0]
    return pytree.tree_map(lambda *leaves: torch.cat(leaves), *values)
