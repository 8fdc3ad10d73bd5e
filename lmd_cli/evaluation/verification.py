"""The check of a prediction in parts: eq. 14 taken literally, and the plain network run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.decomposition import Variant
from lmd_cli.decomposition.layout import BIAS
from lmd_cli.decomposition.linearised.replay import (
    deviation,
    largest,
    replay,
    replay_deviation,
)
from lmd_cli.decomposition.pytrees import map_tensors
from lmd_cli.evaluation.tolerances import magnification
from lmd_cli.evaluation.variants import Prediction, WholeFuse
from lmd_cli.evaluation.walk import Encoding, Visit


@dataclass(frozen=True)
class Verified:
    """A sample's parts compared with what they must be.

    Attributes:
        replay: max |replayed - part| / max |part|, over clean and perturbed parts.
        total: max |total - plain| / max |plain|, of the plain network run once more.
        times: sum of |parts| over |total| at an element, the median.
    """

    replay: float
    total: float
    times: float


def verify(
    network: FusionNetwork, visit: Visit, variant: Variant, output: str, prediction: Prediction
) -> Verified:
    """Compares the schedule's parts with eq. 14 taken literally, and the total with the plain
    network.

    The whole of ``fuse`` is linearised at the clean features; then its maps take each modality
    alone, none, and each modality of the next sample alone. That sample's modalities also ride
    along as parts, which is another way to the same numbers.
    """
    sample, partner = visit.sample, visit.partners[0]
    assert isinstance(sample, Encoding)
    assert sample.features is not None
    moved = [partner] if isinstance(partner, Encoding) else []
    whole = WholeFuse(network, visit, output)
    kept = whole.with_partners(variant, moved)
    clean = replay(kept, sample.features)
    deviations = [replay_deviation(clean, kept), _deviation(clean, prediction.parts)]
    for other in moved:
        assert other.features is not None
        expected = {m: t for m, (t, *_) in prediction.perturbed.items() if t is not None}
        deviations.append(_deviation(replay(kept, other.features, tuple(expected)), expected))
        deviations.append(_deviation({m: x[0] for m, x in kept.extras.items()}, expected))
    with torch.no_grad():
        plain = whole.fuse(**map_tensors(torch.clone, sample.features))
    return Verified(
        largest(deviations),
        largest(deviation({BIAS: (total, plain)}) for total in (prediction.total, kept.total)),
        magnification(kept.total, {**kept.parts, BIAS: kept.bias}),
    )


def _deviation(replayed: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> float:
    return deviation({m: (replayed[m], part) for m, part in parts.items()})
