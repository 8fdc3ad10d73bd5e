"""The folder of ``lmd detect``, read again for a page."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lmd_cli.errors import ResultsError
from lmd_cli.evaluation.detections.counts import COUNT_FIELDS
from lmd_cli.results.detection_rows import Row, read_detections
from lmd_cli.results.run_folder import read_record
from lmd_cli.runtime.files import read_own, read_text

ROWS, COUNTS, EXAMPLES = "detections.csv", "detection_counts.csv", "detection_examples.json"
MOST_PIXELS = 2**24


def _picture(text: str) -> str:
    """Base64 of a JPEG or PNG."""
    data = base64.b64decode(text, validate=True)
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a picture of {image.width} x {image.height} pixels")
    return text


Picture = Annotated[str, AfterValidator(_picture)]
Point = tuple[float, float]
_STRICT = ConfigDict(allow_inf_nan=False, extra="forbid")


class Outline(BaseModel):
    """A box: its outcome, whether it is an annotation, and its lines.

    ``lines`` are pairs of points, in pixels (right, down) or metres (right, forward).
    """

    model_config = _STRICT
    outcome: str
    kind: str
    shown: bool
    lines: list[tuple[Point, Point]]


class Example(BaseModel):
    """A detection to be looked at.

    Attributes:
        detection: its number in ``detections.csv``.
        camera, image, size: the camera that shows it best, its JPEG, width and height in pixels;
            empty where none does.
        map: a PNG of the output around it, forward up; ``extent``: left, right, back, front in
            metres.
        centre: of the box, metres right and forward.
    """

    model_config = _STRICT
    detection: int = Field(ge=0)
    camera: str
    image: Picture | None
    size: tuple[int, int]
    in_image: list[Outline]
    map: Picture
    extent: tuple[float, float, float, float]
    on_map: list[Outline]
    centre: Point


@dataclass(frozen=True)
class DetectionRun:
    """What ``lmd detect`` wrote.

    Attributes:
        record: ``run.json``.
        rows: of ``detections.csv``.
        counts: of ``detection_counts.csv``, by column.
        examples: pictures of some.
        method: whose parts are counted.
    """

    record: dict[str, Any]
    rows: Sequence[Row]
    counts: Sequence[Row]
    examples: Sequence[Example]
    method: str


def read_detection_run(folder: Path) -> DetectionRun | None:
    """The results in a folder; ``None`` where there are none, or nothing was counted.

    Raises:
        ResultsError: a file is damaged.
    """
    if not (folder / COUNTS).is_file() or not (folder / EXAMPLES).is_file():
        return None
    record = read_record(folder)
    if record is None or record.get("status") != "finished":
        return None
    try:
        listed = json.loads(read_own(folder / EXAMPLES))
        examples = TypeAdapter(list[Example]).validate_python(listed)
        with io.StringIO(read_own(folder / COUNTS).decode(), newline="") as file:
            counts = [_count(row) for row in csv.DictReader(file)]
        method = str(record["rows"][1])
    except (ValidationError, ValueError, KeyError, TypeError, IndexError, OSError) as error:
        said = str(error).splitlines()[0]
        raise ResultsError(
            f"{folder} is damaged ({said}); run the same lmd detect again, which writes it anew"
        ) from None
    return DetectionRun(record, read_detections(folder / ROWS), counts, examples, method)


def _count(row: dict[str, str]) -> Row:
    texts, integers = COUNT_FIELDS[:4], COUNT_FIELDS[4:6]
    return {
        name: read_text(row[name])
        if name in texts
        else (int if name in integers else float)(row[name])
        for name in COUNT_FIELDS
    }
