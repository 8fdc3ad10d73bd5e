"""``lmd bundle``: a run's folder as one archive, with a list of what is in it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmd_cli.data.content import file_sha256
from lmd_cli.errors import ResultsError
from lmd_cli.results.provenance import require_unedited
from lmd_cli.results.read_run import existing_record
from lmd_cli.results.survey_files import require_unedited_survey
from lmd_cli.runtime.files import disk_errors, open_plain, replacing
from lmd_cli.workflows.report import PAGE, SURVEY, ReportOptions, make_report

MANIFEST = "manifest.json"
#: Of every file in the archive: the same contents make the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
#: Entries of ``run.json`` that the manifest repeats.
_SAID = ("status", "config_sha256", "weights", "samples", "code", "versions", "command")


def bundle(path: Path, output: Path | None = None, *, overwrite: bool = False) -> Path:
    """Writes a ZIP archive of a run's folder: results, records, page, ``manifest.json``.

    A page that is not there is made of what there is, without opening data or network. Hidden
    files and links are left out.

    Args:
        path: the folder of ``lmd evaluate``, ``score``, ``sanity`` or ``detect``.
        output: the archive; ``PATH.zip`` if none.
        overwrite: replace an archive that is there.

    Returns:
        the archive.

    Raises:
        ResultsError: not a run's folder, results that were edited, an archive that is there, or one
            inside the folder.
        RunError: the disk is full.
    """
    record = existing_record(path)
    require_unedited(path, record)
    require_unedited_survey(path / SURVEY)
    name = path.resolve().name
    target = output or path.with_name(f"{name}.zip")
    if target.resolve().is_relative_to(path.resolve()):
        raise ResultsError(f"{target} lies in the run's folder; give another --output")
    if os.path.lexists(target) and not overwrite:
        raise ResultsError(f"{target} is there already; add --overwrite, or use another --output")
    if "schedule" in record and not (path / PAGE).exists():
        make_report(path, options=ReportOptions(compute=False))
    files = _files(path)
    manifest = _manifest(record, path, files)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, f"{name}/{MANIFEST}", manifest)
            for inside in files:
                _copy(archive, f"{name}/{inside}", path / inside)
    return target


def _files(path: Path) -> list[str]:
    """Names of plain files below a folder, sorted; nothing is followed out of it."""
    listed = []
    for folder, folders, names in os.walk(path):
        folders[:] = [n for n in folders if not n.startswith(".")]
        plain = (Path(folder, n) for n in names if not n.startswith("."))
        listed += [
            p.relative_to(path).as_posix() for p in plain if p.is_file() and not p.is_symlink()
        ]
    return sorted(name for name in listed if name != MANIFEST)


def _manifest(record: Mapping[str, Any], path: Path, files: list[str]) -> bytes:
    entries = {
        name: {"sha256": file_sha256(path / name), "bytes": (path / name).stat().st_size}
        for name in files
    }
    run = {key: record[key] for key in _SAID if key in record}
    text = json.dumps({"format": 1, "run": run, "files": entries}, indent=2, ensure_ascii=False)
    return text.encode() + b"\n"


def _information(name: str) -> zipfile.ZipInfo:
    information = zipfile.ZipInfo(name, _DATE)
    information.compress_type = zipfile.ZIP_DEFLATED
    information.external_attr = 0o644 << 16
    return information


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(_information(name), data)


def _copy(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    with (
        open(path, "rb", opener=open_plain) as source,
        archive.open(_information(name), "w", force_zip64=True) as file,
    ):
        shutil.copyfileobj(source, file)
