"""Which detections lie outside the map, or are of classes that a network does not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lmd_cli.evaluation.detections.counts import Row
from lmd_cli.evaluation.ground.plane import Plane

#: Boxes whose numbers are said.
NAMED = 5


def left_out_notes(
    rows: Sequence[Row], classes: Sequence[str] | None, plane: Plane | None
) -> list[str]:
    """Lines for a reader.

    Args:
        rows: of ``detections.csv``.
        classes: the network's, if they are known.
        plane: where its maps lie, if that is known.
    """
    nowhere = [row for row in rows if row["kind"] == "annotation" and not row["output"]]
    known = set(classes or ())
    foreign = Counter(
        row["class"] or row["category"]
        for row in nowhere
        if classes is not None and row["class"] not in known
    )
    notes = []
    if foreign:
        names = ", ".join(f"{name} {count}" for name, count in sorted(foreign.items()))
        notes.append(
            f"{foreign.total()} annotations are of classes that the network does not have "
            f"({names}): they do not count."
        )
    if outside := len(nowhere) - foreign.total():
        notes.append(f"{outside} annotations are outside the map: no parts of them.")
    boxes = [str(row["detection"]) for row in rows if plane is not None and _outside(row, plane)]
    if boxes:
        more = " and more" if len(boxes) > NAMED else ""
        which = ", ".join(boxes[:NAMED]) + more
        notes.append(f"{len(boxes)} boxes are centred outside the map: detections {which}.")
    return notes


def _outside(row: Row, plane: Plane) -> bool:
    """Whether a predicted box (x forward, y left) is centred outside."""
    inside = plane.back <= row["x"] <= plane.front and plane.left <= -row["y"] <= plane.right
    return row["kind"] == "box" and not inside
