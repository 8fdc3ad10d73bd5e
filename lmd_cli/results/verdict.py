"""The verdict of ``lmd gate`` in a run's folder, and whether it still holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmd_cli.errors import ConfigError, ResultsError
from lmd_cli.evaluation.requirements import Outcome, parse_requirement
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.results.provenance import hashes_of
from lmd_cli.runtime.files import read_own

#: Raised whenever an entry of ``gate.json`` changes its meaning.
FORMAT = 1
#: Where ``lmd gate`` writes beside a run, and what is read there.
GATE, FILE = "gate", "gate.json"
#: What a verdict is made of.
_MADE_OF = (
    *("run.json", "samples.csv", "pairs.csv"),
    *("survey/survey.json", "survey/objects.csv", "survey/samples.csv"),
    *("detect/detections.csv", "detect/detection_metrics.json"),
)


@dataclass(frozen=True)
class Verdict:
    """What ``gate.json`` says.

    Attributes:
        outcomes: in the order of the requirements.
        baseline: the folder it was compared with, if any.
        changed: files of the run that are not what the verdict was made of.
    """

    outcomes: list[Outcome]
    baseline: str | None
    changed: list[str]


def results_sha256(run: Path) -> dict[str, str]:
    """SHA-256 of the files that a verdict is made of, by name."""
    return hashes_of(run, _MADE_OF)


def gate_json(
    run: str, baseline: str | None, outcomes: Sequence[Outcome], results: Mapping[str, str]
) -> bytes:
    """``gate.json``; what does not exist is ``null``.

    Args:
        results: from :func:`results_sha256`.
    """
    values = {
        "format": FORMAT,
        "run": run,
        "baseline": baseline,
        "passed": all(outcome.passed for outcome in outcomes),
        "requirements": [outcome_values(outcome) for outcome in outcomes],
        "results_sha256": dict(results),
    }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """One requirement of ``gate.json``."""
    requirement = outcome.requirement
    return {
        "requirement": requirement.text,
        "metric": requirement.metric,
        "operator": requirement.operator,
        "passed": outcome.passed,
        "reason": outcome.reason,
        **_interval("value", outcome.value),
        "rows": outcome.rows,
        "bound": _plain(outcome.bound),
        "baseline": None if outcome.baseline is None else _plain(outcome.baseline),
        **_interval("margin", outcome.margin),
    }


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    ends = (interval.estimate, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(_plain, ends), strict=True))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- reading ------------------------------------------------------------------------------


class _Requirement(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    requirement: str
    passed: bool
    reason: str
    rows: int
    bound: float | None
    baseline: float | None
    value: float | None
    value_low: float | None
    value_high: float | None
    margin: float | None
    margin_low: float | None
    margin_high: float | None

    def outcome(self) -> Outcome:
        """As :func:`outcome_values` took it."""
        value = _read_interval(self.value, self.value_low, self.value_high)
        margin = _read_interval(self.margin, self.margin_low, self.margin_high)
        said = (self.baseline, margin, self.passed, self.reason)
        requirement = parse_requirement(self.requirement)
        return Outcome(requirement, value, self.rows, _number(self.bound), *said)


class _Record(BaseModel):
    """``gate.json``, whoever wrote it."""

    model_config = ConfigDict(strict=True)

    format: int = Field(ge=FORMAT, le=FORMAT)
    baseline: str | None
    requirements: list[_Requirement] = Field(min_length=1)
    results_sha256: dict[str, str] = {}


def _read_interval(estimate: float | None, low: float | None, high: float | None) -> Interval:
    return Interval(_number(estimate), _number(low), _number(high))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def read_verdict(run: Path) -> Verdict | None:
    """The verdict in a run's folder; ``None`` if ``lmd gate`` was not run.

    Raises:
        ResultsError: the file is damaged, or of another version.
    """
    path = run / GATE / FILE
    try:
        record = _Record.model_validate_json(read_own(path))
        outcomes = [requirement.outcome() for requirement in record.requirements]
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultsError(_damaged(path, f"{where}: {first['msg']}")) from None
    except (ConfigError, OSError) as error:
        raise ResultsError(_damaged(path, str(error))) from None
    return Verdict(outcomes, record.baseline, _changed(record.results_sha256, results_sha256(run)))


def _damaged(path: Path, why: str) -> str:
    return f"{path} is damaged ({why}); run the same lmd gate again"


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A survey made since changes nothing; of a verdict without hashes nothing is known."""
    of = before or now
    return [name for name in of if before.get(name) != now.get(name)]
