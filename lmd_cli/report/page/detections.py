"""The page's section on detections: who carried the hits, the false alarms, the misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmd_cli.evaluation.detections.counts import SENSE, Key, Row, clusters_note, members
from lmd_cli.evaluation.detections.matching import FALSE_ALARM, HIT, MISS
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.page.viewer import label
from lmd_cli.results.detection_run import DetectionRun, Example, Outline

#: Metres around a detection that its map shows.
AROUND = 15.0
TITLES = {
    HIT: ("Hits", "by the sensor that alone would do"),
    FALSE_ALARM: ("False alarms", "by the sensor that alone would do"),
    MISS: ("Misses", "by the sensor that speaks against most"),
}
GROUP_TITLES = {"all": "", "visibility": "visibility (1 to 4)"}
#: Width and height of a picture in the page's units; least part of the image's width that it
#: shows, and how many times the box's size.
PICTURE = (196, 120)
LEAST_PART, TIMES = 0.25, 3
#: Strokes of boxes by outcome, on light and on dark.
COLOURS = {HIT: "#12a012", FALSE_ALARM: "#e0218a", MISS: "#ff8c00"}
OTHER = "#777777"


@dataclass(frozen=True)
class CountCell:
    """``text`` with the share and its interval; ``examples``: detections with a picture."""

    text: str
    interval: str
    examples: Sequence[int]


@dataclass(frozen=True)
class CountTable:
    """One outcome: a column for each sensor; by each criterion a row for each group."""

    title: str
    question: str
    sensors: Sequence[str]
    criteria: Mapping[str, Sequence[tuple[str, int, Sequence[CountCell | None]]]]


def detections_section(run: DetectionRun | None) -> dict[str, Any] | None:
    """What ``detections.html.j2`` needs; ``None`` where nothing was detected and counted."""
    if run is None or not run.counts:
        return None
    shown = {one.detection for one in run.examples}
    behind = members(run.rows, run.method)
    with_picture = {
        key: [row["detection"] for row in rows if row["detection"] in shown]
        for key, rows in behind.items()
    }
    return {
        "method": run.method,
        "samples": run.record["detected"],
        "tables": [_table(run.counts, outcome, with_picture) for outcome in SENSE],
        "note": clusters_note(run.rows),
        "pictures": _pictures(run),
    }


def _table(
    counts: Sequence[Row], outcome: str, with_picture: Mapping[Key, Sequence[int]]
) -> CountTable:
    own = [row for row in counts if row["outcome"] == outcome]
    sensors = sorted({row["sensor"] for row in own})
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in own:
        groups.setdefault((row["by"], row["group"]), {})[row["sensor"]] = row
    criteria: dict[str, list[tuple[str, int, Sequence[CountCell | None]]]] = {}
    for (by, group), by_sensor in groups.items():
        cells = [_cell(by_sensor.get(sensor), with_picture) for sensor in sensors]
        of = next(iter(by_sensor.values()))["of"]
        criteria.setdefault(GROUP_TITLES.get(by, by), []).append((group, of, cells))
    titles = [part_title(name) if name else "not above the threshold" for name in sensors]
    return CountTable(*TITLES[outcome], titles, criteria)


def _cell(row: Row | None, with_picture: Mapping[Key, Sequence[int]]) -> CountCell | None:
    if row is None:
        return None
    key = (row["by"], row["group"], row["outcome"], row["sensor"])
    low, high = (round(100 * row[name]) for name in ("low", "high"))
    interval = f"{row['share']:.0%} [{low},\N{NO-BREAK SPACE}{high}]"
    return CountCell(str(row["count"]), interval, with_picture.get(key, ())[:3])


def _pictures(run: DetectionRun) -> list[dict[str, Any]]:
    by_number = {row["detection"]: row for row in run.rows}
    return [
        _picture(one, by_number[one.detection], run)
        for one in run.examples
        if one.detection in by_number
    ]


def _picture(one: Example, row: Row, run: DetectionRun) -> dict[str, Any]:
    x, y = one.centre
    window = _window(one)
    left, right, back, front = one.extent
    return {
        "number": one.detection,
        "outcome": row["outcome"],
        "facts": _facts(row),
        "parts": _parts(row, run.method),
        "camera": label(one.camera) if one.camera else "",
        "image": one.image,
        "size": one.size,
        "window": window,
        "drawn": (PICTURE[0], PICTURE[0] * window[3] / window[2] if one.image else 0),
        "in_image": [_drawn(box) for box in one.in_image],
        "map": one.map,
        "place": (left, -front, right - left, front - back),
        "view": (x - AROUND, -y - AROUND, 2 * AROUND, 2 * AROUND),
        "on_map": [_drawn(box, up=True) for box in one.on_map],
    }


def _window(one: Example) -> tuple[float, float, float, float]:
    """The part of the image around the box: left, top, width and height in pixels."""
    width, height = one.size
    points = [point for box in one.in_image if box.shown for line in box.lines for point in line]
    if not points:
        return 0.0, 0.0, float(width), float(height)
    ends = [(min(values), max(values)) for values in zip(*points, strict=True)]
    (left, right), (top, bottom) = (
        (max(low, 0.0), min(high, side)) for (low, high), side in zip(ends, one.size, strict=True)
    )
    ratio = PICTURE[1] / PICTURE[0]
    wanted = max(TIMES * (right - left), TIMES * (bottom - top) / ratio, LEAST_PART * width)
    wide = min(wanted, float(width))
    high = min(wide * ratio, float(height))
    x = min(max((left + right - wide) / 2, 0.0), width - wide)
    y = min(max((top + bottom - high) / 2, 0.0), height - high)
    return x, y, wide, high


def _facts(row: Row) -> str:
    said = [f"{row['class']}", f"{row['distance']:.0f} m away"]
    if row["score"] is not None:
        said.append(f"score {row['score']:.2g}")
    if row["visibility"]:
        said.append(f"visibility {row['visibility']}")
    return ", ".join(said)


def _parts(row: Row, method: str) -> str:
    """Each part of the output at the place."""
    names = [name for name in row if name.startswith(f"{method}.")]
    numbers = [(n.removeprefix(f"{method}."), row[n]) for n in names]
    return ", ".join(
        f"{part_title(name)} {value:+.3g}"
        for name, value in numbers
        if isinstance(value, int | float)
    )


def _drawn(box: Outline, *, up: bool = False) -> dict[str, Any]:
    """A path's data and colour; on the map forward is up."""
    sign = -1 if up else 1
    path = " ".join(
        f"M{a:.2f} {sign * b:.2f}L{c:.2f} {sign * d:.2f}" for (a, b), (c, d) in box.lines
    )
    return {
        "path": path,
        "colour": COLOURS.get(box.outcome, OTHER),
        "dashed": box.kind == "annotation",
        "shown": box.shown,
    }
