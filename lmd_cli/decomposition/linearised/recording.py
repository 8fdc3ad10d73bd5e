"""The maps of one operating point without anybody's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.decomposition.api import trace
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.decomposition.maps import Affine, Map, Stack
from lmd_cli.decomposition.module_rules import VariantByModule
from lmd_cli.decomposition.pytrees import leaves
from lmd_cli.decomposition.tracing.modules import find_root
from lmd_cli.decomposition.tracing.session import Session


def recorded_program(
    function: Callable[..., Any], inputs: Mapping[str, Any], variant: str
) -> Program:
    """The linearised network at ``inputs``, whose maps no part goes through yet.

    Args:
        function, inputs: as in :func:`lmd_cli.decompose`.
        variant: rules that look at no parts (no activation splits).

    Raises:
        NoRuleError, LeakError: as in :func:`lmd_cli.decompose`.
    """
    root, program = find_root(function), Program()
    variants = VariantByModule(variant, {}, root)
    session = _Recorder(Layout(tuple(inputs)), variants, root=root, program=program)
    with torch.no_grad():
        unknown: dict[str, list[Stack]] = {
            name: [(torch.zeros_like(leaf).unsqueeze(0), (0,)) for leaf in leaves(tree)]
            for name, tree in inputs.items()
        }
        trace(session, function, inputs, unknown, {})
    session.close()
    return program


class _Recorder(Session):
    """Knows which tensors carry parts of the inputs, but not which."""

    def _through(self, linear_map: Map, total: Tensor) -> Stack:
        rows = {row for t in linear_map.operands for row in self.parts(t)[1]}
        if isinstance(linear_map, Affine) and (linear_map.constant is not None or not rows):
            rows.add(self.layout.bias)
        return total.new_zeros((len(rows), *total.shape)), tuple(sorted(rows))
