"""The page's lists of vehicles and of detections without one: facts, both answers, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from lmd_cli.evaluation.ground.removal import removals, suffix
from lmd_cli.evaluation.ground.vehicles import sensors_of
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.page.table_cells import PageTable, TableCell, cell
from lmd_cli.report.page.vehicle_charts import Vehicle, lost_without, objects_of
from lmd_cli.report.palette import slot
from lmd_cli.results.survey import Survey

#: Rows of each list; the nearest come first, and the rest is in ``objects.csv``.
LISTED = 200
#: Rows of the list of all objects in the viewer.
MOST = 1000
Columns = dict[str, Callable[[Vehicle], Any]]


def failing(objects: Sequence[Vehicle], sensors: Sequence[str]) -> list[Vehicle]:
    """Those that the network loses without one sensor."""
    return [each for each in objects if lost_without(each, sensors)]


def disagreeing(objects: Sequence[Vehicle]) -> list[Vehicle]:
    """Those whose parts and whose removals name other sensors."""
    return [each for each in objects if each["enough_by_parts"] != each["enough_by_removal"]]


def detected_without(vehicle: Vehicle, sensors: Sequence[str]) -> list[str]:
    """The removals that leave a sensor and detect the vehicle, in words."""
    partial = [removed for removed in removals(sensors) if len(removed) < len(sensors)]
    kept = [removed for removed in partial if vehicle[f"detected_{suffix(removed)}"]]
    return [" and ".join(map(part_title, removed)) for removed in kept]


def _gained(vehicle: Vehicle, sensors: Sequence[str]) -> str:
    """Of a missed vehicle, the removals that detect it."""
    return "" if vehicle["detected"] else ", ".join(detected_without(vehicle, sensors))


def object_list(
    name: str,
    caption: str,
    objects: Sequence[Vehicle],
    survey: Survey,
    places: Mapping[str, int],
) -> PageTable:
    """The nearest :data:`LISTED` of some objects, with the answers that the list is about.

    Args:
        name: ``fails``, ``two_answers``, ``gained`` or ``false``.
        places: in the viewer, by the token of the sample.
    """
    listed = sorted(objects, key=itemgetter("distance"))[:LISTED]
    if len(listed) < len(objects):
        nearest = f"the nearest {len(listed)} of {len(objects)}"
        caption = f"{caption} ({nearest}, the rest in survey/objects.csv)"
    answers, sensors = _answers(survey.sensors), survey.sensors
    wanted = {
        "fails": ("lost without (removal)", "enough (parts)"),
        "two_answers": ("enough (removal)", "enough (parts)"),
        "gained": (),
        "false": ("lost without (removal)", "enough (parts)"),
    }[name]
    chosen: Columns = {title: answers[title] for title in wanted}
    if name == "gained":
        chosen = {"detected without": lambda v: _gained(v, sensors)}
    columns = {**_facts(name != "false"), **chosen, **_scores(sensors), **_names()}
    return _table(name, caption, listed, columns, survey.parts, places)


def all_objects(survey: Survey, places: Mapping[str, int]) -> PageTable | None:
    """Every vehicle that the output looks for, and every detection without one, of the samples in
    the viewer; at most :data:`MOST`, in the viewer's order."""
    listed = [
        each
        for each in objects_of(survey)
        if each["sample_token"] in places and each["sought"] and each["inside"]
    ]
    if not listed:
        return None
    listed.sort(key=lambda each: (places[each["sample_token"]], each["distance"]))
    columns: Columns = {
        "what": _what,
        "the network": _verdict,
        "scene": itemgetter("scene"),
        **_facts(True),
        **_answers(survey.sensors),
        "detected without": lambda v: _gained(v, survey.sensors),
        **_scores(survey.sensors),
        **_names(),
    }
    caption = f"{len(listed)} vehicles and detections of the samples in the viewer"
    if len(listed) > MOST:
        caption = f"The first {MOST} of {caption}, the rest in survey/objects.csv"
    return _table("all_objects", caption, listed[:MOST], columns, survey.parts, places)


def _table(
    name: str,
    caption: str,
    listed: Sequence[Vehicle],
    columns: Columns,
    parts: Sequence[str],
    places: Mapping[str, int],
) -> PageTable:
    rows = [
        [
            _show(places.get(each["sample_token"]), each["number"]),
            *(cell(column(each)) for column in columns.values()),
        ]
        for each in listed
    ]
    slots = {f"score without {name}": slot(name, parts) for name in sensors_of(parts)}
    return PageTable(name, caption, ["show", *columns], rows, slots)


def _show(place: int | None, number: int) -> TableCell:
    """A button that shows the object in the viewer, if its sample is there."""
    if place is None:
        return TableCell("", "", number=True)
    return TableCell("show", sample=place, object=number)


def _answers(sensors: Sequence[str]) -> Columns:
    """The verdicts, each with its question."""
    return {
        "lost without (removal)": lambda v: ", ".join(lost_without(v, sensors)),
        "enough (removal)": itemgetter("enough_by_removal"),
        "enough (parts)": itemgetter("enough_by_parts"),
    }


def _facts(annotated: bool) -> Columns:
    known: Columns = {"visibility (1 to 4, best)": itemgetter("visibility")} if annotated else {}
    return {"distance (m)": lambda v: round(v["distance"], 1), "weather": _weather, **known}


def _scores(sensors: Sequence[str]) -> Columns:
    """How sure the network is, with all sensors and without each."""
    singles = {f"score without {name}": f"score_{suffix((name,))}" for name in sensors}
    return {title: itemgetter(key) for title, key in {"score": "score", **singles}.items()}


def _names() -> Columns:
    return {"sample": itemgetter("sample_token"), "vehicle or detection": itemgetter("token")}


def _what(each: Vehicle) -> str:
    """The annotated category in short."""
    return str(each["category"]).partition(".")[2] or "vehicle" if each["annotated"] else "none"


def _verdict(each: Vehicle) -> str:
    if not each["annotated"]:
        return "detects without annotation"
    return "detects" if each["detected"] else "misses"


def _weather(vehicle: Vehicle) -> str:
    rain = "rain" if vehicle["rain"] else "no rain"
    return f"{rain}, {'night' if vehicle['night'] else 'day'}"
