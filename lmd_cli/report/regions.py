"""Which cells are explained: a rectangle in metres, or an annotated vehicle."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np

from lmd_cli.data.truth import Box3D
from lmd_cli.errors import ConfigError
from lmd_cli.report.plane import Array, Plane
from lmd_cli.report.vehicles import outline


def rectangle(text: str, plane: Plane) -> Array:
    """Corners (4, 2) of ``x0,y0,x1,y1``: metres to the right and forward.

    Raises:
        ConfigError: not four numbers, or not inside the map; says its bounds.
    """
    bounds = (
        f"x (right) from {plane.left:g} to {plane.right:g}, "
        f"y (forward) from {plane.back:g} to {plane.front:g} m"
    )
    try:
        x0, y0, x1, y1 = (float(piece) for piece in text.split(","))
    except ValueError:
        raise ConfigError(f"--region {text!r}: expected x0,y0,x1,y1 with {bounds}") from None
    inside = plane.left <= x0 < x1 <= plane.right and plane.back <= y0 < y1 <= plane.front
    if not inside:
        raise ConfigError(f"--region {text!r} is not inside the grid: {bounds}, x0 < x1, y0 < y1")
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def vehicle(token: str, boxes: Sequence[Box3D], plane: Plane) -> Array:
    """Outline (4, 2) of an annotated vehicle.

    Raises:
        ConfigError: the sample has no such vehicle (names near ones), or it is outside the map.
    """
    for box in boxes:
        if box.token == token:
            found = outline(box)
            if not plane.mask(found).any():
                raise ConfigError(f"object {token} lies outside the grid")
            return found
    known = [box.token for box in boxes]
    near = get_close_matches(token, known, n=3, cutoff=0.7)
    hint = f"near: {', '.join(near)}" if near else f"its vehicles: {', '.join(known) or 'none'}"
    raise ConfigError(f"object {token} is not a vehicle of this sample; {hint}")
