"""The verdict of a gate as rows of text and as JUnit XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from lmd_cli.evaluation.requirements import Outcome
from lmd_cli.report.tables.comparison import number
from lmd_cli.runtime.printable import printable

HEADER = ("result", "requirement", "value", "95 % interval", "rows", "bound", "margin")


def outcome_cells(outcome: Outcome) -> list[str]:
    """One line: the verdict, the metric with its interval, and by how much it is met or missed."""
    known = outcome.value.low, outcome.value.high
    interval = "" if math.isnan(known[0]) else f"[{number(known[0])}, {number(known[1])}]"
    value, bound, margin = (
        number(v) for v in (outcome.value.estimate, outcome.bound, outcome.margin.estimate)
    )
    result = "ok" if outcome.passed else "FAIL"
    return [result, outcome.requirement.text, value, interval, str(outcome.rows), bound, margin]


def junit_xml(run: str, outcomes: Sequence[Outcome]) -> bytes:
    """A test suite as CI systems read it: one case for each requirement."""
    failures = sum(not outcome.passed for outcome in outcomes)
    counts = {"tests": str(len(outcomes)), "failures": str(failures)}
    suites = ElementTree.Element("testsuites", counts)
    named = {"name": printable(f"lmd gate {run}"), **counts, "errors": "0", "skipped": "0"}
    suite = ElementTree.SubElement(suites, "testsuite", named)
    for outcome in outcomes:
        given = {"classname": "lmd.gate", "name": printable(outcome.requirement.text)}
        case = ElementTree.SubElement(suite, "testcase", given)
        _, _, value, interval, *_ = outcome_cells(outcome)
        said = f"{outcome.requirement.metric} = {value} {interval}, {outcome.rows} rows"
        if not outcome.passed:
            failure = ElementTree.SubElement(case, "failure", {"message": outcome.reason})
            failure.text = printable(said)
        ElementTree.SubElement(case, "system-out").text = printable(said)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n"
