"""Values of a function with some modalities absent, each worked out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.tree import map_tensors


class Coalitions:
    """A function of features that remembers what it gave with which of them present.

    Features are told apart by identity, so the same objects must be passed again. Several methods
    at one sample then share their passes.

    Args:
        function: called as ``function(**features)``.
        broadcasts: whether it adds features up, so that features of batch 1 (of the clean sample,
            and zeros) go with those of larger batches.
    """

    def __init__(self, function: Callable[..., Any], *, broadcasts: bool):
        self.function, self.broadcasts = function, broadcasts
        self.passes = 0
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def __call__(self, **features: Any) -> Any:
        return self.function(**features)

    def like(self, function: Callable[..., Any]) -> Coalitions:
        """Another function of the same features, with a memory of its own."""
        return Coalitions(function, broadcasts=self.broadcasts)

    def value(self, features: Mapping[str, Any], absent: frozenset[str]) -> Any:
        """The function with the features of some modalities zeroed, without gradients."""
        key = tuple((n, None if n in absent else id(tree)) for n, tree in features.items())
        if key not in self._known:
            self.passes += 1
            inputs = {
                name: map_tensors(self._zeros if name in absent else torch.clone, tree)
                for name, tree in features.items()
            }
            with torch.no_grad():  # the features are kept, so that no other takes their identity
                self._known[key] = (features, self.function(**inputs))
        return self._known[key][1]

    def _zeros(self, leaf: Tensor) -> Tensor:
        return torch.zeros_like(leaf[:1] if self.broadcasts else leaf)
