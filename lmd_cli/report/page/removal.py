"""The page's answer to what the network loses when a sensor fails, beside who contributed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from lmd_cli.evaluation.ground.decisive import SEVERAL, TOGETHER
from lmd_cli.evaluation.ground.removal import lost_without, removals, suffix
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.page.table_cells import PageTable, TableCell, cell, page_table
from lmd_cli.report.page.vehicle_charts import Vehicle
from lmd_cli.results.survey import Survey, sample_fields

#: Rows of each list of vehicles; the nearest come first, and the rest is in ``objects.csv``.
LISTED = 200
PARTS, REMOVAL = "parts: who contributed?", "removal: what if a sensor fails?"


def removal_tables(survey: Survey, places: Mapping[str, int]) -> dict[str, Any] | None:
    """What the page's template needs; ``None`` without vehicles that the output looks for.

    Args:
        places: in the viewer, by the token of the sample.
    """
    inside = [v for v in survey.vehicles if v["sought"] and v["inside"]]
    if not inside:
        return None
    sensors = survey.sensors
    detected = [v for v in inside if v["detected"]]
    fails = [v for v in detected if lost_without(v, sensors)]
    disagree = [v for v in detected if v["alone"] != v["removal"]]
    gained = [v for v in inside if not v["detected"] and detected_without(v, sensors)]

    fails_caption = "Single points of failure: lost without one sensor"
    return {
        "headline": headline(inside, sensors),
        "questions": _questions(detected, sensors),
        "conclusions": _conclusions(inside, sensors),
        "fails": _listed("fails", fails_caption, fails, survey, places),
        "disagree": _listed("two_answers", "Parts and removal disagree", disagree, survey, places),
        "gained": _listed("gained", "Detected only with a sensor removed", gained, survey, places),
    }


def detected_without(vehicle: Vehicle, sensors: Sequence[str]) -> list[str]:
    """The removals that leave a sensor and detect the vehicle, in words."""
    partial = [removed for removed in removals(sensors) if len(removed) < len(sensors)]
    kept = [removed for removed in partial if vehicle[f"detected_{suffix(removed)}"]]
    return [" and ".join(removed) for removed in kept]


def headline(inside: Sequence[Vehicle], sensors: Sequence[str]) -> str:
    """How many vehicles are detected, and what is left of them when a sensor fails."""
    detected = [v for v in inside if v["detected"]]
    losses = [lost_without(v, sensors) for v in detected]
    kept = {name: sum(name not in lost for lost in losses) for name in sensors}
    left = [f"without the {part_title(name)} it still detects {kept[name]}" for name in sensors]
    count, safe = len(detected), sum(not lost for lost in losses)
    return (
        f"the network detects {count} of {len(inside)} annotated vehicles. If a sensor fails, "
        f"{' and '.join((', '.join(left[:-1]), left[-1])).removeprefix(' and ')} of these "
        f"{count}. {safe} stay detected whichever one sensor fails; {count - safe} have a single "
        "point of failure"
    )


def _questions(detected: Sequence[Vehicle], sensors: Sequence[str]) -> PageTable:
    """Both verdicts of the detected vehicles, counted side by side."""
    parts, removal = (Counter(v[key] for v in detected) for key in ("alone", "removal"))
    same = Counter(v["alone"] for v in detected if v["alone"] == v["removal"])
    titles = {
        SEVERAL: "any of several sensors alone",
        **{name: f"only the {part_title(name)} alone" for name in sensors},
        TOGETHER: "only several sensors together",
    }
    rows = [[title, parts[key], removal[key], same[key]] for key, title in titles.items()]
    rows.append(["all detected vehicles", len(detected), len(detected), sum(same.values())])
    caption = f"What keeps the {len(detected)} detected vehicles detected, asked in two ways"
    header = ["enough to stay detected", PARTS, REMOVAL, "the same by both"]
    return page_table("questions", caption, header, rows)


def _conclusions(inside: Sequence[Vehicle], sensors: Sequence[str]) -> PageTable:
    """Each number with what may be concluded from it and what not."""
    detected = [v for v in inside if v["detected"]]
    losses = [lost_without(v, sensors) for v in detected]
    rows: list[list[Any]] = [
        [len(detected), f"of {len(inside)} annotated vehicles are detected", *DETECTED],
        *(_left_row(name, losses) for name in sensors),
        [sum(not lost for lost in losses), "stay detected whichever one sensor fails", *SAFE],
        [sum(map(bool, losses)), "are lost if one certain sensor fails", *FAILS],
        [sum(v["alone"] != v["removal"] for v in detected), "get two answers", *DISAGREE],
    ]
    missed = [v for v in inside if not v["detected"]]
    gained = sum(bool(detected_without(v, sensors)) for v in missed)
    what = f"of the {len(missed)} missed ones are detected when a sensor is removed"
    rows.append([gained, what, *GAINED])
    control = f"detected_{suffix(tuple(sensors))}"
    rows.append([sum(bool(v[control]) for v in inside), "are detected with no sensor", *NONE])
    caption = "What one may conclude from each number, and what not"
    header = ["vehicles", "which", "one may conclude", "one may not conclude"]
    return page_table("conclusions", caption, header, rows)


def _left_row(name: str, losses: Sequence[Sequence[str]]) -> list[Any]:
    title = part_title(name)
    return [
        sum(name not in lost for lost in losses),
        f"stay detected without the {title}",
        f"With the {title}'s features at zero, this network still detects these.",
        f"What it does with a {title} that is wrong, late or dirty: that is not a zero.",
    ]


DETECTED = (
    "The unchanged network says that a vehicle is there.",
    "That it says so for the right reason.",
)
SAFE = (
    "Each is detected with any one of the sensors' features at zero.",
    "That they stay so when several fail, or when a sensor is wrong rather than absent.",
)
FAILS = (
    "The detection hangs on that sensor: they are listed below.",
    "That the sensor alone would do: it may need the others too.",
)
DISAGREE = (
    "The parts say something else than the network does without its sensors; for failures, trust "
    "removal.",
    "That the parts are wrong: they say who contributed at this sample, with all sensors there.",
)
GAINED = (
    "With a sensor's features there, the network misses what it detects without them.",
    "That the network would be better without it: it is needed for others.",
)
NONE = (
    "How many detections the network's constants make without any sensor; it should be 0.",
    "That constants have no say in the other detections: see the bias share.",
)


def _listed(
    name: str,
    caption: str,
    vehicles: Sequence[Vehicle],
    survey: Survey,
    places: Mapping[str, int],
) -> PageTable:
    """The nearest :data:`LISTED` of some vehicles, with the verdicts that the list is about."""
    listed = sorted(vehicles, key=lambda v: v["distance"])[:LISTED]
    if len(listed) < len(vehicles):
        caption = f"{caption} (the nearest {len(listed)} of {len(vehicles)})"
    columns = _columns(name, survey.sensors)
    rows = [
        [
            _show(places.get(v["sample_token"])),
            *(cell(column(v)) for column in columns.values()),
        ]
        for v in listed
    ]
    return PageTable(name, caption, ["show", *columns], rows)


def _show(place: int | None) -> TableCell:
    """A button that opens the sample in the viewer, if it is there."""
    return TableCell("", "", number=True) if place is None else TableCell("show", sample=place)


def _columns(name: str, sensors: Sequence[str]) -> dict[str, Callable[[Vehicle], Any]]:
    """Of the list of this name: header and value."""
    by_parts: dict[str, Callable[[Vehicle], Any]] = {"enough (parts)": itemgetter("alone")}
    verdicts: dict[str, dict[str, Callable[[Vehicle], Any]]] = {
        "fails": {"lost without": lambda v: ", ".join(lost_without(v, sensors)), **by_parts},
        "two_answers": {"enough (removal)": itemgetter("removal"), **by_parts},
        "gained": {"detected without": lambda v: ", ".join(detected_without(v, sensors))},
    }
    singles = [f"score_{suffix((sensor,))}" for sensor in sensors]
    return {
        "distance (m)": itemgetter("distance"),
        "weather": _weather,
        "visibility (1 to 4)": itemgetter("visibility"),
        **verdicts[name],
        **{column.replace("_", " "): itemgetter(column) for column in ("score", *singles)},
        "sample": itemgetter("sample_token"),
        "vehicle": itemgetter("token"),
    }


def _weather(vehicle: Vehicle) -> str:
    rain = "rain" if vehicle["rain"] else "no rain"
    return f"{rain}, {'night' if vehicle['night'] else 'day'}"


def changes_table(survey: Survey) -> PageTable:
    """Of any output, by how much each removal changes it."""
    header = sample_fields(survey.parts)
    rows = []
    for removed in removals(survey.sensors):
        at = header.index(f"change_{suffix(removed)}")
        known = [row[at] for row in survey.samples if row[at] is not None]
        spread = (float(np.mean(known)), min(known), max(known)) if known else [None] * 3
        rows.append([" and ".join(map(part_title, removed)), len(known), *spread])
    caption = "Relative change of the output (L2 norms), over the samples"
    columns = ["removed", "samples", "mean", "smallest", "largest"]
    return page_table("changes", caption, columns, rows)
