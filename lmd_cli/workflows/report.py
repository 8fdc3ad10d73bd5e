"""``lmd report``: from a run's folder to its page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmd_cli.config.schema import CustomDataConfig, CustomModelConfig, RunConfig, is_custom
from lmd_cli.errors import ConfigError, ResultsError
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.report.page.build import build_page
from lmd_cli.results.read_run import RunResults, read_run
from lmd_cli.results.record import sample_list_sha256
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_draft import DraftFolder
from lmd_cli.results.survey_files import FORMAT, earlier_format, read_survey, write_survey
from lmd_cli.runtime.files import disk_errors, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.survey import survey

#: Folder inside the run's, one inside that while it is made, and the page beside the tables.
SURVEY, DRAFT, PAGE = "survey", "unfinished", "report.html"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportOptions:
    """How to make a page.

    Attributes:
        variant: rules of the maps; the config's ``explain`` if none.
        viewer: how many of the first samples can be looked at, beside those that disagree most.
        limit: survey only the first samples of the run.
        compute: decompose the samples again if there is no survey of them yet.
        dataroot, checkpoint, device: where data and weights are now, if not where they were.
        trust: import the targets that the run's record names, which may be anybody's code.
        config: a config of the user's own, whose targets are imported where the record names
            the same.
    """

    variant: str | None = None
    viewer: int = 6
    limit: int | None = None
    compute: bool = True
    dataroot: str | None = None
    checkpoint: str | None = None
    device: str | None = None
    trust: bool = False
    config: RunConfig | None = None


def make_report(
    path: Path,
    output: Path | None = None,
    options: ReportOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the page of a run, and first, if needed, the survey of its samples.

    A survey that was cut off goes on, and ends with the same bytes. A record's targets are code:
    unless somebody vouches for them, the page is made of what is there, and says so.

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
    surveyed, left_out = run_survey(run, options, progress)
    if left_out:
        log.warning(left_out)
        run = replace(run, notes=[*run.notes, left_out])
    page = build_page(run, surveyed)
    target = output or path / PAGE
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, page)
    return target


def run_survey(
    run: RunResults, options: ReportOptions, progress: Progress | None
) -> tuple[Survey | None, str]:
    """The survey, if there is one or one can be made; and why none was made."""
    folder = run.path / SURVEY
    tokens = run.tokens[: options.limit]
    variant = _variant(run, options.variant)
    identity = survey_identity(run, tokens, variant, options.viewer)
    surveyed = read_survey(folder, identity if options.compute else None)
    old = earlier_format(folder) if surveyed is None else None
    made_before = f"the survey in {folder} has format {old}, this version's has {FORMAT}: "
    unknown = unknown_targets(run, options)
    if old is not None and not options.compute:
        return None, made_before + "it is left out; without --no-survey the samples are done again"
    if surveyed is None and options.compute and tokens and unknown:
        return read_survey(folder, None), (
            f"{' and '.join(unknown)} in {run.path / 'run.json'} is code that was not run, so the "
            "samples were not decomposed for maps. If it is yours, give the config that names it "
            "with --config, or --trust to run what the folder names"
        )
    if surveyed is None and options.compute and tokens:
        if old is not None:
            log.warning("%sthe samples are surveyed again", made_before)
        draft = DraftFolder(folder / DRAFT, identity)
        with draft.held():
            made = _compute(run, tokens, variant, options, draft, progress)
            write_survey(made, identity, folder)
        surveyed = read_survey(folder, identity)
    return surveyed, ""


def unknown_targets(run: RunResults, options: ReportOptions) -> list[str]:
    """Targets, as ``model.target 'scanner:Fusion'``, that the record names and nobody vouches for.

    The record is a file that may come from anywhere, and a target's options are arguments of the
    code: a config vouches for a target with the same options.
    """
    sections = {kind: run.record["config"].get(kind) for kind in ("model", "data")}
    return [
        f"{kind}.target {section['target']!r}"
        for kind, section in sections.items()
        if is_custom(section) and not (options.trust or _trusted(options.config, kind, section))
    ]


def _trusted(config: RunConfig | None, kind: str, section: Mapping[str, Any]) -> bool:
    if config is None:
        return False
    given = getattr(config, kind).model_dump(mode="json")
    same = given.get("target") == section["target"]
    return same and given.get("options", {}) == section.get("options", {})


def _variant(run: RunResults, wanted: str | None) -> str:
    known = run.known_variants
    if wanted is None or wanted in known:
        return wanted or known[0]
    raise ConfigError(f"variant {wanted} is not among the run's: {', '.join(known)}")


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
    from lmd_cli.workflows.ready import make_ready

    config = run_config(run, options)
    ready = make_ready(config, variant, progress)
    _require(ready.built.sha256, run.record["weights"]["sha256"], "the weights", run.path)
    listed = sample_list_sha256(ready.dataset.tokens)
    _require(listed, run.record["samples"]["sha256"], "the samples of the split", run.path)
    where = None if isinstance(config.model, CustomModelConfig) else plane_of(config)
    return survey(ready, tokens, where, viewer=options.viewer, progress=progress, keeper=draft)


def run_config(run: RunResults, options: ReportOptions) -> RunConfig:
    """The run's config with its threads, weights and data where they are now."""
    config = run.config()
    if options.dataroot and isinstance(config.data, CustomDataConfig):
        raise ConfigError(
            f"--dataroot was given, but the run's samples come from {config.data.target}"
        )
    recorded = str(run.record.get("checkpoint", ""))
    given = options.checkpoint or (recorded if Path(recorded).is_file() else None)
    changes: Mapping[str, Any] = {
        "model": config.model.model_copy(update={"checkpoint": given} if given else {}),
        "data": config.data.model_copy(
            update={"dataroot": options.dataroot} if options.dataroot else {}
        ),
        "threads": run.record.get("threads"),
        "device": options.device or config.device,
    }
    changed = config.model_copy(update=dict(changes))
    own = options.config.source if options.config is not None else None
    source = own or run.record.get("config_file")
    return changed if source is None else changed.with_origin(Path(source))


def _require(actual: Any, expected: Any, what: str, path: Path) -> None:
    if actual != expected:
        raise ResultsError(
            f"{what} are not those of the run in {path} (sha256 {actual} here, {expected} there); "
            "give the right --dataroot and --checkpoint, or --no-survey for a page without maps"
        )
