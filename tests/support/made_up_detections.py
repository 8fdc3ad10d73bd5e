"""Results of ``lmd detect`` with numbers of our own, for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from lmd_cli.evaluation.detections.counts import COUNT_FIELDS, count_rows, counts
from lmd_cli.results.detection_run import DetectionRun, Example, Outline

METHOD = "identity-ratio"
SIZE = (200, 100)
#: Outcome, score, decisive sensor and the one that speaks against it, metres away.
BOXES = (
    *(("hit", 0.9, "camera", "radar", 12.0), ("hit", 0.8, "radar", "camera", 22.0)),
    *(("false alarm", 0.7, "any of several", "radar", 33.0),),
    *(("miss", None, "", "radar", 44.0), ("miss", None, "", "camera", 52.0)),
)


def picture(kind: str) -> str:
    """A grey image, base64."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIZE[1], SIZE[0], 3), 128, dtype=np.uint8)).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def _row(number: int, text: str, kind: str, match: int | None) -> dict[str, Any]:
    outcome, score, decisive, against, distance = BOXES[number % len(BOXES)]
    return {
        "detection": number,
        "sample": f"t0{text}",
        "scene": f"scene{text}",
        "rain": 0,
        "night": 1,
        "kind": kind,
        "class": f"car{text}",
        "score": score if kind == "box" else None,
        "outcome": outcome,
        "distance": distance,
        "visibility": 2,
        "instance": f"i{number}",
        "match": match,
        f"{METHOD}.camera": 1.5,
        f"{METHOD}.radar": -0.5,
        f"{METHOD}.bias": -2.0,
        f"{METHOD}.decisive": decisive,
        f"{METHOD}.against": against,
    }


def rows(text: str = "") -> list[dict[str, Any]]:
    """Two hits, a false alarm and two misses."""
    boxes = [_row(i, text, "box", i + 5 if i < 2 else None) for i in range(3)]
    misses = [_row(i, text, "annotation", None) for i in (3, 4)]
    hits = [_row(i, text, "annotation", i - 5) for i in (5, 6)]
    return [*boxes, *misses, *hits]


def example(number: int, text: str = "", *, seen: bool = True) -> Example:
    """A detection's picture: a box that leaves the image to the right; or none in any camera."""
    corners = [(150.0, 40.0), (230.0, 40.0), (230.0, 60.0), (150.0, 60.0)]
    box = _outline(corners)
    return Example(
        detection=number,
        camera=f"CAM{text}" if seen else "",
        image=picture("JPEG") if seen else None,
        size=SIZE if seen else (0, 0),
        in_image=[box] if seen else [],
        map=picture("PNG"),
        extent=(-50.0, 50.0, -50.0, 50.0),
        on_map=[_outline([(-1.0, 9.0), (1.0, 9.0), (1.0, 13.0), (-1.0, 13.0)])],
        centre=(0.0, 11.0),
    )


def _outline(corners: Sequence[tuple[float, float]]) -> Outline:
    lines = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    return Outline(outcome="hit", kind="box", shown=True, lines=lines)


def detections(text: str = "") -> DetectionRun:
    """What ``lmd detect`` wrote; ``text`` in every string."""
    every = rows(text)
    made = count_rows(counts(every, METHOD, seed=0, resamples=10))[1:]
    examples = [example(number, text, seen=number != 4) for number in (2, 3, 4, 5, 6)]
    table = [dict(zip(COUNT_FIELDS, row, strict=True)) for row in made]
    return DetectionRun({"detected": 1}, every, table, examples, METHOD)
