"""The folder of ``lmd detect``, read again for its outcomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.detections.figures import MatchedDetections
from lmd_cli.results.detection_rows import read_detections
from lmd_cli.results.detection_run import ROWS
from lmd_cli.results.run_folder import read_record
from lmd_cli.runtime.files import open_plain, read_own

BOXES, METRICS = "detections.json", "detection_metrics.json"


def read_matched(folder: Path) -> tuple[dict[str, Any], MatchedDetections] | None:
    """The record, and what is right of what was detected; ``None`` where nothing was matched.

    Raises:
        ResultsError: a file is damaged.
    """
    record = read_record(folder)
    if record is None or record.get("status") != "finished" or not (folder / ROWS).is_file():
        return None
    rows = read_detections(folder / ROWS)
    if not any(row["outcome"] for row in rows):
        return None
    samples = _detected(folder / BOXES)
    return record, MatchedDetections(rows, _figures(folder / METRICS), samples, samples)


def _detected(path: Path) -> frozenset[str]:
    """Tokens of a submission, which holds one sample a line."""
    token = json.JSONDecoder().raw_decode
    try:
        with open(path, encoding="utf-8", opener=open_plain) as file:
            return frozenset(str(token(line)[0]) for line in file if line.startswith('"'))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None


def _figures(path: Path) -> dict[str, Any]:
    try:
        figures = json.loads(read_own(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    known = {"mean_ap", "nd_score", "tp_errors", "mean_dist_aps", "annotations"}
    if isinstance(figures, dict) and (known <= set(figures) or "panoptic_quality" in figures):
        return figures
    raise _damaged(path, "it has neither mAP nor panoptic quality")


def _damaged(path: Path, why: str) -> ResultsError:
    return ResultsError(f"{path} is damaged ({why}); the same lmd detect writes it again")
