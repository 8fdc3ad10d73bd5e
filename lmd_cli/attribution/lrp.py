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

Implementation: R = c * x with a coefficient c for every tensor, and c is what backpropagation
carries when each operation's derivative is replaced: by slope output / input for activations
(R_in = R_out), by the linear map of constant variance for norms, and by the derivative times
z / (z + eps sign z) for linear operations. As epsilon goes to 0 this is the transpose of LMD under
its identity rules: LRP's relevance of a modality is LMD's part of the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lmd_cli.attribution.interface import Features, Fuse, Target, autograd_followed
from lmd_cli.decomposition import Layout, NoRuleError, Rule, Variant, find_rule
from lmd_cli.decomposition.frozen import FrozenMap, Stream
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.marks import count_marked, mark, unmark, unmark_tensor
from lmd_cli.decomposition.modules import find_root
from lmd_cli.decomposition.registry import function_name
from lmd_cli.decomposition.rules.arithmetic import add_
from lmd_cli.decomposition.rules.attention import COMPOSED
from lmd_cli.decomposition.session import Session
from lmd_cli.decomposition.tensor import DecomposedTensor
from lmd_cli.decomposition.tree import map_tensors
from lmd_cli.errors import MethodError

#: Stabilises denominators.
EPSILON = 1e-6


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

        One pass forward and one backward for each target.

        Raises:
            MethodError: an operation that LRP has no rule for; it is named.
        """
        leaves = {
            name: map_tensors(lambda t: t.detach().clone().requires_grad_(), tree)
            for name, tree in features.items()
        }
        session = Session(
            Layout(("features",)),
            Variant("identity", "ratio"),
            root=find_root(fuse),
            keep_frozen=True,
        )
        with torch.enable_grad(), autograd_followed(self.name):
            marked = {name: map_tensors(_marked_copy, tree) for name, tree in leaves.items()}
            with session.tracker.active(), _RelevanceMode(session, self.epsilon):
                output = fuse(**marked)
            total = target(map_tensors(unmark_tensor, output))
            shares = _relevance(total, leaves)
        return {**shares, BIAS: total.detach() - sum(shares.values())}


def _marked_copy(leaf: Tensor) -> Tensor:
    """A copy that the network may write to."""
    return mark(leaf.clone())


def _relevance(total: Tensor, leaves: dict[str, Any]) -> dict[str, Tensor]:
    """Coefficient times feature, summed over each modality: (B, n)."""
    tensors = pytree.tree_leaves(leaves)
    found: dict[str, list[Tensor]] = {name: [] for name in leaves}
    for column in total.unbind(1):
        coefficients = torch.autograd.grad(
            column.sum(), tensors, retain_graph=True, allow_unused=True
        )
        known = dict(zip(map(id, tensors), coefficients, strict=True))
        for name, tree in leaves.items():
            found[name].append(_weighted_sum(tree, known, column))
    return {
        name: torch.stack(columns, 1) if columns else total.detach()[:, :0]
        for name, columns in found.items()
    }


def _weighted_sum(tree: Any, coefficients: Mapping[int, Tensor | None], like: Tensor) -> Tensor:
    total = torch.zeros_like(like)
    for leaf in pytree.tree_leaves(tree):
        c = coefficients[id(leaf)]
        if c is not None:
            total = total + (c * leaf).detach().flatten(1).sum(1)
    return total


class _RelevanceMode(TorchFunctionMode):
    """Runs the network with the derivatives that carry coefficients back."""

    def __init__(self, session: Session, epsilon: float):
        super().__init__()
        self._session, self._epsilon = session, epsilon
        self._stream = Stream(None, session.layout.uniform_share, {}, keep=False)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        marked = count_marked(args, kwargs)
        if not marked:
            return func(*args, **kwargs)
        rule = self._rule(func)
        if rule.kind == "composite":
            with self:
                return COMPOSED[func](*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            if rule.kind in ("activation", "normalisation"):
                return self._linearised(rule, func, args, kwargs)
            return self._plain(rule, func, args, kwargs, marked)

    def _rule(self, func: Any) -> Rule:
        rule = find_rule(func)
        if rule is None or rule.kind == "refused":
            where = self._session.tracker.describe()
            raise MethodError(f"lrp has no rule for {function_name(func)}, called {where}")
        return rule

    def _plain(self, rule: Rule, func: Any, args: Any, kwargs: Any, marked: int) -> Any:
        """What is linear runs as it is; its derivative is stabilised."""
        out = func(*unmark(args), **unmark(kwargs))
        if rule.kind in ("metadata", "constant") or out is None:
            return out
        if rule.kind == "softmax":
            return out.detach()
        share = 0.5 if rule.kind == "product" and marked == 2 else 1.0
        if isinstance(out, Tensor) and (_sums_terms(rule) or share < 1.0):
            self._stabilise(out, rule.inplace, share)
        return mark(out)

    def _stabilise(self, z: Tensor, inplace: bool, share: float = 1.0) -> None:
        """Multiplies the coefficient that comes back to ``z`` by share * z / (z + eps sign z)."""
        if not z.requires_grad:
            return
        size = z.detach().abs()  # |z| / (|z| + eps) is z / (z + eps sign z)
        factor = share * size / (size + self._epsilon)
        if inplace:  # whoever reads the tensor that was written to must meet the factor
            z.copy_(_scaled_coefficient(z, factor))
        else:
            z.register_hook(lambda c: c * factor)

    def _linearised(self, rule: Rule, func: Any, args: Any, kwargs: Any) -> Any:
        """An activation or a norm as its linear map at this input."""
        x = unmark_tensor(args[0] if args else kwargs["input"])
        linear_map = self._map_at(rule, func, x, args, kwargs)
        out = linear_map(x, self._stream, 0)
        if rule.kind == "normalisation":
            self._stabilise(out, False)
        if rule.inplace or kwargs.get("inplace"):
            x.copy_(out)
            return mark(x)
        return mark(out)

    def _map_at(self, rule: Rule, func: Any, x: Tensor, args: Any, kwargs: Any) -> FrozenMap:
        session, value = self._session, x.detach().clone()
        lifted = DecomposedTensor.wrap(value, value.clone().unsqueeze(0), (0,))
        others = {name: unmark_tensor(v) for name, v in kwargs.items() if name != "input"}
        with torch.no_grad():
            try:
                rule.apply(session, func, session.remember(lifted), *unmark(args[1:]), **others)
            except NoRuleError as error:
                raise MethodError(f"lrp: {error}") from error
        assert session.tape is not None
        return session.tape.pop()


def _sums_terms(rule: Rule) -> bool:
    """Whether an output is a sum of several terms; joining and scaling hand all of it on."""
    scaling_or_addition = rule.apply.__module__ == add_.__module__
    return rule.kind == "linear" or (rule.kind, scaling_or_addition) in (
        ("sum", True),
        ("product", False),
    )


def _scaled_coefficient(z: Tensor, factor: Tensor) -> Tensor:
    copy = z.clone()
    copy.register_hook(lambda c: c * factor)
    return copy
