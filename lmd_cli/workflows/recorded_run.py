"""A recorded run made ready again: its config with data, weights and code where they are now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lmd_cli.config.schema import CustomDataConfig, RunConfig, is_custom
from lmd_cli.errors import ConfigError, ResultsError
from lmd_cli.evaluation.fingerprint import fingerprint
from lmd_cli.results.record import another_network, package_versions, processor, sample_list_sha256
from lmd_cli.workflows.ready import Ready


@dataclass(frozen=True)
class Whereabouts:
    """Where data, weights and code of a recorded run are, if not where they were.

    Attributes:
        dataroot, checkpoint, device: in place of the recorded ones.
        trust: import the targets that the record names, which may be anybody's code.
        config: a config of the user's own, whose targets are imported where the record names the
            same.
    """

    dataroot: str | None = None
    checkpoint: str | None = None
    device: str | None = None
    trust: bool = False
    config: RunConfig | None = None


def unknown_targets(record: Mapping[str, Any], where: Whereabouts) -> list[str]:
    """Targets, as ``model.target 'scanner:Fusion'``, that the record names and nobody vouches for.

    The record is a file that may come from anywhere, and a target's options are arguments of the
    code: a config vouches for a target with the same options.
    """
    sections = {kind: record["config"].get(kind) for kind in ("model", "data")}
    return [
        f"{kind}.target {section['target']!r}"
        for kind, section in sections.items()
        if is_custom(section) and not (where.trust or _trusted(where.config, kind, section))
    ]


def _trusted(config: RunConfig | None, kind: str, section: Mapping[str, Any]) -> bool:
    if config is None:
        return False
    given = getattr(config, kind).model_dump(mode="json")
    same = given.get("target") == section["target"]
    return same and given.get("options", {}) == section.get("options", {})


def require_known_targets(folder: Path, record: Mapping[str, Any], where: Whereabouts) -> None:
    """Refuses to run code that only a folder names.

    Raises:
        ConfigError: says which, and how to vouch for it.
    """
    unknown = unknown_targets(record, where)
    if unknown:
        raise ConfigError(
            f"{' and '.join(unknown)} in {folder / 'run.json'} is code that is not run unasked. If "
            "it is yours, give the config that names it with --config, or --trust to run what the "
            "folder names"
        )


def recorded_config(folder: Path, record: Mapping[str, Any]) -> RunConfig:
    """The config as it was.

    Raises:
        ResultsError: this version does not know it.
    """
    try:
        return RunConfig.model_validate(record["config"])
    except ValidationError as error:
        raise ResultsError(
            f"{folder / 'run.json'} holds a config that this version cannot read: {error}"
        ) from None


def run_config(folder: Path, record: Mapping[str, Any], where: Whereabouts) -> RunConfig:
    """The run's config with its threads, weights and data where they are now.

    Raises:
        ResultsError: this version does not know it.
        ConfigError: a data root for data of the user's own.
    """
    config = recorded_config(folder, record)
    if where.dataroot and isinstance(config.data, CustomDataConfig):
        raise ConfigError(
            f"--dataroot was given, but the run's samples come from {config.data.target}"
        )
    recorded = str(record.get("checkpoint", ""))
    given = where.checkpoint or (recorded if Path(recorded).is_file() else None)
    changes: Mapping[str, Any] = {
        "model": config.model.model_copy(update={"checkpoint": given} if given else {}),
        "data": config.data.model_copy(
            update={"dataroot": where.dataroot} if where.dataroot else {}
        ),
        "threads": record.get("threads"),
        "device": where.device or config.device,
    }
    changed = config.model_copy(update=dict(changes))
    own = where.config.source if where.config is not None else None
    source = own or record.get("config_file")
    return changed if source is None else changed.with_origin(Path(source))


def require_recorded(
    ready: Ready, folder: Path, record: Mapping[str, Any], otherwise: str = "another run"
) -> None:
    """Refuses weights, samples or code that are not the run's.

    Args:
        otherwise: what else the message proposes.

    Raises:
        ResultsError: says what differs.
    """
    for problem in differing(ready, record):
        raise ResultsError(
            f"{folder} holds results of another network or of other data: {problem}; give the "
            f"right --dataroot and --checkpoint, {otherwise}"
        )


def differing(ready: Ready, record: Mapping[str, Any]) -> list[str]:
    """What is not as recorded: weights, list of samples, outputs at the first samples."""
    built, dataset = ready.built, ready.dataset
    hashes = {
        "the weights": (built.sha256, record["weights"]["sha256"]),
        "the samples of the split": (
            sample_list_sha256(dataset.tokens),
            record["samples"]["sha256"],
        ),
    }
    problems = [
        f"{what} are not those of the run (sha256 {here} here, {there} there)"
        for what, (here, there) in hashes.items()
        if here != there
    ]
    said = "" if problems else _another(ready, record)
    return [*problems, said] if said else problems


def _another(ready: Ready, record: Mapping[str, Any]) -> str:
    """See :func:`~lmd_cli.results.record.another_network`."""
    if not record.get("fingerprint"):
        return ""
    config, device = ready.config, ready.device
    how = (config.model.output, device, config.compute.precision)
    here = {
        "device": device.type,
        "processor": processor(device),
        "versions": package_versions(),
        "threads": record.get("threads"),
        "fingerprint": fingerprint(ready.built.network, ready.dataset, *how),
    }
    return another_network(record, here)
