"""Parts of the outputs of chosen modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor, nn

from lmd_cli.decomposition.errors import InputError
from lmd_cli.decomposition.pytrees import map_tensors
from lmd_cli.decomposition.result import DecomposedTensor, Parts
from lmd_cli.decomposition.tracing.carriers import Carriers
from lmd_cli.decomposition.tracing.modules import near
from lmd_cli.decomposition.tracing.run import Run


def keep_layers(
    session: Run, layers: Iterable[str] | Literal["all"], root: nn.Module | None, merged: bool
) -> dict[str, Parts]:
    """The output parts of chosen modules, which come while a session runs, in order of execution.

    Args:
        layers: qualified names, or ``"all"``.
        root: the module that they are relative to.
        merged: whether the interaction is reported in the bias.

    Raises:
        InputError: a name that no module has.
    """
    kept: dict[str, Parts] = {}
    names = frozenset((layers,) if isinstance(layers, str) else layers)
    known = {name for name, _ in root.named_modules()} if root is not None else set()
    for name in sorted(names - known) if layers != "all" else ():
        raise InputError(f"unknown layer {name!r}{near(name, known)}")

    def keep(name: str, module: nn.Module, output: Any) -> None:
        if layers != "all" and name not in names:
            return
        count = sum(1 for key in kept if key.split("#")[0] == name)
        tree = map_tensors(lambda t: with_parts(session, t, copy=True), output)
        kept[f"{name}#{count + 1}" if count else name] = Parts(tree, session.layout, merged)

    if names:
        session.on_layer = keep
    return kept


def with_parts(session: Carriers, t: Tensor, copy: bool = False) -> Tensor | DecomposedTensor:
    """A tensor with its parts; a copy that later writes do not change."""
    total = t.clone() if copy else t
    if not session.carries(t):
        return total
    stack, rows = session.parts(t)
    return DecomposedTensor(total, stack.clone() if copy else stack, rows)
