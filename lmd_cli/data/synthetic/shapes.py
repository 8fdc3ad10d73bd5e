"""The shapes of the actors: faces of boxes in normalised coordinates, with paints.

A face is four corners ``(x, y, z)`` in units of the actor's (length, width, height), x forward and
y left from the centre, z up from the ground; its normal; and a paint by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmd_cli.data.synthetic.actors import Actor
from lmd_cli.data.synthetic.world import Array

#: Paint -> colour (blue, green, red), or None for the actor's own.
PAINTS: dict[str, tuple[float, float, float] | None] = {
    "body": None,
    "glass": (70.0, 52.0, 40.0),
    "tyre": (22.0, 22.0, 22.0),
    "head": (235.0, 250.0, 250.0),
    "tail": (25.0, 25.0, 215.0),
}
#: Paints that shine by themselves: the dark does not dim them as much.
LAMPS = ("head", "tail")


@dataclass(frozen=True)
class Shape:
    """Faces in the order in which they are painted: (n, 4, 3) corners, (n, 3) normals, paints."""

    corners: Array
    normals: Array
    paints: tuple[str, ...]


_Face = tuple[list[tuple[float, float, float]], tuple[float, float, float], str]


def _end(x: float, y0: float, y1: float, z0: float, z1: float, paint: str) -> _Face:
    """A rectangle across the front (x > 0) or the back (x < 0)."""
    corners = [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)]
    return corners, (1.0 if x > 0 else -1.0, 0.0, 0.0), paint


def _side(y: float, x0: float, x1: float, z0: float, z1: float, paint: str) -> _Face:
    """A rectangle along the left (y > 0) or the right (y < 0)."""
    corners = [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]
    return corners, (0.0, 1.0 if y > 0 else -1.0, 0.0), paint


def _box(x: tuple[float, float], y: float, z: tuple[float, float], paint: str) -> list[_Face]:
    top = [(x[0], -y, z[1]), (x[1], -y, z[1]), (x[1], y, z[1]), (x[0], y, z[1])]
    return [
        (top, (0.0, 0.0, 1.0), paint),
        _side(y, x[0], x[1], *z, paint),
        _side(-y, x[0], x[1], *z, paint),
        _end(x[1], -y, y, *z, paint),
        _end(x[0], -y, y, *z, paint),
    ]


def _running_gear(radius: float) -> list[_Face]:
    faces = []
    for y in (0.5, -0.5):
        faces += [
            _side(y, x - radius, x + radius, 0.0, 0.3 if radius > 0.06 else 0.2, "tyre")
            for x in (-0.32, 0.32)
        ]
    for y0, y1 in ((-0.47, -0.25), (0.25, 0.47)):
        faces += [_end(0.5, y0, y1, 0.3, 0.42, "head"), _end(-0.5, y0, y1, 0.3, 0.42, "tail")]
    return faces


def _car() -> list[_Face]:
    faces = _box((-0.5, 0.5), 0.5, (0.1, 0.58), "body") + _running_gear(0.08)
    faces += _box((-0.42, 0.2), 0.46, (0.58, 1.0), "body")
    faces += [_side(y, -0.38, 0.16, 0.62, 0.93, "glass") for y in (0.46, -0.46)]
    return faces + [_end(x, -0.42, 0.42, 0.62, 0.94, "glass") for x in (0.2, -0.42)]


def _truck() -> list[_Face]:
    faces = _box((-0.5, 0.5), 0.5, (0.12, 1.0), "body") + _running_gear(0.055)
    faces += [_side(y, 0.34, 0.46, 0.55, 0.85, "glass") for y in (0.5, -0.5)]
    return [*faces, _end(0.5, -0.45, 0.45, 0.5, 0.88, "glass")]


def _bus() -> list[_Face]:
    faces = _box((-0.5, 0.5), 0.5, (0.1, 1.0), "body") + _running_gear(0.045)
    faces += [_side(y, -0.46, 0.46, 0.5, 0.82, "glass") for y in (0.5, -0.5)]
    return faces + [_end(x, -0.45, 0.45, 0.45, 0.88, "glass") for x in (0.5, -0.5)]


def _motorcycle() -> list[_Face]:
    faces = _box((-0.5, 0.5), 0.22, (0.0, 0.55), "tyre")
    faces += _box((-0.35, 0.25), 0.3, (0.3, 0.62), "body")
    faces += _box((-0.2, 0.1), 0.5, (0.55, 1.0), "body")
    return [*faces, _end(-0.35, -0.2, 0.2, 0.45, 0.58, "tail")]


def _shape(faces: list[_Face]) -> Shape:
    return Shape(
        np.array([face[0] for face in faces], dtype=np.float64),
        np.array([face[1] for face in faces], dtype=np.float64),
        tuple(face[2] for face in faces),
    )


_SHAPES = {
    "vehicle.car": _shape(_car()),
    "vehicle.truck": _shape(_truck()),
    "vehicle.bus.rigid": _shape(_bus()),
    "vehicle.motorcycle": _shape(_motorcycle()),
}
_PLAIN = _shape(_box((-0.5, 0.5), 0.5, (0.0, 1.0), "body"))
_FLAT = Shape(
    np.array([[(-0.5, -0.5, 0.0), (0.5, -0.5, 0.0), (0.5, 0.5, 0.0), (-0.5, 0.5, 0.0)]]),
    np.array([[0.0, 0.0, 1.0]]),
    ("tyre",),
)


def shape_of(actor: Actor) -> Shape:
    """The shape of an actor; boxes, poles and pedestrians are plain boxes, shadows are flat."""
    if actor.kind == "shadow":
        return _FLAT
    return _SHAPES.get(actor.category, _PLAIN)


def faces_in_world(actor: Actor, shape: Shape) -> Array:
    """The corners (n, 4, 3) in metres, in the actor's own axes on the ground."""
    w, length, h = actor.size
    return shape.corners * np.array([length, w, h])
