"""A survey on disk, in ``survey/`` of the run's folder, so that a page is made again at once."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.evaluation.ground.removal import Removal
from lmd_cli.evaluation.ground.vehicles import object_fields
from lmd_cli.results.pair_rows import PAIR_FIELDS
from lmd_cli.results.survey import LAYER_FIELDS, Shown, Survey, sample_fields
from lmd_cli.runtime.files import (
    csv_lines,
    disk_errors,
    format_value,
    make_folder,
    open_plain,
    read_own,
    read_text,
    require_folder,
    write_atomically,
)

#: Raised whenever the files' content changes its meaning.
FORMAT = 6
FILES = ("objects.csv", "layers.csv", "samples.csv", "pairs.csv", "maps.npz", "survey.json")
#: Columns that hold text, also where it looks like a number.
TEXTS = frozenset(
    (
        *("sample_token", "scene", "description", "moment", "token", "instance", "category"),
        *("module", "operation", "perturbed_token", "variant", "perturbed", "target"),
        *("enough_by_parts", "enough_by_removal"),
    )
)
_ARRAYS = ("parts", "truth", "outlines", "frames")
#: More than the maps of any survey take.
MOST_BYTES, MOST_PIXELS = 2**32, 2**26
#: What reading a survey raises that is not what we wrote.
DAMAGED = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(MemoryError, EOFError, RecursionError),
    *(SyntaxError, csv.Error, zipfile.BadZipFile, zlib.error, NotImplementedError),
)


class _Plane(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")

    rows: int = Field(ge=1, le=10**5)
    columns: int = Field(ge=1, le=10**7)
    left: float
    right: float
    back: float
    front: float
    camera: float = 0.0


class _Record(BaseModel):
    """``survey.json``, whoever wrote it."""

    plane: _Plane
    variant: str
    output: str
    ground: bool = True
    detection: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    parts: list[str]
    layer_parts: list[str]
    shown: list[tuple[int, str, str, str, str]]
    removal: Removal


class _Options(BaseModel):
    """Of a survey's identity, what ``lmd report`` was told."""

    model_config = ConfigDict(strict=True)

    viewer: int = Field(ge=1)
    variant: str
    removal: Removal
    limit: int | None = Field(None, ge=1)


def write_survey(survey: Survey, identity: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes :data:`FILES`, the record last, so that a torn survey is not taken for a whole one.

    Args:
        identity: what the survey is of; see :func:`read_survey`.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    record = {
        "format": FORMAT,
        "identity": identity,
        "plane": asdict(survey.plane),
        "variant": survey.variant,
        "output": survey.output,
        "ground": survey.ground,
        "parts": survey.parts,
        "layer_parts": survey.layer_parts,
        "shown": [[s.index, s.token, s.scene, s.description, s.moment] for s in survey.shown],
        "removal": survey.removal,
    }
    if survey.detection != "auto":
        record["detection"] = survey.detection
    contents = {
        "objects.csv": csv_lines([object_fields(survey.parts), *survey.objects]),
        "layers.csv": csv_lines([_layer_fields(survey.layer_parts), *survey.layers]),
        "samples.csv": csv_lines([sample_fields(survey.parts), *survey.samples]),
        "pairs.csv": csv_lines([PAIR_FIELDS, *survey.pairs]),
        "maps.npz": maps_npz(survey.shown),
        "survey.json": json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n",
    }
    with disk_errors(folder):
        make_folder(folder)
        (folder / "survey.json").unlink(missing_ok=True)
    for name, data in contents.items():
        write_atomically(folder / name, data)
    return [folder / name for name in FILES]


def _layer_fields(parts: Sequence[str]) -> tuple[str, ...]:
    return (*LAYER_FIELDS, *(f"share_{name}" for name in parts))


def maps_npz(shown: Sequence[Shown]) -> bytes:
    """Arrays ``parts_0``, ..., and the images' JPEG bytes as ``image_0_CAM_FRONT``, ..."""
    arrays: dict[str, Any] = {}
    for number, one in enumerate(shown):
        arrays |= {f"{name}_{number}": getattr(one, name) for name in _ARRAYS}
        for camera, data in one.images.items():
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
    require_folder(folder)
    if not os.path.lexists(folder / "survey.json"):
        return None
    try:
        record = json.loads(read_own(folder / "survey.json"))
        # Compared as JSON, which knows no tuples.
        wanted = None if identity is None else json.loads(json.dumps(identity))
        if record["format"] != FORMAT or wanted not in (None, record["identity"]):
            return None
        return _survey(folder, record)
    except DAMAGED as error:
        raise ResultsError(f"{folder} is damaged ({error}); remove it and try again") from None


def earlier_format(folder: Path) -> int | None:
    """The format of a survey that another version made, which is not read; else ``None``."""
    try:
        made = json.loads(read_own(folder / "survey.json"))["format"]
    except (FileNotFoundError, *DAMAGED):
        return None
    return made if isinstance(made, int) and made != FORMAT else None


def surveyed_with(folder: Path) -> dict[str, Any] | None:
    """The options of ``lmd report`` that the survey in a folder was made with, if there is one."""
    try:
        identity = json.loads(read_own(folder / "survey.json"))["identity"]
        return _Options.model_validate(identity).model_dump()
    except (FileNotFoundError, *DAMAGED):
        return None


def _survey(folder: Path, record: Mapping[str, Any]) -> Survey:
    _Record.model_validate(record)
    arrays = read_maps(folder / "maps.npz")
    shown = [shown_of(arrays, number, named) for number, named in enumerate(record["shown"])]
    shape = (len(record["parts"]), record["plane"]["rows"], record["plane"]["columns"])
    if any(one.parts.shape != shape for one in shown):
        raise ValueError(f"maps.npz holds other maps than {shape[0]} of {shape[1]} x {shape[2]}")
    return Survey(
        Plane(**record["plane"]),
        record["variant"],
        record["parts"],
        shown,
        _rows(folder / "objects.csv", object_fields(record["parts"])),
        _rows(folder / "samples.csv", sample_fields(record["parts"])),
        _rows(folder / "layers.csv", _layer_fields(record["layer_parts"])),
        record["layer_parts"],
        record["output"],
        record.get("ground", True),
        record.get("detection", "auto"),
        record["removal"],
        _rows(folder / "pairs.csv", PAIR_FIELDS),
    )


def read_maps(path: Path) -> dict[str, Any]:
    """What :func:`maps_npz` wrote.

    Raises:
        one of :data:`DAMAGED`; FileNotFoundError.
    """
    with open(path, "rb", opener=open_plain) as file:
        with zipfile.ZipFile(file) as members:
            if sum(member.file_size for member in members.infolist()) > MOST_BYTES:
                raise ValueError(f"{path.name} would take more than {MOST_BYTES} bytes")
        file.seek(0)
        with np.load(file, allow_pickle=False) as maps:
            return dict(maps)


def shown_of(arrays: Mapping[str, Any], number: int, named: Sequence[Any]) -> Shown:
    """The sample of this number in the arrays of :func:`maps_npz`.

    Args:
        named: its index, token, scene, description and moment.
    """
    begin = f"image_{number}_"
    names = [name for name in arrays if name.startswith(begin)]
    images = {name.removeprefix(begin): _jpeg(arrays[name]) for name in names}
    index, token, scene, description, moment = named
    parts, truth, outlines, frames = (arrays[f"{name}_{number}"] for name in _ARRAYS)
    sizes = (truth.shape, outlines.shape[1:], frames.shape[1:]) == (parts.shape[1:], (4, 2), (5,))
    kinds = (parts.dtype, truth.dtype) == (np.float32, np.bool_)
    places = outlines.dtype == frames.dtype == np.float32 and np.isfinite(frames).all()
    finite = places and np.isfinite(parts).all() and np.isfinite(outlines).all()
    if not (parts.ndim == 3 and sizes and kinds and finite):
        raise ValueError(f"the maps of sample {token} are none")
    return Shown(index, token, scene, description, moment, parts, truth, outlines, frames, images)


def _jpeg(data: NDArray[Any]) -> bytes:
    """A picture's bytes, once they have been read as one.

    Raises:
        OSError, ValueError, SyntaxError: they are none.
    """
    with Image.open(io.BytesIO(data.tobytes()), formats=["JPEG"]) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a picture of {image.width} x {image.height} pixels")
        image.load()
    return data.tobytes()


def _rows(path: Path, expected: Sequence[str]) -> list[Sequence[Any]]:
    """Rows of plain values; ``None`` for an empty number.

    Raises:
        ValueError, csv.Error: other columns than expected, a torn row, or no number.
    """
    with io.StringIO(read_own(path).decode(), newline="") as file:
        header, *rows = csv.reader(file)
    if header != [format_value(name) for name in expected]:
        raise ValueError(f"{path.name} has other columns than {', '.join(expected)}")
    return [tuple(_value(*pair) for pair in zip(expected, row, strict=True)) for row in rows]


def _value(column: str, text: str) -> Any:
    if column in TEXTS:
        return read_text(text)
    if not text:
        return None
    number = int(text) if text.isdigit() and len(text) < 16 else float(text)
    if not math.isfinite(number):
        raise ValueError(f"{column} is {text}")
    return number
