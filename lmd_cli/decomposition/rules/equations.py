"""Linear equations (eq. 13): their solutions are linear in the right side."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lmd_cli.decomposition.maps import Affine, each
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.rules.refusals import MATRIX
from lmd_cli.decomposition.tracing.calls import Call


@aten_rule(
    *("_linalg_solve_ex", "linalg_solve_triangular", "cholesky_solve", "triangular_solve"),
    "linalg_lu_solve",
    kind="linear",
    equation="eq. 13",
)
def solve(call: Call, **given: Any) -> tuple[Any, Any]:
    """Solutions of linear equations with a constant matrix, for a right side that carries parts.

    Raises:
        NoRuleError: the matrix carries parts.
    """
    name = "input" if "B" not in given else "B"
    if any(call.carries(v) for k, v in given.items() if k != name):
        raise call.refused(MATRIX)
    total, function = call.plain(), call.function
    others = {_schema_name(k): v for k, v in given.items() if k != name}
    several = isinstance(total, (list, tuple))

    def run(b: Tensor) -> Tensor:
        made = function(**others, **{_schema_name(name): b})
        return made[0] if several else made

    found = Affine(each(run), (given[name],))
    return total, [found] if several else found


def _schema_name(name: str) -> str:
    return "self" if name == "input" else name
