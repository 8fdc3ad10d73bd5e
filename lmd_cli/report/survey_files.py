"""A survey on disk, in ``survey/`` of the run's folder, so that a page is made again at once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.results import csv_lines, disk_errors, write_atomically
from lmd_cli.report.plane import Plane
from lmd_cli.report.survey import LAYER_FIELDS, SAMPLE_FIELDS, Shown, Survey
from lmd_cli.report.vehicles import object_fields

#: Raised whenever the files' content changes its meaning.
FORMAT = 2
FILES = ("objects.csv", "layers.csv", "samples.csv", "maps.npz", "survey.json")
#: Columns that hold text, also where it looks like a number.
TEXTS = frozenset(
    ("sample_token", "scene", "description", "token", "category", "alone", "module", "operation")
)
_ARRAYS = ("parts", "truth", "outlines")


def write_survey(found: Survey, identity: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes :data:`FILES`, the record last, so that a torn survey is not taken for a whole one.

    Args:
        identity: what the survey is of; see :func:`read_survey`.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    record = {
        "format": FORMAT,
        "identity": identity,
        "plane": asdict(found.plane),
        "variant": found.variant,
        "output": found.output,
        "ground": found.ground,
        "parts": found.parts,
        "layer_parts": found.layer_parts,
        "shown": [[s.index, s.token, s.scene, s.description] for s in found.shown],
    }
    layer_header = (*LAYER_FIELDS, *(f"share_{name}" for name in found.layer_parts))
    contents = {
        "objects.csv": csv_lines([object_fields(found.parts), *found.objects]),
        "layers.csv": csv_lines([layer_header, *found.layers]),
        "samples.csv": csv_lines([SAMPLE_FIELDS, *found.samples]),
        "maps.npz": maps_npz(found.shown),
        "survey.json": json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n",
    }
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "survey.json").unlink(missing_ok=True)
    for name, data in contents.items():
        write_atomically(folder / name, data)
    return [folder / name for name in FILES]


def maps_npz(shown: Sequence[Shown]) -> bytes:
    """Arrays ``parts_0``, ..., and the images' JPEG bytes as ``image_0_0``, ..."""
    arrays: dict[str, Any] = {}
    for number, one in enumerate(shown):
        arrays |= {f"{name}_{number}": getattr(one, name) for name in _ARRAYS}
        for camera, data in enumerate(one.images):
            arrays[f"image_{number}_{camera}"] = np.frombuffer(data, dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read_survey(folder: Path, identity: Mapping[str, Any] | None) -> Survey | None:
    """The survey in a folder, or ``None`` if there is none of this identity.

    Args:
        identity: what the survey must be of; ``None`` takes any.

    Raises:
        ResultsError: its files are damaged.
    """
    path = folder / "survey.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        # Compared as JSON, which knows no tuples.
        wanted = None if identity is None else json.loads(json.dumps(identity))
        if record["format"] != FORMAT or wanted not in (None, record["identity"]):
            return None
        return _survey(folder, record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{folder} is damaged ({error}); remove it and try again") from None


def _survey(folder: Path, record: Mapping[str, Any]) -> Survey:
    with np.load(folder / "maps.npz", allow_pickle=False) as maps:
        arrays = dict(maps)
    return Survey(
        Plane(**record["plane"]),
        record["variant"],
        record["parts"],
        [shown_of(arrays, number, named) for number, named in enumerate(record["shown"])],
        _rows(folder / "objects.csv"),
        _rows(folder / "samples.csv"),
        _rows(folder / "layers.csv"),
        record["layer_parts"],
        record["output"],
        record.get("ground", True),
    )


def shown_of(arrays: Mapping[str, Any], number: int, named: Sequence[Any]) -> Shown:
    """The sample of this number in the arrays of :func:`maps_npz`.

    Args:
        named: its index, token, scene and description.
    """
    images: list[bytes] = []
    while (data := arrays.get(f"image_{number}_{len(images)}")) is not None:
        images.append(data.tobytes())
    index, token, scene, description = named
    parts, truth, outlines = (arrays[f"{name}_{number}"] for name in _ARRAYS)
    return Shown(index, token, scene, description, parts, truth, outlines, tuple(images))


def _rows(path: Path) -> list[Sequence[Any]]:
    """Rows of plain values; ``None`` for an empty number."""
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    return [tuple(map(_value, header, row)) for row in rows]


def _value(column: str, text: str) -> Any:
    if column in TEXTS:
        return text
    if not text:
        return None
    return int(text) if text.isdigit() else float(text)
