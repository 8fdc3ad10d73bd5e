"""Layer-wise relevance propagation (Bach et al., 2015), as the paper reads it.

Relevance goes from a target back to the features (sections 2.2, 6, E.4, table 11):

- Linear operations and sums, the epsilon rule: R_i = x_i sum_j w_ij R_j / (z_j + eps sign z_j). The
  share of the operation's own bias in z_j is not handed on.
- Element-wise operations pass relevance directly: an activation's input takes its output's.
- Normalisation: the variance is a constant, so that scaling is element-wise and passes relevance
  directly, and centring is linear. Shares of means and shifts are not handed on.
- Max-pooling: to the maximum. Attention weights are constants (Ali et al., 2022). A product of two
  features: half to each (Achtibat et al., 2024).

What constants take, and what epsilon absorbs, is the ``bias``: the target less the relevance of
the features.

Implementation: R = c * x with a coefficient c for every tensor. The linearised network of LMD's
identity rules runs once on the features as a whole; where it is linear, c is what backpropagation
carries, times z / (z + eps sign z) at every operation that adds terms up. As epsilon goes to 0 this
is the transpose of LMD: LRP's relevance of a modality is LMD's part of the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lmd_cli.attribution.interface import Features, Fuse, Target
from lmd_cli.decomposition import NoRuleError
from lmd_cli.decomposition.api import recorded_program
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.linearised.program import Env, Output, Program, Step, store
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.decomposition.pytrees import leaves, map_tensors
from lmd_cli.errors import MethodError

#: Stabilises denominators.
EPSILON = 1e-6
#: Operators of the kinds ``sum`` and ``product`` that add terms up; others join or scale.
_ADDITIONS = frozenset({"add", "sub", "rsub", "lerp", "addcmul", "addcdiv"})
_MATRIX_PRODUCTS = frozenset({"mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv", "addbmm"})


class Lrp:
    """LRP by the epsilon rule; see the module's text.

    Args:
        epsilon: of the rule, in units of each operation's output.
    """

    name = "lrp"

    def __init__(self, epsilon: float = EPSILON):
        self.epsilon = epsilon

    def scores(self, fuse: Fuse, features: Features, target: Target) -> dict[str, Tensor]:
        """For each modality its relevance (B, n) of every target.

        One pass forward that finds the linear maps, one through them, and one backward for each
        target.

        Raises:
            MethodError: an operation that LRP has no rule for; it is named.
        """
        try:
            program = recorded_program(fuse, features, "identity-ratio")
        except NoRuleError as error:
            raise MethodError(f"lrp has {error}") from error
        _require_real(program)
        inputs = {
            name: map_tensors(lambda t: t.detach().clone().requires_grad_(), tree)
            for name, tree in features.items()
        }
        with torch.enable_grad():
            total = target(_whole(program, inputs, self.epsilon))
            shares = _relevance(total, inputs)
        return {**shares, BIAS: total.detach() - sum(shares.values())}


def _require_real(program: Program) -> None:
    """Refuses complex numbers.

    Raises:
        MethodError: names the first operation that gives them.
    """
    for step in program.steps:
        if any(o.map is not None and o.place.dtype.is_complex for o in step.outputs):
            raise MethodError(f"lrp has no rule for complex numbers: {step.operation} {step.where}")


def _whole(program: Program, inputs: Mapping[str, Any], epsilon: float) -> Any:
    """The function's output for whole inputs, with the derivatives that carry coefficients."""
    return program.collect(program.run(program.start(inputs), _Relevance(epsilon)), True)


class _Relevance:
    """Takes whole values through a step; its derivative is stabilised."""

    def __init__(self, epsilon: float):
        self._epsilon, self._stream = epsilon, Stream(None, 0.0)

    def __call__(self, step: Step, env: Env) -> None:
        for output in step.outputs:
            if output.map is None:
                continue
            made = self._stream.through(output, env)
            if made is not None:
                made = self._stabilised(step, output, made)
            store(env, step, output, made)

    def _stabilised(self, step: Step, output: Output, z: Tensor) -> Tensor:
        """The coefficient that comes back to ``z`` is multiplied by share * z / (z + eps sign z);
        each factor of a product of two features takes half."""
        share = 0.5 if output.varies else 1.0
        if not z.requires_grad or (share == 1.0 and not _adds_terms(step)):
            return z
        value = z.detach()
        away = torch.where(value < 0, value - self._epsilon, value + self._epsilon)
        factor = share * value / away
        z.register_hook(lambda c: c * factor)
        return z


def _adds_terms(step: Step) -> bool:
    """Whether a result is a sum of several terms; joining and scaling hand all of it on."""
    if step.kind == "sum":
        return step.operator in _ADDITIONS
    if step.kind == "product":
        return step.operator in _MATRIX_PRODUCTS
    return step.kind in ("linear", "normalisation")


def _relevance(total: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Coefficient times feature, summed over each modality: (B, n)."""
    tensors = {name: leaves(tree) for name, tree in inputs.items()}
    every = [leaf for own in tensors.values() for leaf in own]
    relevances: dict[str, list[Tensor]] = {name: [] for name in inputs}
    for column in total.unbind(1):
        coefficients = iter(_coefficients(column, every))
        for name, own in tensors.items():
            relevances[name].append(sum(_weighted(next(coefficients), x, column) for x in own))  # type: ignore[arg-type]
    return {
        name: torch.stack(columns, 1) if columns else total.detach()[:, :0]
        for name, columns in relevances.items()
    }


def _coefficients(column: Tensor, inputs: list[Tensor]) -> list[Tensor | None]:
    """None for what a target does not depend on."""
    if not column.requires_grad:
        return [None] * len(inputs)
    return list(torch.autograd.grad(column.sum(), inputs, retain_graph=True, allow_unused=True))


def _weighted(coefficient: Tensor | None, x: Tensor, like: Tensor) -> Tensor:
    """The sum over one tensor, (B,)."""
    if coefficient is None:
        return torch.zeros_like(like)
    return (coefficient * x).detach().flatten(1).sum(1)
