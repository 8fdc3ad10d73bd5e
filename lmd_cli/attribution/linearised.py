"""Methods that linearise: LMD, LMD + Shapley (table 4), and partial linearisation (table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from lmd_cli.attribution.interface import Explainer, Features, Fuse, Maps, combine
from lmd_cli.attribution.removal import Plain, leave_one_out, require_few, shapley
from lmd_cli.decomposition import Decomposition, Variant, decompose
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.partial import ACTIVATIONS, NORMALISATIONS, PartiallyLinear
from lmd_cli.decomposition.replay import replay

#: What is linearised, by the name of table 1's columns.
FROZEN = {
    "activations": ACTIVATIONS,
    "normalisations": NORMALISATIONS,
    "everything": ACTIVATIONS | NORMALISATIONS,
}


class Lmd:
    """The parts of a decomposition.

    Args:
        variant: linearisation rules.
    """

    def __init__(self, variant: str | Variant = "identity-ratio"):
        self.variant = Variant.parse(variant)
        self.name = f"lmd:{self.variant.name}"

    def at(self, fuse: Fuse, features: Features) -> LmdExplainer:
        result = decompose(fuse, features, self.variant, keep_frozen=True)
        return LmdExplainer(fuse, features, result)


@dataclass(frozen=True)
class LmdExplainer:
    """LMD at one operating point.

    Attributes:
        clean: the operating point's features.
        result: their decomposition, with its maps.
    """

    fuse: Fuse
    clean: Features
    result: Decomposition

    def parts(self, features: Features) -> Maps:
        """The clean parts, or those of a perturbed input that goes through the clean sample's
        linear network (eq. 14). The bias, and the interaction with it, stays the clean sample's."""
        if features is self.clean:
            return {**self.result.parts, BIAS: self.result.bias}
        moved = replay(self.fuse, features, self.result)
        return {**moved, BIAS: self.result.bias}


class LmdShapley:
    """LMD whose bias part is shared out among the modalities (table 4).

    Modality m's part is h_m + phi_m, phi the Shapley values of v(S) = the bias part of the
    network linearised at x_S. Under perturbation h_m goes through the clean sample's linear
    network, and phi_m is worked out again at the perturbed input. The bias is v of none.
    """

    def __init__(self, variant: str | Variant = "identity-ratio"):
        self.variant = Variant.parse(variant)
        self.name = f"lmd-shapley:{self.variant.name}"

    def at(self, fuse: Fuse, features: Features) -> Explainer:
        require_few(tuple(features))
        linear = Lmd(self.variant).at(fuse, features)
        return _LmdShapleyExplainer(linear, self.variant)


@dataclass(frozen=True)
class _LmdShapleyExplainer:
    linear: LmdExplainer
    variant: Variant

    def parts(self, features: Features) -> Maps:
        own = self.linear.parts(features)
        phi = shapley(self._bias, features)
        return {name: combine(torch.add, own[name], phi[name]) for name in features} | {
            BIAS: phi[BIAS]
        }

    def _bias(self, features: dict[str, Any]) -> Any:
        return decompose(self.linear.fuse, features, self.variant).bias


class PartialLinearisation:
    """Leave-one-out on a network that is linear in part: G(x) - G(x with m zeroed).

    G has only its activations, only its norms, or both linearised at the clean sample. The paper
    does not define its baselines' predictions; under this definition the two ends are leave-one-
    out and LMD itself.

    Args:
        what: a key of :data:`FROZEN`.
        norm: how the norms are linearised: each input centred by its own mean (eq. 11), or the
            clean sample's statistics.
    """

    def __init__(
        self,
        what: Literal["activations", "normalisations", "everything"],
        norm: Literal["ratio", "identity"] = "ratio",
    ):
        self.kinds, self.variant = FROZEN[what], Variant("identity", norm)
        self.name = f"partial-{what}" + ("" if norm == "ratio" else f":{norm}")

    def at(self, fuse: Fuse, features: Features) -> Explainer:
        result = decompose(fuse, features, self.variant, keep_frozen=True)
        return Plain(leave_one_out, PartiallyLinear(fuse, result, self.kinds))
