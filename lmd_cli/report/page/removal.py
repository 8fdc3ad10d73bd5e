"""The page's answer to what the network loses when a sensor fails, beside who contributed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmd_cli.evaluation.ground.decisive import SEVERAL, TOGETHER
from lmd_cli.evaluation.ground.removal import Removal, lost_without, removals, suffix
from lmd_cli.evaluation.paired import RESAMPLES, SAMPLE
from lmd_cli.report.figures.styles import part_title
from lmd_cli.report.page.object_lists import (
    detected_without,
    disagreeing,
    failing,
    object_list,
)
from lmd_cli.report.page.table_cells import PageTable, TableCell, page_table
from lmd_cli.report.page.vehicle_charts import Vehicle, objects_of
from lmd_cli.report.tables.removal import counted_annotations, header_of, subset_cells
from lmd_cli.report.words import HOW
from lmd_cli.results.removal_subsets import Subset, subsets
from lmd_cli.results.survey import Survey, sample_fields
from lmd_cli.results.survey_metrics import SurveyMetrics

#: The two questions, as headers.
PARTS, REMOVAL = "parts: who contributed?", "removal: what if a sensor fails?"
#: What a removal stands for.
IF: dict[Removal, str] = {
    "zeroed": "If a sensor fails",
    "replaced": "If a sensor shows another scene",
}


def removal_tables(survey: Survey, places: Mapping[str, int]) -> dict[str, Any] | None:
    """What the page's template needs; ``None`` without vehicles that the output looks for.

    Args:
        places: in the viewer, by the token of the sample.
    """
    objects, sensors = objects_of(survey), survey.sensors
    inside = [each for each in objects if each["annotated"] and each["sought"] and each["inside"]]
    if not inside:
        return None
    false = [each for each in objects if not each["annotated"]]
    detected = [v for v in inside if v["detected"]]
    gained = [v for v in inside if not v["detected"] and detected_without(v, sensors)]
    lists: dict[str, tuple[str, Sequence[Vehicle]]] = {
        "fails": ("Single points of failure: lost without one sensor", failing(detected, sensors)),
        "two_answers": ("Parts and removal disagree", disagreeing(detected)),
        "gained": ("Detected only with a sensor removed", gained),
        "false": (
            "Detections without an annotation that go when one sensor is removed",
            failing(false, sensors),
        ),
    }
    metrics = SurveyMetrics(survey)
    table = subsets(metrics)
    return {
        "headline": headline(metrics, table, inside),
        "subsets": _subsets(metrics, table),
        "few_scenes": metrics.clusters.kind == SAMPLE,
        "questions": _questions(detected, sensors),
        "conclusions": _conclusions(inside, false, sensors, survey.removal),
        "lists": [
            object_list(name, caption, rows, survey, places)
            for name, (caption, rows) in lists.items()
        ],
    }


def headline(metrics: SurveyMetrics, table: Sequence[Subset], inside: Sequence[Vehicle]) -> str:
    """How many annotations are detected, and what is left of them when a sensor fails."""
    sensors, removal = metrics.survey.sensors, metrics.survey.removal
    detected = [v for v in inside if v["detected"]]
    safe = sum(not lost_without(v, sensors) for v in detected)
    left = [f"{_lost(name, metrics)} without the {part_title(name)}" for name in sensors]
    return (
        f"the network detects {len(detected)} of {counted_annotations(inside)}. {IF[removal]} "
        f"(features {HOW[removal]}), it loses {_listed(left)}{_also(table)}. "
        f"{safe} stay detected whichever one sensor fails; "
        f"{len(detected) - safe} have a single point of failure"
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join((", ".join(words[:-1]), words[-1])).removeprefix(" and ")


def _lost(name: str, metrics: SurveyMetrics) -> str:
    """How many are lost, in numbers and as a share with its interval."""
    lost, clusters = metrics.metric(f"objects.lost_without.{name}"), metrics.clusters
    count = f"{int(lost.above.sum())}"
    if not len(lost.above):
        return count
    interval = lost.interval(clusters.draws, clusters.of)
    low, high = 100 * interval.low, 100 * interval.high
    known = f", 95 % interval {low:.0f} to {high:.0f} %" if low < high else ""
    return f"{count} ({100 * lost.value:.0f} %{known})"


def _also(table: Sequence[Subset]) -> str:
    """What one failure costs besides: false alarms that are new, and the IoU where it is known."""
    single = [one for one in table if len(one.removed) == 1]
    new = [f"{one.new_false_alarms} without the {part_title(one.removed[0])}" for one in single]
    said = f"; new false alarms appear: {_listed(new)}"
    if not math.isnan(table[0].iou.estimate):
        changed = [
            f"{one.iou.estimate:.2f} without the {part_title(*one.removed)}" for one in single
        ]
        said += f"; the IoU is {table[0].iou.estimate:.2f} with all sensors, {_listed(changed)}"
    return said


def _subsets(metrics: SurveyMetrics, table: Sequence[Subset]) -> PageTable:
    """Every subset of the sensors, with intervals."""
    drawn, how = metrics.clusters, HOW[metrics.survey.removal]
    rows = [
        [TableCell(left), *(TableCell(text, text.split()[0], number=True) for text in figures)]
        for left, *figures in subset_cells(table)
    ]
    caption = (
        f"What each subset of the sensors detects, the others' features {how} "
        f"(95 % intervals: {RESAMPLES} resamples of {drawn.count} {drawn.kind}s)"
    )
    return PageTable("subsets", caption, header_of(table), rows)


def _questions(detected: Sequence[Vehicle], sensors: Sequence[str]) -> PageTable:
    """Both verdicts of the detected vehicles, counted side by side."""
    both = [(v["enough_by_parts"], v["enough_by_removal"]) for v in detected]
    parts, removal = (Counter(column) for column in list(zip(*both, strict=True)) or [(), ()])
    same = Counter(one for one, other in both if one == other)
    titles = {
        SEVERAL: "any of several sensors alone",
        **{name: f"only the {part_title(name)} alone" for name in sensors},
        TOGETHER: "only several sensors together",
    }
    rows = [[title, parts[key], removal[key], same[key]] for key, title in titles.items()]
    rows.append(["all detected annotations", len(both), len(both), sum(same.values())])
    caption = f"What keeps the {len(both)} detected annotations detected, asked in two ways"
    header = ["enough to stay detected", PARTS, REMOVAL, "the same by both"]
    return page_table("questions", caption, header, rows)


def _conclusions(
    inside: Sequence[Vehicle], false: Sequence[Vehicle], sensors: Sequence[str], removal: Removal
) -> PageTable:
    """Each number with its question, and with what may be concluded from it and what not."""
    detected = [v for v in inside if v["detected"]]
    missed = [v for v in inside if not v["detected"]]
    losses = [lost_without(v, sensors) for v in detected]
    gained = sum(bool(detected_without(v, sensors)) for v in missed)
    control = f"detected_{suffix(tuple(sensors))}"
    rows: list[list[Any]] = [
        [len(detected), f"of {len(inside)} annotations are detected", *DETECTED],
        *(_left_row(name, losses, removal) for name in sensors),
        [sum(not lost for lost in losses), "stay detected whichever one sensor fails", *SAFE],
        [sum(map(bool, losses)), "are lost without one certain sensor", *FAILS],
        [len(disagreeing(detected)), "get two answers", *DISAGREE],
        [gained, f"of the {len(missed)} missed ones are detected with a sensor removed", *GAINED],
        [sum(bool(v[control]) for v in inside), *NONE[removal]],
        [len(false), "detections have no annotation", *FALSE],
        *(_gone_row(name, false, sensors) for name in sensors),
    ]
    caption = f"What one may conclude, and what not; removed: features {HOW[removal]}"
    header = ["number", "of what", "asked", "one may conclude", "one may not conclude"]
    return page_table("conclusions", caption, header, rows)


def _left_row(name: str, losses: Sequence[Sequence[str]], removal: Removal) -> list[Any]:
    title = part_title(name)
    return [
        sum(name not in lost for lost in losses),
        f"stay detected without the {title}",
        "removal",
        f"With the {title}'s features {HOW[removal]}, this network still detects these.",
        LEFT[removal].format(title),
    ]


def _gone_row(name: str, false: Sequence[Vehicle], sensors: Sequence[str]) -> list[Any]:
    title = part_title(name)
    return [
        sum(name in lost_without(each, sensors) for each in false),
        f"of these go without the {title}",
        "removal",
        f"The network reports them only with the {title}'s features there.",
        f"That the {title} was wrong there, or that it alone would do.",
    ]


LEFT: dict[Removal, str] = {
    "zeroed": (
        "What it does with a {} that is wrong, late or dirty: that is not a zero. For false alarms "
        "see the table of subsets."
    ),
    "replaced": "What it does with no {} at all: here it sees another scene, with other vehicles.",
}
DETECTED = (
    "the network",
    "The unchanged network says that a vehicle is there.",
    "That it says so for the right reason, nor that it is an object of its own: a neighbour's "
    "detection can reach into the footprint.",
)
SAFE = (
    "removal",
    "Each is detected with the features of any one of the sensors removed.",
    "That they stay so when several fail, or when a sensor fails in another way.",
)
FAILS = (
    "removal",
    "The detection hangs on that sensor, or on each of several: the nearest are listed below.",
    "That the sensor alone would do: it may need the others too.",
)
DISAGREE = (
    "parts and removal",
    "The parts say something else than the network does without its sensors; for failures, trust "
    "removal.",
    "That the parts are wrong: they say who contributed at this sample, with all sensors there.",
)
GAINED = (
    "removal",
    "With a sensor's features there, the network misses what it detects without them.",
    "That the network would be better without it: it is needed for others.",
)
NONE: dict[Removal, tuple[str, str, str, str]] = {
    "zeroed": (
        "are detected with no sensor",
        "removal",
        "How many detections the network's constants make without any sensor; it should be 0.",
        "That constants have no say in the other detections: see the bias share.",
    ),
    "replaced": (
        "are detected with every sensor's features replaced",
        "removal",
        "How many detections are chance: the other sample has a vehicle at the same place.",
        "That the others are free of chance.",
    ),
}
FALSE = (
    "the network",
    "The network reports something where no vehicle is annotated.",
    "That nothing is there: annotations can be missing or lie a cell beside.",
)


def changes_table(survey: Survey) -> PageTable:
    """Of any output, by how much each removal changes it."""
    header = sample_fields(survey.parts)
    rows = []
    for removed in removals(survey.sensors):
        at = header.index(f"change_{suffix(removed)}")
        known = [row[at] for row in survey.samples if row[at] is not None]
        spread = (float(np.mean(known)), min(known), max(known)) if known else [None] * 3
        rows.append([" and ".join(map(part_title, removed)), len(known), *spread])
    caption = f"Relative change of the output (L2 norms), features {HOW[survey.removal]}"
    columns = ["removed", "samples", "mean", "smallest", "largest"]
    return page_table("changes", caption, columns, rows)
