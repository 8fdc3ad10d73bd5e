"""Methods by the names that the command line takes."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from lmd_cli.attribution.cam import METHODS as CAMS
from lmd_cli.attribution.gradients import MOST_STEPS, GradientTimesInput, IntegratedGradients
from lmd_cli.attribution.interface import Method
from lmd_cli.attribution.linearised import (
    Lmd,
    LmdShapley,
    PartialLinearisation,
    Relinearised,
)
from lmd_cli.attribution.lrp import Lrp
from lmd_cli.attribution.removal import LeaveOneOut, Shapley
from lmd_cli.decomposition import Variant
from lmd_cli.errors import MethodError

METHODS: dict[str, Callable[[], Method]] = {
    "lmd": Lmd,
    "lmd-perturbed": Relinearised,
    "lmd-shapley": LmdShapley,
    "leave-one-out": LeaveOneOut,
    "partial-activations": lambda: PartialLinearisation("activations"),
    "partial-normalisations": lambda: PartialLinearisation("normalisations"),
    "partial-everything": lambda: PartialLinearisation("everything"),
    "shapley": Shapley,
    "gradient-x-input": GradientTimesInput,
    "integrated-gradients": IntegratedGradients,
    "lrp": Lrp,
}
_WITH_VARIANT: dict[str, Callable[[Variant], Method]] = {
    "lmd": Lmd,
    "lmd-perturbed": Relinearised,
    "lmd-shapley": LmdShapley,
}


def method_named(name: str) -> Method:
    """A method by name: one of :data:`METHODS`; those of LMD also with rules, ``lmd:VARIANT``.

    Raises:
        MethodError: there is none of that name; the nearest is suggested.
    """
    method, _, variant = name.partition(":")
    if variant and method in _WITH_VARIANT:
        try:
            return _WITH_VARIANT[method](Variant.parse(variant))
        except ValueError as error:
            raise MethodError(f"method {name!r}: {error}") from None
    if method == "integrated-gradients" and variant:
        return _with_steps(name, variant)
    if name in METHODS:
        return METHODS[name]()
    if name.replace("-", "") in CAMS:
        raise MethodError(
            f"{name} maps a layer and does not split the output, so it cannot stand beside the "
            "methods here; lmd gradcam makes it"
        )
    near = get_close_matches(name, METHODS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise MethodError(
        f"no method {name!r}{hint} (methods: {', '.join(METHODS)}; those of lmd take a "
        "variant, as in lmd:identity-identity; integrated-gradients:64 has 64 steps)"
    )


def _with_steps(name: str, steps: str) -> Method:
    try:
        return IntegratedGradients(int(steps))
    except ValueError:
        raise MethodError(
            f"method {name!r}: expected a number of steps from 1 to {MOST_STEPS} behind the colon"
        ) from None
