"""How exact a decomposition must be, and what is said where it is not.

Every limit stands here. NaN is beyond all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmd_cli.decomposition import ConservationError, Variant, decompose
from lmd_cli.decomposition.linearised.partial import first_deviation
from lmd_cli.errors import RunError


@dataclass(frozen=True)
class Limits:
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


DOUBLE = Limits(1e-9, 1e-9, 1e-12)
SINGLE = Limits(1e-3, 1e-3, 1e-5)
#: TF32 rounds the factors of products to 10 bits, so that total and parts are rounded apart.
TF32 = Limits(1e-2, 1e-2, 1e-2)
HALF = Limits(1e-1, 1e-1, 1e-1)

#: Largest |total - sum of parts| over max |total| at any one operation in ``lmd check``, which runs
#: a sample in both precisions on its own.
OPERATION = {torch.float32: 1e-4, torch.float64: 1e-12}

#: What is said where no operation can be named.
CONSERVES = "every operation conserves by itself"

#: Where the parts at an element are so many times its total, in the median, they say little.
FAR_BEYOND = 50.0


def limits_of(total: Tensor) -> Limits:
    """The limits for numbers of a prediction's type, where it was computed."""
    if total.dtype == torch.float64:
        return DOUBLE
    if total.dtype != torch.float32:
        return HALF
    rounded = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
    return TF32 if total.is_cuda and rounded else SINGLE


def require_within(what: str, value: float, limit: float, blame: Callable[[], str]) -> None:
    """Stops a run that is not exact.

    Args:
        what: for the message; whose deviation of what.
        value: the deviation.
        limit: what it may be.
        blame: finds the operation where it begins.

    Raises:
        RunError: it is beyond, or no number.
    """
    if value <= limit:
        return
    raise inexact(f"{what} is {value:.1e}, beyond {limit:.0e}", blame())


def inexact(what: str, blame: str) -> RunError:
    """The error that stops a run."""
    return RunError(f"{what}: {blame}; the run stops here and is not finished")


def blame(
    fuse: Callable[..., Any],
    features: Mapping[str, Any],
    variant: str,
    root: nn.Module | None,
    limit: float,
) -> str:
    """The operation where a deviation begins: the sample is decomposed again, audited.

    Args:
        fuse, features, variant, root: what was decomposed.
        limit: from which on a map deviates from what it stands for.
    """
    try:
        result = decompose(fuse, features, variant, root=root, audit="raise", keep_frozen=True)
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


def told_of_size(variant: str, times: float) -> str | None:
    """What to say of parts far beyond the total; nothing where they are not."""
    if not times > FAR_BEYOND:
        return None
    return (
        f"under {variant} the parts at an element are {times:.0f} times its total (median): they "
        f"cancel, and say little about it; {mending(variant)}"
    )


def mending(variant: str) -> str:
    """What keeps the parts small, for a message."""
    own = Variant.parse(variant)
    if own.softmax == "secant":
        other = Variant(own.batch_norm, own.norm, own.activation)
        return f"{other.name} keeps attention weights constant, which mends slopes near zero logits"
    if own.activation != "taylor":
        other = Variant(own.batch_norm, own.norm, "taylor", own.softmax)
        return f"{other.name} takes the derivative for the slope, which has no pole at zero"
    return "no variant has smaller slopes"


def warn_of_size(variant: str, times: float) -> None:
    """A warning, where there is something to say."""
    said = told_of_size(variant, times)
    if said is not None:
        warnings.warn(said, stacklevel=2)
