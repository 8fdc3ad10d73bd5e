"""Charts of the vehicles: what removal loses and what parts say, by distance, weather and so on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmd_cli.decomposition.layout import INTERACTION
from lmd_cli.evaluation.ground.decisive import MISSED, SEVERAL, TOGETHER
from lmd_cli.evaluation.ground.detection import Criterion
from lmd_cli.evaluation.ground.removal import lost_without
from lmd_cli.evaluation.ground.vehicles import part_field, sensors_of
from lmd_cli.evaluation.metrics import LARGE_BIAS, bias_share, evidence_shares
from lmd_cli.evaluation.paired import RESAMPLES, SAMPLE, Clusters
from lmd_cli.evaluation.run_metrics import Metric
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.report.page.svg_charts import Bar, Group, bars
from lmd_cli.report.page.table_cells import PageTable, page_table
from lmd_cli.report.palette import shade, slot
from lmd_cli.report.tables.removal import counted_annotations
from lmd_cli.report.words import counted
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_metrics import SurveyMetrics

#: One vehicle: the columns of ``objects.csv`` by name.
Vehicle = Mapping[str, Any]
#: The series beside the sensors': lost to at least one of their failures.
ANY = "at least one of them"


@dataclass(frozen=True)
class Grouping:
    """A chart's horizontal axis.

    Attributes:
        title: of the chart.
        labels: of the groups, in order.
        place: which group a vehicle is in; none for no group.
    """

    title: str
    labels: Sequence[str]
    place: Callable[[Vehicle], int | None]


def _binned(title: str, column: str, edges: Sequence[float], labels: Sequence[str]) -> Grouping:
    """Groups between edges: label i holds edges[i] <= value < edges[i + 1]."""

    def place(vehicle: Vehicle) -> int | None:
        value = vehicle[column]
        return None if value is None else int(np.searchsorted(edges, value, side="right")) - 1

    return Grouping(title, labels, place)


GROUPINGS = (
    _binned(
        *("Distance (m)", "distance", (0, 10, 20, 30, 40)),
        labels=("0–10", "10–20", "20–30", "30–40", "over 40"),
    ),
    _binned(
        *("Visibility in the cameras (%)", "visibility", (1, 2, 3, 4)),
        labels=("0–40", "40–60", "60–80", "80–100"),
    ),
    _binned("Weather, as the scene is described", "rain", (0, 1), ("no rain", "rain")),
    _binned("Time of day, as the scene is described", "night", (0, 1), ("day", "night")),
    _binned(
        *("Radar points on the vehicle", "num_radar_pts", (0, 1, 3, 6)),
        labels=("none", "1–2", "3–5", "6 or more"),
    ),
    _binned("Speed (m/s)", "speed", (0, 0.5, 5), ("below 0.5", "0.5–5", "over 5")),
)


@dataclass(frozen=True)
class Measure:
    """What is charted.

    Attributes:
        name, title, meaning: an identifier, a label, and a sentence.
        axis: title of the vertical axis.
        series: bars of each group.
        slots: their colours.
        values: one number for each of the series, or none if the vehicle does not count.
    """

    name: str
    title: str
    axis: str
    meaning: str
    series: Sequence[str]
    slots: Sequence[int]
    values: Callable[[Vehicle], Sequence[float] | None]


def measures(
    parts: Sequence[str], criterion: Criterion | None = None, rules: str = ""
) -> list[Measure]:
    """The measures, for whatever parts there are.

    Args:
        parts: names.
        criterion: of the output.
        rules: that the parts are made by.
    """
    by = f" Parts by the rules {rules}." if rules else ""
    colours, words = [slot(name, parts) for name in parts], (criterion or Criterion()).words
    return [
        _removal_measure(parts, words),
        Measure(
            "share",
            "share of the evidence (parts)",
            "mean share of the evidence",
            "Who contributed? Each part's share of the evidence for the vehicle: its mean logit in "
            "the footprint where positive, over the sum of the positive ones. Vehicles that no "
            "part speaks for are left out. What the network does without a sensor is another "
            f"question: see removal.{by}",
            *(parts, colours),
            lambda vehicle: evidence_shares([vehicle[part_field(name)] for name in parts]),
        ),
        _decisive_measure(parts, words, by),
    ]


def _removal_measure(parts: Sequence[str], detected: str) -> Measure:
    sensors = sensors_of(parts)
    return Measure(
        "removal",
        "lost without a sensor (removal)",
        "share of the detected vehicles",
        "What if a sensor fails? Of the vehicles that are detected "
        f"({detected} in the footprint), the share that the unchanged network loses with that "
        "sensor's features removed, and with at least one of them.",
        [*sensors, ANY],
        [*(slot(name, parts) for name in sensors), shade(0)],
        lambda vehicle: _lost_values(vehicle, sensors),
    )


def _lost_values(vehicle: Vehicle, sensors: Sequence[str]) -> list[float] | None:
    if not vehicle["detected"]:
        return None
    lost = lost_without(vehicle, sensors)
    return [*(float(name in lost) for name in sensors), float(bool(lost))]


def _decisive_measure(parts: Sequence[str], detected: str, by: str) -> Measure:
    sensors = sensors_of(parts)
    alone = [*sensors, SEVERAL, TOGETHER]
    return Measure(
        "decisive",
        "enough alone (parts)",
        "share of the detected vehicles",
        "Who contributed? This does not say what happens when a sensor fails. Of the vehicles that "
        f"are detected ({detected} in the footprint): for which is one "
        "sensor's part alone, with the bias, enough to stay so? Exactly one (that sensor is "
        f"decisive), {SEVERAL}, or {TOGETHER}.{by}",
        alone,
        [*(slot(name, parts) for name in sensors), slot(INTERACTION, parts), shade(0)],
        lambda vehicle: _decisive_values(vehicle, alone),
    )


def _decisive_values(vehicle: Vehicle, verdicts: Sequence[str]) -> list[float] | None:
    if vehicle["enough_by_parts"] == MISSED:
        return None
    return [float(vehicle["enough_by_parts"] == name) for name in verdicts]


def objects_values(survey: Survey) -> dict[str, Any] | None:
    """What the page's template needs; ``None`` without vehicles that the output looks for."""
    criterion, vehicles = survey.criterion, survey.vehicles
    sought = [vehicle for vehicle in vehicles if vehicle["sought"]]
    inside = [vehicle for vehicle in sought if vehicle["inside"]]
    if not inside:
        return None
    clusters = SurveyMetrics(survey).clusters
    return {
        "count": counted_annotations(inside),
        "outside": len(sought) - len(inside),
        "others": len(vehicles) - len(sought),
        "detected": sum(vehicle["detected"] for vehicle in inside),
        "criterion": criterion.words,
        "score": criterion.quantity,
        "threshold": criterion.threshold,
        "bias": mean_bias_share(inside, survey.parts),
        "large_bias": LARGE_BIAS,
        "resamples": RESAMPLES,
        "drawn": f"{clusters.kind}s",
        "few_scenes": clusters.kind == SAMPLE,
        "measures": [
            _measure_values(m, inside, clusters)
            for m in measures(survey.parts, criterion, survey.variant)
        ],
    }


def mean_bias_share(vehicles: Sequence[Vehicle], parts: Sequence[str]) -> float | None:
    """The mean of :func:`~.metrics.bias_share` over vehicles."""
    shares = [
        bias_share({name: vehicle[part_field(name)] for name in parts}) for vehicle in vehicles
    ]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def objects_of(survey: Survey) -> list[dict[str, Any]]:
    """Vehicles and detections without an annotation; ``number`` is the place in the sample."""
    objects, numbers = survey.by_column(), Counter[str]()
    for each in objects:
        each["number"] = numbers[each["sample_token"]]
        numbers[each["sample_token"]] += 1
    return objects


def detected_vehicles(survey: Survey) -> tuple[int, int]:
    """How many vehicles are detected, and of how many that the output looks for in its maps."""
    inside = [v for v in survey.vehicles if v["sought"] and v["inside"]]
    return sum(vehicle["detected"] for vehicle in inside), len(inside)


@dataclass(frozen=True)
class _Chart:
    """One grouping of the vehicles; ``unknown`` count, but are in no group."""

    title: str
    groups: Sequence[Group]
    unknown: int

    @property
    def compares(self) -> bool:
        """Whether two groups hold a vehicle."""
        return sum(bool(group.count) for group in self.groups) > 1


def _measure_values(
    measure: Measure, vehicles: Sequence[Vehicle], clusters: Clusters
) -> dict[str, Any]:
    every = [_chart(measure, grouping, vehicles, clusters) for grouping in GROUPINGS]
    charts = [chart for chart in every if chart.compares]
    return {
        "name": measure.name,
        "title": measure.title,
        "meaning": measure.meaning,
        "legend": list(zip(measure.series, measure.slots, strict=True)),
        "charts": [_drawn(measure, chart) for chart in charts],
        "table": _numbers(measure, charts),
        "left_out": ", ".join(chart.title for chart in every if not chart.compares),
    }


def _drawn(measure: Measure, chart: _Chart) -> dict[str, Any]:
    across, slots = chart.title, measure.slots
    svg = bars(chart.groups, measure.series, measure.axis, slots=slots, across=across)
    return {"title": chart.title, "svg": svg, "unknown": chart.unknown}


def _numbers(measure: Measure, charts: Sequence[_Chart]) -> PageTable:
    """What the bars show, with their intervals."""
    intervals = [f"{name}, 95 % interval" for name in measure.series]
    series = [column for pair in zip(measure.series, intervals, strict=True) for column in pair]
    rows = [
        [chart.title, group.label, group.count, *_bar_cells(group)]
        for chart in charts
        for group in chart.groups
    ]
    caption = f"The numbers of these charts: {measure.axis}"
    return page_table(f"numbers_{measure.name}", caption, ["by", "group", "n", *series], rows)


def _bar_cells(group: Group) -> list[float | str | None]:
    cells: list[float | str | None] = []
    for bar in group.bars:
        known = bar.low is not None and bar.high is not None
        cells += [bar.value, f"{bar.low:.3g} to {bar.high:.3g}" if known else ""]
    return cells


def _chart(
    measure: Measure, grouping: Grouping, vehicles: Sequence[Vehicle], clusters: Clusters
) -> _Chart:
    placed: list[list[tuple[str, Sequence[float]]]] = [[] for _ in grouping.labels]
    unknown = 0
    for vehicle in vehicles:
        at, values = grouping.place(vehicle), measure.values(vehicle)
        if values is None:
            continue
        if at is None or at < 0:
            unknown += 1
        else:
            placed[at].append((vehicle["sample_token"], values))
    groups = [
        _group(label, measure, members, clusters)
        for label, members in zip(grouping.labels, placed, strict=True)
    ]
    return _Chart(grouping.title, groups, unknown)


def _group(
    label: str, measure: Measure, members: Sequence[tuple[str, Sequence[float]]], clusters: Clusters
) -> Group:
    note = f"n = {len(members)}"
    if not members:
        return Group(label, [Bar(None, "")] * len(measure.series), note, 0)
    tokens, values = zip(*members, strict=True)
    array = np.array(values, dtype=np.float64)
    bars = []
    for column, name in enumerate(measure.series):
        interval = mean_interval(array[:, column], tokens, clusters)
        mean, low, high = interval.estimate, interval.low, interval.high
        ends = (low, high) if low < high else (None, None)  # all alike: nothing of others is known
        known = f" (95 % interval {low:.3g} to {high:.3g})" if low < high else ""
        text = f"{label}, {name}: {mean:.3g}{known}, {counted(len(members), 'annotation')}"
        bars.append(Bar(mean, text, *ends))
    return Group(label, bars, note, len(members))


def mean_interval(
    values: NDArray[np.float64], samples: Sequence[str], clusters: Clusters
) -> Interval:
    """The mean with its bootstrap interval.

    Vehicles of one sample, or scene, are not independent, so these are drawn, not vehicles.

    Args:
        values: (n,).
        samples: each row's, by token.
        clusters: what is drawn: all samples or scenes, also those without a vehicle that counts.
    """
    mean = Metric("mean", "", samples, values, np.ones(len(values)))
    return mean.interval(clusters.draws, clusters.of)
