"""Numerical tolerances of a decomposition at each precision, and the errors beyond them.

Every tolerance stands here. NaN is beyond all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lmd_cli.decomposition import ConservationError, Variant, decompose
from lmd_cli.decomposition.linearised.partial import first_deviation
from lmd_cli.errors import RunError


@dataclass(frozen=True)
class Tolerances:
    """Largest deviations at one precision.

    Attributes:
        replay: of a part from the linearised network's, over the largest |part|.
        conservation: of the sum of the parts from the total, over the largest sum of |parts|.
        total: of the total from the plain network's output, over its largest value. They are the
            same bits where the same kernels run.
    """

    replay: float
    conservation: float
    total: float


DOUBLE = Tolerances(1e-9, 1e-9, 1e-12)
SINGLE = Tolerances(1e-3, 1e-3, 1e-5)
#: TF32 rounds the factors of products to 10 bits, so that total and parts are rounded apart.
TF32 = Tolerances(1e-2, 1e-2, 1e-2)
HALF = Tolerances(1e-1, 1e-1, 1e-1)

#: Largest |total - sum of parts| over max |total| at any one operation in ``lmd check``, which runs
#: a sample in both precisions on its own.
OPERATION = {torch.float32: 1e-4, torch.float64: 1e-12}

#: The place of a deviation that begins at no operation.
CONSERVES = "every operation conserves by itself"

#: Parts of so many times the total at an element, in the median, are hard to interpret.
LARGE_PARTS = 50.0


def tolerances_of(total: Tensor) -> Tolerances:
    """The limits for numbers of a prediction's type, where it was computed."""
    if total.dtype == torch.float64:
        return DOUBLE
    if total.dtype != torch.float32:
        return HALF
    rounded = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return TF32 if total.is_cuda and rounded else SINGLE


def require_within(what: str, value: float, limit: float, locate: Callable[[], str]) -> None:
    """Stops a run that is not exact.

    Args:
        what: for the message; whose deviation of what.
        value: the deviation.
        limit: what it may be.
        locate: finds the operation where it begins.

    Raises:
        RunError: it is beyond, or no number.
    """
    if value <= limit:
        return
    raise inexact_error(f"{what} is {value:.1e}, beyond {limit:.0e}", locate())


def inexact_error(what: str, where: str) -> RunError:
    """The error that stops a run."""
    return RunError(f"{what}: {where}; the run stops here and is not finished")


def locate_deviation(
    fuse: Callable[..., Any],
    features: Mapping[str, Any],
    variant: Variant,
    root: nn.Module | None,
    limit: float,
) -> str:
    """The operation where a deviation begins: the sample is decomposed again, audited.

    Args:
        fuse, features, variant, root: what was decomposed.
        limit: from which on a map deviates from what it stands for.
    """
    try:
        result = decompose(fuse, features, variant, root=root, audit="raise", keep_maps=True)
    except ConservationError as error:
        return str(error)
    step = first_deviation(result, features, limit)
    if step is not None:
        return f"{step.operation} {step.where} is not what its map gives"
    return CONSERVES


def magnification(total: Tensor, parts: Mapping[str, Tensor]) -> float:
    """How many times the total the parts at an element are, in the median: sum of |parts| over
    |total|."""
    size = torch.stack([part.abs() for part in parts.values()]).sum(0)
    there = total != 0
    return float((size[there] / total[there].abs()).median()) if bool(there.any()) else 0.0


def large_parts_message(variant: Variant, times: float) -> str | None:
    """A warning of parts far larger than the total; nothing where they are not."""
    if not times > LARGE_PARTS:
        return None
    return (
        f"under {variant} the parts at an element are {times:.0f} times its total (median): they "
        f"cancel, and say little about it; {_remedy(variant)}"
    )


def _remedy(variant: Variant) -> str:
    """What keeps the parts small, for a message."""
    if variant.softmax == "secant":
        other = replace(variant, softmax=Variant().softmax)
        return f"{other.name} keeps attention weights constant, which mends slopes near zero logits"
    if variant.activation != "taylor":
        other = replace(variant, activation="taylor")
        return f"{other.name} takes the derivative for the slope, which has no pole at zero"
    return "no variant has smaller slopes"


def warn_of_large_parts(variant: Variant, times: float) -> None:
    """Warns where :func:`large_parts_message` has a message."""
    message = large_parts_message(variant, times)
    if message is not None:
        warnings.warn(message, stacklevel=2)
