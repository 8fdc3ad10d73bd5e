"""``lmd report``: from a run's folder to its page."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmd_cli.config.schema import CustomModelConfig
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.detections.figures import MatchedDetections
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.evaluation.ground.removal import Removal
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.report.page.build import build_page
from lmd_cli.results.detection_run import DetectionRun, read_detection_run
from lmd_cli.results.matched_detections import read_matched
from lmd_cli.results.provenance import note_survey, require_unedited
from lmd_cli.results.read_run import RunResults, read_run
from lmd_cli.results.record import sample_list_sha256
from lmd_cli.results.survey import Survey
from lmd_cli.results.survey_draft import DraftFolder
from lmd_cli.results.survey_files import FORMAT, earlier_format, read_survey, write_survey
from lmd_cli.results.verdict import read_verdict
from lmd_cli.runtime.files import disk_errors, write_atomically
from lmd_cli.runtime.progress import Progress
from lmd_cli.workflows.recorded_run import (
    Whereabouts,
    require_recorded,
    run_config,
    unknown_targets,
)
from lmd_cli.workflows.survey import survey

#: Folder inside the run's, one inside that while it is made, and the page beside the tables.
SURVEY, DRAFT, PAGE = "survey", "unfinished", "report.html"
#: Where ``lmd detect`` writes beside a run.
DETECT = "detect"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportOptions(Whereabouts):
    """How to make a page, and where what it is made of is now.

    Attributes:
        variant: rules of the maps; the config's ``explain`` if none.
        viewer: how many of the first samples can be looked at, beside those that disagree most.
        removal: what takes the place of a removed sensor's features.
        limit: survey only the first samples of the run.
        compute: decompose the samples again if there is no survey of them yet.
        resume: take a survey that is there, whole or begun; else the samples are surveyed anew.
    """

    variant: str | None = None
    viewer: int = 6
    removal: Removal = "zeroed"
    limit: int | None = None
    compute: bool = True
    resume: bool = True

    def __post_init__(self) -> None:
        """Raises ConfigError: to survey anew, and not to survey."""
        if not (self.compute or self.resume):
            raise ConfigError(
                "--no-resume surveys the samples anew and --no-survey does not survey them: give "
                "one of the two"
            )


@dataclass(frozen=True, eq=False)
class Surveyed:
    """A run, and the survey of its samples if there is one."""

    run: RunResults
    survey: Survey | None


def make_report(
    path: Path,
    output: Path | None = None,
    options: ReportOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the page of a run, and first, if needed, the survey of its samples.

    Args:
        path: the folder that ``lmd evaluate`` wrote.
        output: the page; ``report.html`` in that folder if none.

    Returns:
        the page.

    Raises:
        LmdError: see :func:`open_surveyed`; RunError: the disk is full.
    """
    return write_page(open_surveyed(path, options, progress), output)


def open_surveyed(
    path: Path, options: ReportOptions | None = None, progress: Progress | None = None
) -> Surveyed:
    """A run with its survey, which is made if there is none.

    A survey that was cut off goes on, and ends with the same bytes. A record's targets are code:
    unless somebody vouches for them, the page is made of what is there, and says so.

    Raises:
        ResultsError: not a run's folder, or results that were edited, or data, weights and code
            are no longer the run's, or another process surveys it.
        LmdError: data or weights cannot be read.
    """
    options = options or ReportOptions()
    run = read_run(path)
    require_unedited(path, run.record)
    surveyed, left_out = run_survey(run, options, progress)
    if left_out:
        log.warning(left_out)
        run = replace(run, notes=[*run.notes, left_out])
    return Surveyed(run, surveyed)


def write_page(made: Surveyed, output: Path | None = None) -> Path:
    """Writes the page.

    Raises:
        RunError: the disk is full.
    """
    path = made.run.path
    page = build_page(made.run, made.survey, detections_of(made.run), read_verdict(path))
    target = output or path / PAGE
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, page)
    return target


def detections_of(run: RunResults) -> DetectionRun | None:
    """What ``lmd detect`` wrote beside a run, of the same weights and samples."""
    made = read_detection_run(run.path / DETECT)
    return made if made is not None and _is_of(run, made.record) else None


def matched_of(run: RunResults) -> MatchedDetections | None:
    """The same, of which only the outcomes are needed."""
    made = read_matched(run.path / DETECT)
    return made[1] if made is not None and _is_of(run, made[0]) else None


def _is_of(run: RunResults, record: Mapping[str, Any]) -> bool:
    different = [name for name in ("weights", "samples") if record[name] != run.record[name]]
    if different:
        log.warning(
            "%s is of other %s than the run: its detections are left out",
            run.path / DETECT,
            " and ".join(different),
        )
    return not different


def run_survey(
    run: RunResults, options: ReportOptions, progress: Progress | None
) -> tuple[Survey | None, str]:
    """The survey, if there is one or one can be made; and why none was made."""
    folder = run.path / SURVEY
    tokens = run.tokens[: options.limit]
    variant = _variant(run, options.variant)
    identity = survey_identity(run, tokens, variant, options)
    surveyed = None
    if options.resume:
        surveyed = read_survey(folder, identity if options.compute else None)
    old = earlier_format(folder) if surveyed is None else None
    made_before = f"the survey in {folder} has format {old}, this version's has {FORMAT}: "
    unknown = unknown_targets(run.record, options)
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
        began = time.monotonic()
        with draft.held():
            if not options.resume:
                draft.forget()
            made = _compute(run, tokens, variant, options, draft, progress)
            write_survey(made, identity, folder)
            note_survey(folder, time.monotonic() - began)
        surveyed = read_survey(folder, identity)
    return surveyed, ""


def _variant(run: RunResults, wanted: str | None) -> str:
    known = run.known_variants
    if wanted is None or wanted in known:
        return wanted or known[0]
    raise ConfigError(f"variant {wanted} is not among the run's: {', '.join(known)}")


def survey_identity(
    run: RunResults, tokens: list[str], variant: str, options: ReportOptions
) -> dict[str, Any]:
    """What a survey depends on."""
    same = ("config", "weights", "threads", "versions")
    limited = options.limit is not None and options.limit < len(run.tokens)
    return {
        **{key: run.record.get(key) for key in same},
        "tokens": sample_list_sha256(tokens),
        "variant": variant,
        "viewer": options.viewer,
        "removal": options.removal,
        **({"limit": options.limit} if limited else {}),
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

    config = run_config(run.path, run.record, options)
    ready = make_ready(config, variant, progress)
    hint = "or --no-survey for a page without maps"
    require_recorded(ready, run.path, run.record, hint)
    where = None if isinstance(config.model, CustomModelConfig) else plane_of(config)
    partner = partner_of(run, ready.dataset.tokens)
    return survey(
        *(ready, tokens, where),
        viewer=options.viewer,
        progress=progress,
        keeper=draft,
        partner=partner if options.removal == "replaced" else None,
        compared=None if variant in run.rows else partner,
    )


def partner_of(run: RunResults, tokens: Sequence[str]) -> Callable[[int], int]:
    """From a sample to its first partner in the run's schedule that could be read."""
    record, own = run.record, run.record["schedule"]
    schedule = Schedule(len(tokens), own["stride"], own["count"])
    unreadable = {*record.get("skipped", ()), *record.get("missing_partners", ())}

    def partner(index: int) -> int:
        partners = [schedule.replacing(index, m) for m in range(1, schedule.count + 1)]
        return next((p for p in partners if tokens[p] not in unreadable), partners[0])

    return partner
