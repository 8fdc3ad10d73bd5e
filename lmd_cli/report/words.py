"""Words that fit the run: a network need not fuse sensors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

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


def words_of(modalities: Collection[str]) -> Words:
    """Sensors where all are, else modalities: MRI and PET are none that could fail."""
    if SENSORS.issuperset(modalities):
        return Words("sensor", "sensors", "fails")
    return Words("modality", "modalities", "is missing")
