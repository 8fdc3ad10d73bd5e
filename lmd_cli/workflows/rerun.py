"""``lmd rerun``: a recorded run computed once more, and compared with what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lmd_cli.config.schema import RunConfig
from lmd_cli.data import RemovalSettings
from lmd_cli.errors import ResultsError
from lmd_cli.results.read_run import existing_record
from lmd_cli.results.record import differences
from lmd_cli.results.run_folder import read_record
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.detect import WhoseParts, detect
from lmd_cli.workflows.evaluate import evaluate
from lmd_cli.workflows.ready import make_ready
from lmd_cli.workflows.recorded_run import (
    Whereabouts,
    require_known_targets,
    require_recorded,
    run_config,
)
from lmd_cli.workflows.sanity import run_sanity
from lmd_cli.workflows.score import score

Limit = Annotated[int | None, Field(ge=1)]


class RecordedCommand(BaseModel):
    """A command and its options, as ``run.json`` holds them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    limit: Limit = None

    def run(self, config: RunConfig, output: Path, **how: Any) -> object:
        """Runs the command."""
        raise NotImplementedError


class EvaluateCommand(RecordedCommand):
    """Of ``lmd evaluate``."""

    name: Literal["evaluate"]
    methods: list[str] = []
    relinearise: bool = False
    table_only: bool = False
    on_error: Literal["stop", "skip"] = "stop"

    def run(self, config: RunConfig, output: Path, **how: Any) -> object:
        return evaluate(config, output, **self.model_dump(exclude={"name"}), **how)


class _Removal(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    margin: float = Field(ge=0, le=10)
    fill: Literal["inpaint", "ring"]


class ScoreCommand(RecordedCommand):
    """Of ``lmd score``."""

    name: Literal["score"]
    methods: list[str] = []
    resamples: int = Field(1000, ge=1)
    truth: Literal["recorded", "intervention", "both"] | None = None
    removal: _Removal

    def run(self, config: RunConfig, output: Path, **how: Any) -> object:
        given = self.model_dump(exclude={"name", "removal"})
        removal = RemovalSettings(self.removal.margin, self.removal.fill)
        return score(config, output, removal=removal, **given, **how)


class SanityCommand(RecordedCommand):
    """Of ``lmd sanity``."""

    name: Literal["sanity"]
    limit: int = Field(ge=1)  # type: ignore[assignment]  # always said

    def run(self, config: RunConfig, output: Path, **how: Any) -> object:
        return run_sanity(config, output, self.limit, **how)


class DetectCommand(RecordedCommand):
    """Of ``lmd detect``."""

    name: Literal["detect"]
    variants: list[str] = []
    methods: list[str] = []
    parts: bool = True

    def run(self, config: RunConfig, output: Path, **how: Any) -> object:
        whose = WhoseParts(self.variants, self.methods, self.parts)
        return detect(config, output, whose=whose, limit=self.limit, **how)


AnyCommand: TypeAlias = EvaluateCommand | ScoreCommand | SanityCommand | DetectCommand
_COMMAND: TypeAdapter[AnyCommand] = TypeAdapter(Annotated[AnyCommand, Field(discriminator="name")])


@dataclass(frozen=True)
class Repeated:
    """A run computed once more.

    Attributes:
        output: its folder.
        same, different: names of results that are, and are not, what they were byte for byte.
        changed: what else is recorded otherwise: processor, versions, code.
    """

    output: Path
    same: list[str]
    different: list[str]
    changed: list[str]


def rerun(
    path: Path,
    output: Path | None = None,
    where: Whereabouts | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Repeated:
    """Repeats a run from its record alone, into another folder.

    Args:
        path: the folder of ``lmd evaluate``, ``score``, ``sanity`` or ``detect``.
        output: where results go; ``PATH-rerun`` if none. A repetition that was cut off goes on.
        where: data, weights and code, if not where they were.
        overwrite: replace results in ``output``.

    Raises:
        ResultsError: not a run's folder; a record that does not say how the run was made; weights,
            data or code that are no longer the run's.
        ConfigError: a target that nobody vouches for.
        LmdError: what the command raises.
    """
    where = where or Whereabouts()
    record = existing_record(path)
    command = recorded_command(path, record)
    require_known_targets(path, record, where)
    config = run_config(path, record, where)
    require_recorded(make_ready(config, None, progress), path, record)
    target = output or path.with_name(f"{path.resolve().name}-rerun")
    if target.resolve() == path.resolve():
        raise ResultsError(f"{path} is the run itself; give another --output")
    command.run(config, target, overwrite=overwrite, progress=progress)
    return _compared(record, read_record(target) or {}, target)


def recorded_command(path: Path, record: Mapping[str, Any]) -> AnyCommand:
    """The command that made a run.

    Raises:
        ResultsError: the record names none, or one that this version does not know.
    """
    if record.get("command") is None:
        raise ResultsError(
            f"{path / 'run.json'} does not say by which command it was made (earlier versions did "
            "not note it); run that command again"
        )
    try:
        return _COMMAND.validate_python(record["command"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ResultsError(
            f"{path / 'run.json'}: command is none that this version knows: {first['msg']}"
        ) from None


def _compared(old: Mapping[str, Any], new: Mapping[str, Any], output: Path) -> Repeated:
    before, after = old.get("files") or {}, new.get("files") or {}
    keys = ("processor", "device", "threads", "versions", "code")
    changed = differences({k: old.get(k) for k in keys}, {k: new.get(k) for k in keys})
    return Repeated(
        output,
        [name for name in before if before[name] == after.get(name)],
        [name for name in before if before[name] != after.get(name)],
        changed,
    )
