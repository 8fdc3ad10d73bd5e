"""From a run's folder to its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmd_cli.config import OwnDataConfig, OwnModelConfig, RunConfig
from lmd_cli.errors import ConfigError, ResultsError
from lmd_cli.evaluation.record import sample_list_sha256
from lmd_cli.evaluation.results import disk_errors, write_atomically
from lmd_cli.progress import Progress
from lmd_cli.report.page import build_page
from lmd_cli.report.plane import plane_of
from lmd_cli.report.run_folder import RunResults, read_run
from lmd_cli.report.survey import Survey, survey
from lmd_cli.report.survey_draft import DraftFolder
from lmd_cli.report.survey_files import read_survey, write_survey

#: Folder inside the run's, one inside that while it is made, and the page beside the tables.
SURVEY, DRAFT, PAGE = "survey", "unfinished", "report.html"


@dataclass(frozen=True)
class ReportOptions:
    """How to make a page.

    Attributes:
        variant: rules of the maps; the run's first if none.
        viewer: how many of the first samples can be looked at, beside those that disagree most.
        limit: survey only the first samples of the run.
        compute: decompose the samples again if there is no survey of them yet.
        dataroot, checkpoint, device: where data and weights are now, if not where they were.
    """

    variant: str | None = None
    viewer: int = 6
    limit: int | None = None
    compute: bool = True
    dataroot: str | None = None
    checkpoint: str | None = None
    device: str | None = None


def make_report(
    path: Path,
    output: Path | None = None,
    options: ReportOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the page of a run, and first, if needed, the survey of its samples.

    A survey that was cut off goes on, and ends with the same bytes.

    Args:
        path: the folder that ``lmd evaluate`` wrote.
        output: the page; ``report.html`` in that folder if none.

    Returns:
        the page.

    Raises:
        ResultsError: not a run's folder, or data and weights are no longer the run's, or another
            process surveys it.
        LmdError: data or weights cannot be read.
        RunError: the disk is full.
    """
    options = options or ReportOptions()
    run = read_run(path)
    found = _survey(run, options, progress)
    page = build_page(run, found)
    target = output or path / PAGE
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, page)
    return target


def _survey(run: RunResults, options: ReportOptions, progress: Progress | None) -> Survey | None:
    folder = run.path / SURVEY
    tokens = run.tokens[: options.limit]
    variant = _variant(run, options.variant)
    identity = survey_identity(run, tokens, variant, options.viewer)
    found = read_survey(folder, identity if options.compute else None)
    if found is None and options.compute and tokens:
        draft = DraftFolder(folder / DRAFT, identity)
        with draft.held():
            made = _compute(run, tokens, variant, options, draft, progress)
            write_survey(made, identity, folder)
        found = read_survey(folder, identity)
    return found


def _variant(run: RunResults, wanted: str | None) -> str:
    if wanted is None or wanted in run.variants:
        return wanted or run.variants[0]
    raise ConfigError(f"variant {wanted} is not among the run's: {', '.join(run.variants)}")


def survey_identity(
    run: RunResults, tokens: list[str], variant: str, viewer: int
) -> dict[str, Any]:
    """What a survey depends on."""
    same = ("config", "weights", "threads", "versions")
    return {
        **{key: run.record.get(key) for key in same},
        "tokens": sample_list_sha256(tokens),
        "variant": variant,
        "viewer": viewer,
    }


def _compute(
    run: RunResults,
    tokens: list[str],
    variant: str,
    options: ReportOptions,
    draft: DraftFolder,
    progress: Progress | None,
) -> Survey:
    from lmd_cli.single import make_ready

    config = run_config(run, options)
    ready = make_ready(config, variant, progress)
    _require(ready.built.sha256, run.record["weights"]["sha256"], "the weights", run.path)
    listed = sample_list_sha256(ready.dataset.tokens)
    _require(listed, run.record["samples"]["sha256"], "the samples of the split", run.path)
    where = None if isinstance(config.model, OwnModelConfig) else plane_of(config)
    return survey(ready, tokens, where, viewer=options.viewer, progress=progress, keeper=draft)


def run_config(run: RunResults, options: ReportOptions) -> RunConfig:
    """The run's config with its threads, weights and data where they are now."""
    config = run.config()
    if options.dataroot and isinstance(config.data, OwnDataConfig):
        raise ConfigError(
            f"--dataroot was given, but the run's samples come from {config.data.target}"
        )
    found = str(run.record.get("checkpoint", ""))
    given = options.checkpoint or (found if Path(found).is_file() else None)
    changes: Mapping[str, Any] = {
        "model": config.model.model_copy(update={"checkpoint": given} if given else {}),
        "data": config.data.model_copy(
            update={"dataroot": options.dataroot} if options.dataroot else {}
        ),
        "threads": run.record.get("threads"),
        "device": options.device or config.device,
    }
    changed = config.model_copy(update=dict(changes))
    source = run.record.get("config_file")
    return changed if source is None else changed.with_origin(Path(source))


def _require(found: Any, expected: Any, what: str, path: Path) -> None:
    if found != expected:
        raise ResultsError(
            f"{what} are not those of the run in {path} (sha256 {found} here, {expected} there); "
            "give the right --dataroot and --checkpoint, or --no-survey for a page without maps"
        )
