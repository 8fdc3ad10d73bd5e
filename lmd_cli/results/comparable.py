"""Which runs can be compared: the same question, asked of the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lmd_cli.errors import ResultsError
from lmd_cli.results.read_run import RunResults
from lmd_cli.results.record import differing
from lmd_cli.results.survey import Survey

#: Entries of ``run.json`` that may differ between runs that are compared.
FREE = (
    "config",
    "rows",
    "checkpoint",
    "weights",
    "threads",
    "compute",
    "device",
    "processor",
    "versions",
)


def require_comparable(
    runs: Sequence[RunResults], surveys: Sequence[Survey | None], *, common: bool = False
) -> frozenset[str]:
    """The samples in which the runs are compared.

    Args:
        runs: the first is what the others are compared with.
        surveys: of the runs; all or none.
        common: take the samples that all have, where they have not the same.

    Raises:
        ResultsError: names every field of every run in which it differs from the first.
    """
    first, *labels = labels_of(runs)
    protocol, samples = _protocol(runs[0], surveys[0], common), _samples(runs[0], surveys[0])
    lines: list[str] = []
    shared, hint = set(samples), "--common compares the samples that all runs have"
    for label, run, survey in zip(labels, runs[1:], surveys[1:], strict=True):
        different = differing(protocol, _protocol(run, survey, common))
        lines += [f"{key} ({first}: {a!r}, {label}: {b!r})" for key, a, b in different]
        if any(not key.startswith("samples.") for key, *_ in different):
            hint = "compare runs of one protocol on one split"
        own = _samples(run, survey)
        shared &= own
        if not common and own != samples:
            lines.append(_other_samples(first, samples, label, own))
    if lines:
        listed = "".join(f"\n  {line}" for line in lines)
        raise ResultsError(f"these runs cannot be compared with {runs[0].path}:{listed}\n{hint}")
    if not shared:
        raise ResultsError("these runs have no sample in common, so there is nothing to compare")
    return frozenset(shared)


def _samples(run: RunResults, survey: Survey | None) -> set[str]:
    surveyed = set(run.tokens) if survey is None else {str(row[0]) for row in survey.samples}
    return surveyed & set(run.tokens)


def _protocol(run: RunResults, survey: Survey | None, common: bool) -> dict[str, Any]:
    """What must be the same, by the names that it has in ``run.json`` and ``survey.json``."""
    model = run.record["config"]["model"]
    same: dict[str, Any] = {
        "config": {
            "model": {name: model.get(name) for name in ("modalities", "output")},
            "detection": run.record["config"].get("detection", "auto"),
        },
        "schedule": run.record["schedule"],
        "perturbed": run.record.get("perturbed"),
        "annotated": run.record.get("annotated", True),
    }
    if not common:
        same["samples"] = run.record["samples"]
    if survey is not None:
        same["survey"] = {
            "parts": survey.parts,
            "plane": asdict(survey.plane),
            "output": survey.output,
            "removal": survey.removal,
        }
    return same


def _other_samples(first: str, before: set[str], label: str, after: set[str]) -> str:
    pieces = [f"{first}: {len(before)}, {label}: {len(after)}"]
    for name, tokens in ((first, sorted(before - after)), (label, sorted(after - before))):
        if tokens:
            pieces.append(f"{len(tokens)} only in {name}, such as {tokens[0]}")
    return f"samples ({'; '.join(pieces)})"


def labels_of(runs: Sequence[RunResults]) -> list[str]:
    """Each run's folder name, or its path where that names several."""
    names = [run.path.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    paths = [str(run.path) for run in runs]
    return (
        paths if len(set(paths)) == len(paths) else [f"{i + 1}: {p}" for i, p in enumerate(paths)]
    )


def allowed_differences(first: RunResults, other: RunResults) -> list[tuple[str, Any, Any]]:
    """What may differ and does: entry, the first run's value, the other's."""
    old, new = ({key: run.record.get(key) for key in FREE} for run in (first, other))
    return differing(old, new)
