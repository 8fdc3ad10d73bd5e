"""A sample's prediction in parts, clean and perturbed, and back: the check by literal replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from lmd_cli.contract import FusionNetwork
from lmd_cli.decomposition.replay import replay, replay_deviation
from lmd_cli.evaluation.families import Families, Family, Prediction, WholeFuse, operating_point
from lmd_cli.evaluation.walk import Encoding, Visit


def predict(network: FusionNetwork, visit: Visit, variant: str, output: str) -> Prediction:
    """Decomposes one visit's sample, and takes its partners through the same linear network.

    The linearisation is made at the clean sample; a replaced modality goes through it (section
    5.2). Whatever is replaced, the other parts are the clean ones.
    """
    point = operating_point(network, visit, output)
    return Family(point, visit.partners, variant).prediction


def predict_variants(
    network: FusionNetwork, visit: Visit, variants: Sequence[str], output: str
) -> Iterator[tuple[str, Prediction]]:
    """:func:`predict` under several variants; what they have in common is worked out once."""
    families = Families(network, visit, output)
    for variant in variants:
        yield variant, families.under(variant)


def verify_by_replay(
    network: FusionNetwork, visit: Visit, variant: str, output: str, prediction: Prediction
) -> float:
    """Largest deviation of the schedule's parts from a literal replay of eq. 14.

    The whole of ``fuse`` is linearised at the clean features, then run on plain tensors: on each
    modality alone, on none, and on each modality of the next sample alone. That sample's
    modalities also ride along as parts, which is another way to the same numbers.

    Returns:
        max |replayed - part| / max |part|, over clean and perturbed parts.
    """
    sample, partner = visit.sample, visit.partners[0]
    assert isinstance(sample, Encoding)
    assert sample.features is not None
    moved = [partner] if isinstance(partner, Encoding) else []
    whole = WholeFuse(network, visit, output)
    kept = whole.riding(variant, moved)
    clean = replay(whole.fuse, sample.features, kept)
    deviations = [replay_deviation(clean, kept), _deviation(clean, prediction.parts)]
    for other in moved:
        assert other.features is not None
        expected = {m: t for m, (t, *_) in prediction.perturbed.items() if t is not None}
        deviations.append(_deviation(replay(whole.fuse, other.features, kept), expected))
        deviations.append(_deviation({m: x[0] for m, x in kept.extras.items()}, expected))
    return max(deviations)


def _deviation(replayed: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> float:
    worst = max(float((replayed[m] - part).abs().max()) for m, part in parts.items())
    scale = max(float(part.abs().max()) for part in parts.values())
    return worst / scale if scale else worst
