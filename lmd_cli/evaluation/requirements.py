"""What a run must reach, as an expression: ``objects.share.radar[distance>40]>=0.2``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.paired import Clusters
from lmd_cli.evaluation.run_metrics import Metric, Vehicle
from lmd_cli.evaluation.statistics import Interval, percentile_interval

BASELINE = "baseline"
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_OPERATOR = "|".join(OPERATORS)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_REQUIREMENT = re.compile(
    rf"\s*(?P<metric>[^\s\[\]<>=!]+)\s*(?:\[(?P<conditions>[^\]]*)\])?\s*(?P<operator>{_OPERATOR})"
    rf"\s*(?:(?P<number>{_NUMBER})|{BASELINE}(?:\s*\*\s*(?P<factor>{_NUMBER}))?"
    rf"(?:\s*(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?)\s*"
)
_CONDITION = re.compile(
    rf"\s*(?P<column>\w+)\s*(?P<operator>{_OPERATOR})\s*(?P<value>\S(?:.*\S)?)\s*"
)
EXAMPLES = "'iou>=0.5', 'objects.share.radar[distance>40, rain==1]>=0.2' or 'iou>=baseline-0.01'"


@dataclass(frozen=True)
class Condition:
    """Which vehicles count, by a column of ``objects.csv``.

    Attributes:
        column, operator: such as ``distance`` and ``>``.
        value: a number, or a text for ``==`` and ``!=``.
    """

    column: str
    operator: str
    value: float | str

    def holds(self, vehicle: Vehicle) -> bool:
        """Whether a vehicle fulfils it; not if the value is not known."""
        actual = vehicle[self.column]
        if actual is None:
            return False
        given = str(actual) if isinstance(self.value, str) else actual
        return OPERATORS[self.operator](given, self.value)


@dataclass(frozen=True)
class Requirement:
    """A metric and what it is compared with.

    Attributes:
        text: as it was written.
        metric: its name.
        conditions: which vehicles count; all must hold.
        operator: between the metric and the bound.
        offset, factor: the bound is ``factor`` times the baseline's metric plus ``offset``; without
            a baseline ``factor`` is 0.
    """

    text: str
    metric: str
    conditions: Sequence[Condition]
    operator: str
    offset: float
    factor: float = 0.0

    @property
    def relative(self) -> bool:
        """Whether it needs a baseline."""
        return self.factor != 0.0

    def keeps(self, vehicle: Vehicle) -> bool:
        """Whether a vehicle counts."""
        return all(condition.holds(vehicle) for condition in self.conditions)


def parse_requirement(text: str) -> Requirement:
    """Reads ``METRIC[CONDITION, ...] OPERATOR NUMBER``, or ``baseline`` in the number's place.

    After ``baseline`` may follow ``*NUMBER``, ``+NUMBER`` or ``-NUMBER``.

    Raises:
        ConfigError: it is something else.
    """
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise ConfigError(f"--require {text!r} is no requirement; expected one such as {EXAMPLES}")
    listed = match["conditions"]
    conditions = [] if listed is None else [_condition(one, text) for one in listed.split(",")]
    named = (text, match["metric"], conditions, match["operator"])
    if match["number"] is not None:
        return Requirement(*named, float(match["number"]))
    offset = float(f"{match['sign']}{match['offset']}") if match["sign"] else 0.0
    return Requirement(*named, offset, float(match["factor"] or 1.0))


def _condition(text: str, requirement: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--require {requirement!r}: {text.strip()!r} is no condition; expected one such as "
            "distance>40 or category==vehicle.car"
        )
    given = match["value"].strip("'\"")
    value: float | str = float(given) if re.fullmatch(_NUMBER, given) else given
    if isinstance(value, str) and match["operator"] not in ("==", "!="):
        raise ConfigError(
            f"--require {requirement!r}: {match['column']} is compared with the text {value!r}, "
            "which == and != can do alone"
        )
    return Condition(match["column"], match["operator"], value)


@dataclass(frozen=True)
class Outcome:
    """Whether a run meets a requirement.

    Attributes:
        value: the metric.
        rows: how many pairs, samples or vehicles it is made of.
        bound: what it is compared with.
        baseline: the baseline's metric, if the bound is made of it.
        margin: the metric minus the bound; paired, if there is a baseline.
        passed: the verdict; ``reason`` says why not.
    """

    requirement: Requirement
    value: Interval
    rows: int
    bound: float
    baseline: float | None
    margin: Interval
    passed: bool
    reason: str = ""

    @property
    def note(self) -> str:
        """That the value meets it and a part of its interval does not; else empty."""
        if not self.passed or _is_met_by_all_of(self.requirement, self.margin):
            return ""
        side = "below" if self.requirement.operator in (">", ">=") else "above"
        if self.requirement.operator in ("==", "!="):
            side = "beyond"
        return (
            f"{self.requirement.text}: the value passes, but the interval reaches {side} the "
            "bound; see --confident."
        )


def check_requirement(
    requirement: Requirement,
    metric: Metric,
    baseline: Metric | None,
    clusters: Clusters,
    *,
    confident: bool = False,
) -> Outcome:
    """Compares a metric with a number, or with a baseline's metric.

    Args:
        baseline: of a relative requirement.
        confident: both ends of the margin's interval must meet it, too.
    """
    value = metric.interval(clusters.draws, clusters.of)
    resampled = metric.resampled(clusters.draws, clusters.of) - requirement.offset
    base, bound = None, requirement.offset
    if baseline is not None:
        base = baseline.value
        bound += requirement.factor * base
        resampled -= requirement.factor * baseline.resampled(clusters.draws, clusters.of)
    margin = percentile_interval(metric.value - bound, resampled)
    reason = _reason(requirement, margin, metric.value, bound, confident)
    rows = len(metric.samples)
    return Outcome(requirement, value, rows, bound, base, margin, not reason, reason)


def _reason(
    requirement: Requirement, margin: Interval, value: float, bound: float, confident: bool
) -> str:
    """Why a requirement is not met; empty if it is."""
    compare = OPERATORS[requirement.operator]
    if math.isnan(value) or math.isnan(bound):
        return "not defined: nothing that it is made of was measured or selected"
    if not compare(value, bound):
        return f"{value:.4g} is not {requirement.operator} {bound:.4g}"
    if confident and math.isnan(margin.low):
        return "there is no interval to be confident of"
    if confident and not _is_met_by_all_of(requirement, margin):
        return f"the interval of the margin is [{margin.low:+.4g}, {margin.high:+.4g}]"
    return ""


def _is_met_by_all_of(requirement: Requirement, margin: Interval) -> bool:
    """Whether no end of the margin's interval misses a requirement; no interval does not."""
    compare = OPERATORS[requirement.operator]
    return math.isnan(margin.low) or (compare(margin.low, 0.0) and compare(margin.high, 0.0))


def require_known(
    requirement: Requirement, names: Sequence[str], columns: Mapping[str, bool], lacking: str
) -> None:
    """Refuses a metric or a column that a run has not.

    Args:
        names: metrics of the run.
        columns: of ``objects.csv``; whether they hold text.
        lacking: why there are no metrics of vehicles, if there are none.

    Raises:
        ConfigError: names what there is.
    """
    if requirement.metric not in names:
        more = f" ({lacking})" if lacking else ""
        near = get_close_matches(requirement.metric.lower(), names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"--require {requirement.text!r}: there is no metric {requirement.metric!r}{hint}\n"
            f"there are: {', '.join(names)}{more}"
        )
    if requirement.conditions and not requirement.metric.startswith("objects."):
        raise ConfigError(
            f"--require {requirement.text!r}: conditions select vehicles, and {requirement.metric} "
            "is not about vehicles; only metrics that begin with objects. take them"
        )
    for condition in requirement.conditions:
        if condition.column not in columns:
            raise ConfigError(
                f"--require {requirement.text!r}: objects.csv has no column {condition.column!r}; "
                f"there are: {', '.join(columns)}"
            )
        if columns[condition.column] != isinstance(condition.value, str):
            kind = "text" if columns[condition.column] else "a number"
            raise ConfigError(
                f"--require {requirement.text!r}: {condition.column} is {kind}, and is compared "
                f"with {condition.value!r}"
            )
