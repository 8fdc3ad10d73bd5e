"""Methods that linearise: LMD, LMD + Shapley (table 4), and partial linearisation (table 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from lmd_cli.attribution.coalitions import Coalitions
from lmd_cli.attribution.interface import (
    Explainer,
    Features,
    Fuse,
    Maps,
    combine,
    once,
    remembering,
    run,
)
from lmd_cli.attribution.removal import Plain, leave_one_out, require_few, shapley
from lmd_cli.decomposition import (
    Decomposition,
    Variant,
    decompose,
    decompose_bias,
    module_rules,
)
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.linearised.partial import (
    ACTIVATIONS,
    NORMALISATIONS,
    PartiallyLinear,
)
from lmd_cli.decomposition.linearised.program import products_of_features
from lmd_cli.decomposition.linearised.replay import replay
from lmd_cli.decomposition.result import kept_program
from lmd_cli.decomposition.tracing.modules import find_root

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
        result = linearise(fuse, features, self.variant)
        return LmdExplainer(fuse, features, result, self.variant)


def linearise(fuse: Fuse, features: Features, variant: Variant) -> Decomposition:
    """The decomposition with its maps, made once for all methods that need it."""

    def make() -> Decomposition:
        return decompose(fuse, features, variant, keep_maps=True)

    return once(fuse, f"linearised {variant.name}", features, make)


@dataclass(frozen=True)
class LmdExplainer:
    """LMD at one operating point.

    Attributes:
        clean: the operating point's features.
        result: their decomposition, with its maps.
        variant: its rules.
    """

    fuse: Fuse
    clean: Features
    result: Decomposition
    variant: Variant

    def parts(self, features: Features) -> Maps:
        """The clean parts, or those of a perturbed input that goes through the clean sample's
        linear network (eq. 14). The bias, and the interaction with it, stays the clean sample's."""
        moved = [name for name, tree in features.items() if tree is not self.clean[name]]
        perturbed = {name: self._known(name, features[name]) for name in moved}
        new = [name for name, part in perturbed.items() if part is None]
        perturbed |= replay(self.result, features, only=new) if new else {}
        return {**self.result.parts, **perturbed, BIAS: self.result.bias}

    def _known(self, name: str, tree: Any) -> Any:
        """Its part, where a table of variants has worked it out."""
        fuse = self.fuse
        return fuse.linear(self.variant, name, tree) if isinstance(fuse, Coalitions) else None


class Relinearised:
    """LMD linearised anew at whatever it is asked about: how stable a modality's part is when only
    another one was replaced. Its "keep" comparisons are not 1 by construction.

    Args:
        variant: linearisation rules.
    """

    def __init__(self, variant: str | Variant = "identity-ratio"):
        self.variant = Variant.parse(variant)
        self.name = f"{self.variant.name}@perturbed"

    def at(self, fuse: Fuse, features: Features) -> Explainer:
        return Plain(self._split, fuse)

    def _split(self, fuse: Fuse, features: Features) -> Maps:
        result = decompose(fuse, features, self.variant)
        return {**result.parts, BIAS: result.bias}


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
        met = products_of_features(kept_program(linear.result))
        products = met if self._keeps_constants(fuse) else None

        def bias(**given: Any) -> tuple[Any, Any]:
            return self._at_coalition(fuse, given, products)

        return _LmdShapleyExplainer(linear, _bias_beside(fuse, bias, self.name))

    def _keeps_constants(self, fuse: Fuse) -> bool:
        """Whether all constants go to the bias."""
        rules = self.variant
        return (
            not module_rules(find_root(fuse))
            and rules.batch_norm == "identity"
            and rules.norm != "uniform"
            and rules.activation in ("identity", "taylor")
        )

    def _at_coalition(self, fuse: Fuse, features: Features, products: int | None) -> Any:
        """The bias part, and the output, of the network linearised at a coalition's features.

        Where all constants go to the bias, the bias is followed by itself; the parts of those
        present (absent ones are zero) are followed with it through ``products`` products.
        """
        if products is not None:
            result = decompose_bias(fuse, features, self.variant, products)
        else:
            result = decompose(fuse, features, self.variant)
        return result.bias, result.total


def _bias_beside(fuse: Fuse, bias: Callable[..., tuple[Any, Any]], key: str) -> Fuse:
    """The bias as a function of features; what it finds of the network itself is remembered."""
    if isinstance(fuse, Coalitions):
        return fuse.beside(bias, key)
    return lambda **features: bias(**features)[0]


@dataclass(frozen=True)
class _LmdShapleyExplainer:
    linear: LmdExplainer
    bias: Fuse

    def parts(self, features: Features) -> Maps:
        own = self.linear.parts(features)
        phi = shapley(partial(run, self.bias), features)
        shared = {name: combine(torch.add, own[name], phi[name]) for name in features}
        return {**shared, BIAS: phi[BIAS]}


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
        result = linearise(fuse, features, self.variant)
        return Plain(leave_one_out, remembering(fuse, PartiallyLinear(result, self.kinds)))
