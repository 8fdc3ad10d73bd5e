"""Hits, false alarms and misses by sensor: counts with shares and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmd_cli.evaluation.detections.matching import FALSE_ALARM, HIT, MISS
from lmd_cli.evaluation.statistics import bootstrap_means

Row = Mapping[str, Any]
#: Edges between the groups of distances, metres.
EDGES = (10, 20, 30, 40, 50)
#: What sensor a kind of outcome is counted by.
SENSE = {HIT: "decisive", FALSE_ALARM: "decisive", MISS: "against"}
#: Of fewer scenes than this, intervals draw objects, and the samples of false alarms.
FEW_SCENES = 10
COUNT_FIELDS = ("by", "group", "outcome", "sensor", "count", "of", "share", "low", "high")


def _distance(row: Row) -> str:
    below = [edge for edge in EDGES if row["distance"] >= edge]
    if len(below) == len(EDGES):
        return f"{EDGES[-1]} m and more"
    low = below[-1] if below else 0
    return f"{low} to {EDGES[len(below)]} m"


def _weather(row: Row) -> str:
    return f"{'rain' if row['rain'] else 'no rain'}, {'night' if row['night'] else 'day'}"


def _visibility(row: Row) -> str:
    return str(row["visibility"]) if row["visibility"] else "not known"


#: What detections are grouped by.
GROUPS: dict[str, Callable[[Row], str]] = {
    "all": lambda row: "all",
    "class": lambda row: str(row["class"]),
    "distance": _distance,
    "weather": _weather,
    "visibility": _visibility,
}


@dataclass(frozen=True)
class Count:
    """One row of ``detection_counts.csv``.

    Attributes:
        by, group: one of :data:`GROUPS` and its group.
        outcome: hit, false alarm or miss.
        sensor: which is decisive, or speaks against a miss.
        count: how many.
        of: all of the outcome in the group.
        low, high: interval of the share, whole clusters drawn with replacement, see
            :func:`clusters`.
    """

    by: str
    group: str
    outcome: str
    sensor: str
    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of all of the outcome in the group."""
        return self.count / self.of


#: by, group, outcome, sensor.
Key = tuple[str, str, str, str]


def members(rows: Sequence[Row], method: str) -> dict[Key, list[Row]]:
    """The detections behind each count: hits and misses are annotations, false alarms boxes.

    A hit's sensor is that of the predicted box, whose parts are the detection's. Those of which no
    parts are known are left out.

    Args:
        rows: of ``detections.csv``.
        method: whose parts.
    """
    by_number = {row["detection"]: row for row in rows}
    chosen = [row for row in rows if _is_counted(row, method)]
    made: dict[Key, list[Row]] = {}
    for by, group_of in GROUPS.items():
        for row in chosen:
            if by == "visibility" and row["outcome"] == FALSE_ALARM:
                continue  # nobody annotates what is not there
            sensor = sensor_of(row, by_number, method)
            made.setdefault((by, group_of(row), row["outcome"], sensor), []).append(row)
    return dict(sorted(made.items(), key=lambda item: _order(item[0])))


def _order(key: Key) -> tuple[int, str, int, str]:
    by, group, outcome, sensor = key
    return list(GROUPS).index(by), group, list(SENSE).index(outcome), sensor


def _is_counted(row: Row, method: str) -> bool:
    kind = {HIT: "annotation", MISS: "annotation", FALSE_ALARM: "box"}
    return kind.get(row["outcome"]) == row["kind"] and bool(row.get(f"{method}.against"))


def counts(rows: Sequence[Row], method: str, *, seed: int, resamples: int = 1000) -> list[Count]:
    """Every group's outcomes by sensor, see :func:`members`.

    Args:
        seed: of the resampling.
        resamples: how often clusters are drawn.
    """
    cluster_of = clusters(rows)
    together: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for (by, group, outcome, sensor), own in members(rows, method).items():
        together.setdefault((by, group, outcome), {})[sensor] = own
    made: list[Count] = []
    for key, by_sensor in together.items():
        names = [sensor for sensor, own in by_sensor.items() for _ in own]
        drawn = [cluster_of(row) for own in by_sensor.values() for row in own]
        made += _shares(key, names, drawn, seed, resamples)
    return made


def sensor_of(row: Row, by_number: Mapping[int, Row], method: str) -> str:
    """By which sensor a detection is counted."""
    if row["outcome"] == HIT and row["kind"] == "annotation":
        row = by_number[row["match"]]
    return str(row[f"{method}.{SENSE[row['outcome']]}"])


def clusters(rows: Sequence[Row]) -> Callable[[Row], str]:
    """What intervals draw whole: scenes, whose samples are alike; of fewer than
    :data:`FEW_SCENES`, objects, and for false alarms samples."""
    if _scenes(rows) >= FEW_SCENES:
        return lambda row: str(row["scene"])
    return lambda row: str(row["instance"] or row["sample"])


def _scenes(rows: Sequence[Row]) -> int:
    return len({row["scene"] for row in rows})


def _shares(
    key: tuple[str, str, str],
    sensors: Sequence[str],
    groups: Sequence[str],
    seed: int,
    resamples: int,
) -> list[Count]:
    """The counts of one outcome in one group, of which each detection's sensor is given."""
    names = sorted(set(sensors))
    is_of = np.array([[sensor == name for name in names] for sensor in sensors], dtype=np.float64)
    low, high = bootstrap_means(is_of, groups, seed=seed, resamples=resamples)
    total = is_of.sum(axis=0)
    return [
        Count(*key, name, int(total[i]), len(sensors), float(low[i]), float(high[i]))
        for i, name in enumerate(names)
    ]


def count_rows(made: Sequence[Count]) -> list[Sequence[Any]]:
    """``detection_counts.csv`` with its header."""
    return [COUNT_FIELDS, *([getattr(one, name) for name in COUNT_FIELDS] for one in made)]


def clusters_note(rows: Sequence[Row]) -> str:
    """What the intervals are of."""
    scenes = _scenes(rows)
    if scenes >= FEW_SCENES:
        return f"Intervals (95 %) draw whole scenes, of which there are {scenes}."
    few = "one scene is" if scenes == 1 else f"{scenes} scenes are"
    return (
        f"Intervals (95 %) draw whole objects, and for false alarms whole samples: {few} too few "
        "to draw. Samples of a scene are alike, so the intervals are too narrow."
    )
