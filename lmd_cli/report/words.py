"""Words that fit the run: a network need not fuse sensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lmd_cli.evaluation.ground.removal import Removal
from lmd_cli.evaluation.metrics import LARGE_BIAS

#: What happens to a removed sensor's features.
HOW: dict[Removal, str] = {
    "zeroed": "set to zero",
    "replaced": "replaced by those of another sample",
}
SENSORS = frozenset(("camera", "radar", "lidar"))


@dataclass(frozen=True)
class Words:
    """What a run's modalities are called.

    Attributes:
        one, many: ``sensor`` and ``sensors``, say.
        fails: what is asked about one that is not there.
    """

    one: str
    many: str
    fails: str

    @property
    def title(self) -> str:
        """``Sensor``."""
        return self.one.capitalize()


def counted(count: int, noun: str) -> str:
    """``1 sample``, ``3 samples``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def words_of(modalities: Collection[str]) -> Words:
    """Sensors where all are, else modalities: MRI and PET are none that could fail."""
    if SENSORS.issuperset(modalities):
        return Words("sensor", "sensors", "fails")
    return Words("modality", "modalities", "is missing")


def bias_warning(shares: Sequence[float]) -> list[str]:
    """What is said where the bias has more than ``LARGE_BIAS`` of the parts' norms.

    Args:
        shares: the bias's norm share, of each sample.
    """
    if max(shares, default=0.0) <= LARGE_BIAS:
        return []
    much = f"{'up to ' if len(shares) > 1 else ''}{max(shares):.0%}"
    return [
        f"The bias has {much} of the parts' norms, more than a third: the other parts say less "
        "than their maps suggest."
    ]
