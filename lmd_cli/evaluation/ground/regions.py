"""Which cells are explained: a rectangle in metres or pixels, or an annotated vehicle."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from lmd_cli.data.boxes import Box3D
from lmd_cli.errors import ConfigError
from lmd_cli.evaluation.ground.plane import Array, Plane
from lmd_cli.evaluation.ground.vehicles import outline


def rectangle(text: str, plane: Plane) -> Array:
    """Corners (4, 2) of ``x0,y0,x1,y1``: metres to the right and forward.

    Raises:
        ConfigError: not four numbers, or not inside the map; says its bounds.
    """
    bounds = (
        f"x (right) from {plane.left:g} to {plane.right:g}, "
        f"y (forward) from {plane.back:g} to {plane.front:g} m"
    )
    x0, y0, x1, y1 = _four_numbers(text, bounds)
    inside = plane.left <= x0 < x1 <= plane.right and plane.back <= y0 < y1 <= plane.front
    if not inside:
        raise ConfigError(f"--region {text!r} is not inside the grid: {bounds}, x0 < x1, y0 < y1")
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def pixels(text: str, size: tuple[int, int]) -> tuple[NDArray[np.bool_], Array]:
    """``x0,y0,x1,y1`` of a map that lies nowhere: columns from the left, rows from the top.

    Returns:
        the map's pixels (rows, columns) whose middles are inside, and the corners (4, 2) in pixels,
        measured from the upper left corner of the map.

    Raises:
        ConfigError: not four numbers, not inside the map, or around no pixel's middle.
    """
    rows, columns = size
    bounds = f"x (columns) from 0 to {columns}, y (rows, the first on top) from 0 to {rows} pixels"
    x0, y0, x1, y1 = _four_numbers(text, bounds)
    if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
        raise ConfigError(f"--region {text!r} is not inside the map: {bounds}, x0 < x1, y0 < y1")
    across, down = np.arange(columns) + 0.5, np.arange(rows) + 0.5
    mask = ((y0 <= down) & (down < y1))[:, None] & ((x0 <= across) & (across < x1))
    if not mask.any():
        raise ConfigError(f"--region {text!r} holds the middle of no pixel; make it larger")
    return mask, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _four_numbers(text: str, bounds: str) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = (float(piece) for piece in text.split(","))
    except ValueError:
        raise ConfigError(f"--region {text!r}: expected x0,y0,x1,y1 with {bounds}") from None
    return x0, y0, x1, y1


def vehicle(token: str, boxes: Sequence[Box3D], plane: Plane) -> Array:
    """Outline (4, 2) of an annotated vehicle.

    Raises:
        ConfigError: the sample has no such vehicle (names near ones), or it is outside the map.
    """
    for box in boxes:
        if box.token == token:
            corners = outline(box)
            if not plane.mask(corners).any():
                raise ConfigError(f"object {token} lies outside the grid")
            return corners
    known = [box.token for box in boxes]
    near = get_close_matches(token, known, n=3, cutoff=0.7)
    hint = f"near: {', '.join(near)}" if near else f"its vehicles: {', '.join(known) or 'none'}"
    raise ConfigError(f"object {token} is not a vehicle of this sample; {hint}")
