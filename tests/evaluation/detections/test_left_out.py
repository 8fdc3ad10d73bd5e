"""What is said of detections outside the map and of classes that a network does not have."""

from __future__ import annotations

from typing import Any

from lmd_cli.evaluation.detections.left_out import left_out_notes
from lmd_cli.evaluation.ground.plane import Plane

PLANE = Plane(20, 20, -10.0, 10.0, -10.0, 10.0)


def row(number: int, kind: str, name: str, x: float = 0, y: float = 0, output: str = "") -> Any:
    place = {"x": x, "y": y, "output": output}
    return {"detection": number, "kind": kind, "class": name, "category": "animal", **place}


def test_what_is_left_out_is_named():
    rows = [
        row(0, "box", "car", 9.9, -9.9, "heatmap"),
        row(1, "box", "car", 10.5, 0, "heatmap"),
        row(2, "box", "car", 0, -10.5, "heatmap"),
        row(3, "annotation", "car", 30, 0),
        row(4, "annotation", "car", 3, 0, "heatmap"),
        row(5, "annotation", "barrier"),
        row(6, "annotation", "barrier", 30, 0),
        row(7, "annotation", ""),
    ]
    assert left_out_notes(rows, ("car",), PLANE) == [
        "3 annotations are of classes that the network does not have (animal 1, barrier 2): they "
        "do not count.",
        "1 annotations are outside the map: no parts of them.",
        "2 boxes are centred outside the map: detections 1, 2.",
    ]
    assert left_out_notes(rows, None, None) == [
        "4 annotations are outside the map: no parts of them."
    ]
    assert left_out_notes([rows[0], rows[4]], ("car",), PLANE) == []
    many = [row(i, "box", "car", 20, 0, "heatmap") for i in range(7)]
    assert left_out_notes(many, ("car",), PLANE) == [
        "7 boxes are centred outside the map: detections 0, 1, 2, 3, 4 and more."
    ]
