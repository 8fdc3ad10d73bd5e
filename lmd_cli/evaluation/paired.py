"""Runs compared with a first one: the same samples, the same vehicles, the same resamples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmd_cli.evaluation.run_metrics import (
    BY_PARTS,
    BY_REMOVAL,
    DETECTED,
    Metric,
    Vehicle,
    difference,
)
from lmd_cli.evaluation.statistics import Interval, Resampling

#: Scenes are resampled if there are so many; of fewer, samples.
FEWEST_SCENES = 10
#: How often they are resampled.
RESAMPLES = 1000
#: What is resampled, and the verdict of a vehicle that is not detected.
SCENE, SAMPLE, NOT_DETECTED = "scene", "sample", "not detected"


@dataclass(frozen=True, eq=False)
class Clusters:
    """What the bootstrap draws.

    Attributes:
        kind: :data:`SCENE` or :data:`SAMPLE`.
        of: each sample's cluster, by its token.
        draws: the resamples.
    """

    kind: str
    of: Mapping[str, str]
    draws: Resampling

    @property
    def count(self) -> int:
        return len(set(self.of.values()))


def clusters_of(
    samples: Sequence[str], scenes: Mapping[str, str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Clusters:
    """Scenes, whose samples are not independent, if enough of them are known; else samples.

    Args:
        samples: tokens.
        scenes: each sample's, as far as it is known.
    """
    known = all(scenes.get(token) for token in samples)
    enough = known and len({scenes[token] for token in samples}) >= FEWEST_SCENES
    of = {token: scenes[token] if enough else token for token in samples}
    draws = Resampling(list(of.values()), seed=seed, resamples=resamples)
    return Clusters(SCENE if enough else SAMPLE, of, draws)


@dataclass(frozen=True)
class MetricRow:
    """A metric of every run.

    Attributes:
        name, meaning: of the metric.
        values: one for each run, the first run's first.
        counts: how many rows (pairs, samples, vehicles) each is made of.
        differences: of each other run from the first, with its interval.
    """

    name: str
    meaning: str
    values: Sequence[float]
    counts: Sequence[int]
    differences: Sequence[Interval]


def metric_row(metrics: Sequence[Metric], clusters: Clusters) -> MetricRow:
    """The same metric of every run, compared with the first run's."""
    first, *others = metrics
    paired = [difference(first, other, clusters.draws, clusters.of) for other in others]
    values, counts = [m.value for m in metrics], [len(m.samples) for m in metrics]
    return MetricRow(first.name, first.meaning, values, counts, paired)


@dataclass(frozen=True)
class Change:
    """A vehicle whose decisive sensor is another in another run.

    Attributes:
        before, after: its columns of ``objects.csv`` in both runs.
        parts, removal: the verdicts (before, after), by parts and by removal.
    """

    before: Vehicle
    after: Vehicle
    parts: tuple[str, str]
    removal: tuple[str, str]

    @property
    def changed(self) -> bool:
        """Whether a verdict differs."""
        return self.parts[0] != self.parts[1] or self.removal[0] != self.removal[1]

    @property
    def detection(self) -> str:
        """Whether it was won or lost; empty if neither."""
        before, after = self.before[DETECTED], self.after[DETECTED]
        return "" if before == after else "newly detected" if after else "newly missed"


def vehicle_changes(first: Sequence[Vehicle], second: Sequence[Vehicle]) -> list[Change]:
    """Every vehicle that both runs have, by tokens of sample and annotation."""
    there = {vehicle_key(vehicle): vehicle for vehicle in second}
    pairs = [(v, there[vehicle_key(v)]) for v in first if vehicle_key(v) in there]
    return [Change(a, b, _verdicts(a, b, BY_PARTS), _verdicts(a, b, BY_REMOVAL)) for a, b in pairs]


def vehicle_key(vehicle: Vehicle) -> tuple[str, str]:
    """Sample and annotation."""
    return str(vehicle["sample_token"]), str(vehicle["token"])


def _verdicts(before: Vehicle, after: Vehicle, column: str) -> tuple[str, str]:
    return before[column] or NOT_DETECTED, after[column] or NOT_DETECTED


def moves(changes: Sequence[Change], source: str) -> Counter[tuple[str, str]]:
    """How many vehicles went from which verdict to which.

    Args:
        source: ``parts`` or ``removal``.
    """
    return Counter(getattr(change, source) for change in changes)
