"""Parts of the outputs of chosen modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor, nn

from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.pytrees import map_tensors
from lmd_cli.decomposition.result import DecomposedTensor, Parts
from lmd_cli.decomposition.tracing.modules import near
from lmd_cli.decomposition.tracing.session import Session


class LayerRecorder:
    """Keeps the output parts of chosen modules, in order of execution.

    Args:
        layers: qualified names, or ``"all"``.
        root: the module that they are relative to.
        merged: whether the interaction is reported in the bias.

    Raises:
        InputError: a name that no module has.
    """

    def __init__(
        self, layers: Iterable[str] | Literal["all"], root: nn.Module | None, merged: bool = True
    ):
        self._all, self._merged = layers == "all", merged
        names = (layers,) if isinstance(layers, str) else layers
        self._names = frozenset() if self._all else frozenset(names)
        self.wanted = self._all or bool(self._names)  # whether any layer was asked for
        self.session: Session | None = None
        self.layers: dict[str, Parts] = {}
        known = dict(root.named_modules() if root is not None and self._names else ())
        for name in sorted(self._names.difference(known)):
            raise InputError(f"unknown layer {name!r}{near(name, known)}")

    def __call__(self, name: str, module: nn.Module, output: Any) -> None:
        if not (self._all or name in self._names):
            return
        count = sum(1 for key in self.layers if key.split("#")[0] == name)
        assert self.session is not None
        tree = map_tensors(lambda t: with_parts(self.session, t, copy=True), output)
        key = f"{name}#{count + 1}" if count else name
        self.layers[key] = Parts(tree, self.session.layout, self._merged)


def with_parts(session: Any, t: Tensor, copy: bool = False) -> Any:
    """A tensor with its parts; a copy that later writes do not change."""
    total = t.clone() if copy else t
    if not session.carries(t):
        return total
    stack, rows = session.parts(t)
    return DecomposedTensor(total, stack.clone() if copy else stack, rows)
