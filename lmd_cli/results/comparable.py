"""Which runs can be compared: the same question, asked of the same samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, Literal

from lmd_cli.errors import ResultsError
from lmd_cli.results.read_run import RunResults
from lmd_cli.results.record import differing
from lmd_cli.results.survey import Survey

#: Which samples of runs are compared.
Pairing = Literal["same", "common", "none"]
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
    runs: Sequence[RunResults], surveys: Sequence[Survey | None], pairing: Pairing = "same"
) -> frozenset[str]:
    """The samples in which the runs are compared: those of all; of unpaired runs, of any.

    Args:
        runs: the first is what the others are compared with.
        surveys: of the runs; all or none.
        pairing: ``same`` samples, those that are ``common`` to all, or each run's own (``none``).

    Raises:
        ResultsError: names every field of every run in which it differs from the first.
    """
    first, *labels = labels_of(runs)
    protocol, samples = _protocol(runs[0], surveys[0], pairing), _samples(runs[0], surveys[0])
    lines: list[str] = []
    shared, every = set(samples), set(samples)
    keys: set[str] = set()
    for label, run, survey in zip(labels, runs[1:], surveys[1:], strict=True):
        different = differing(protocol, _protocol(run, survey, pairing))
        lines += [f"{key} ({first}: {a!r}, {label}: {b!r})" for key, a, b in different]
        keys |= {key for key, *_ in different if not key.startswith("samples.")}
        own = _samples(run, survey)
        shared, every = shared & own, every | own
        if pairing == "same" and own != samples:
            lines.append(_other_samples(first, samples, label, own))
    if lines:
        listed = "".join(f"\n  {line}" for line in lines)
        said = f"these runs cannot be compared with {runs[0].path}:{listed}\n{_hint(keys)}"
        raise ResultsError(said)
    if pairing == "none":
        return frozenset(every)
    if not shared:
        raise ResultsError(
            "these runs have no sample in common, so there is nothing to pair; --unpaired compares "
            "each run's own"
        )
    return frozenset(shared)


def _hint(different: Collection[str]) -> str:
    """What to do where runs differ in samples, and in these further entries."""
    if not different:
        return "--common compares the samples that all runs have, --unpaired each run's own"
    if set(different) == {"schedule.stride"}:
        return "--unpaired compares each run's own samples"
    return "compare runs of one protocol on one split"


def _samples(run: RunResults, survey: Survey | None) -> set[str]:
    surveyed = set(run.tokens) if survey is None else {str(row[0]) for row in survey.samples}
    return surveyed & set(run.tokens)


def _protocol(run: RunResults, survey: Survey | None, pairing: Pairing) -> dict[str, Any]:
    """What must be the same, by the names that it has in ``run.json`` and ``survey.json``."""
    model = run.record["config"]["model"]
    same: dict[str, Any] = {
        "config": {
            "model": {name: model.get(name) for name in ("modalities", "output")},
            "detection": run.record["config"].get("detection", "auto"),
        },
        "schedule": dict(run.record["schedule"]),
        "perturbed": run.record.get("perturbed"),
        "annotated": run.record.get("annotated", True),
    }
    if pairing == "same":
        same["samples"] = run.record["samples"]
    if pairing == "none":  # the stride that suits one split need not suit another
        del same["schedule"]["stride"]
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
