"""A nuScenes root of several samples from one keyframe: its files again and again, in one scene.

Sample i shows the cameras' images turned round by i places, so that samples differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERSION = "v1.0-mini"
STEP = 500_000  # microseconds between samples
PER_SAMPLE = ("sample", "sample_data", "ego_pose", "sample_annotation", "instance")


def repeat_keyframe(source: Path, target: Path, samples: int) -> Path:
    """Writes tables for ``samples`` samples; the data files are links to the source's."""
    tables = {p.stem: json.loads(p.read_text()) for p in (source / VERSION).glob("*.json")}
    channels = _cameras(tables)
    copies = [_renamed(tables, channels, i, samples) for i in range(samples)]
    for name in PER_SAMPLE:
        tables[name] = [row for copy in copies for row in copy[name]]
    first, last = tables["sample"][0]["token"], tables["sample"][-1]["token"]
    ends = {"first_sample_token": first, "last_sample_token": last, "nbr_samples": samples}
    tables["scene"] = [{**tables["scene"][0], **ends}]
    (target / VERSION).mkdir(parents=True)
    for name, rows in tables.items():
        (target / VERSION / f"{name}.json").write_text(json.dumps(rows))
    for folder in ("samples", "maps"):
        (target / folder).symlink_to((source / folder).resolve())
    return target


def _cameras(tables: dict[str, Any]) -> list[str]:
    files = [row["filename"] for row in tables["sample_data"]]
    return sorted(name for name in files if "/CAM_" in name)


def _renamed(
    tables: dict[str, Any], cameras: list[str], i: int, samples: int
) -> dict[str, list[dict[str, Any]]]:
    """The rows of sample i, with tokens, times, neighbours and images of their own."""
    own = {row["token"] for name in PER_SAMPLE for row in tables[name]}

    def name_of(token: str, k: int) -> str:
        return f"{token[:-3]}{k:03d}" if 0 <= k < samples else ""

    def moved(row: dict[str, Any]) -> dict[str, Any]:
        out = {k: name_of(v, i) if v in own else v for k, v in _plain(row).items()}
        out |= {k: row[k] for k in row if k not in out}
        if "timestamp" in row:
            out["timestamp"] = row["timestamp"] + STEP * i
        if "prev" in row and "filename" in row | {"scene_token": ""} and "translation" not in row:
            out["prev"], out["next"] = name_of(row["token"], i - 1), name_of(row["token"], i + 1)
        if row.get("filename") in cameras:
            out["filename"] = cameras[(cameras.index(row["filename"]) + i) % len(cameras)]
        return out

    return {name: [moved(row) for row in tables[name]] for name in PER_SAMPLE}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if isinstance(v, str)}
