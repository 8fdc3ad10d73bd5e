"""What a detection network predicts: boxes with scores and class names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

#: What the columns of :attr:`Detections.boxes` hold.
BOX_COLUMNS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")


@dataclass(frozen=True, eq=False)
class Place:
    """Where in a network's outputs a detection is decided.

    Attributes:
        output: name of the output, (1, channels, rows, columns).
        channel: of the output.
        rows, columns: its cells, (k,) each.
    """

    output: str
    channel: int
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @classmethod
    def cell(cls, output: str, channel: int, row: int, column: int) -> Place:
        """A single cell."""
        return cls(output, channel, np.array([row]), np.array([column]))


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of one sample, in the ego frame (x forward, y left, z up).

    Attributes:
        boxes: (n, 9), see :data:`BOX_COLUMNS`: centre and size in metres, heading in radians from
            x towards y, velocity over ground in m/s.
        scores: (n,), higher is surer.
        names: the class of each box, n of them.
        places: for each box where it is decided; none if the network does not say.
    """

    boxes: Tensor
    scores: Tensor
    names: tuple[str, ...]
    places: tuple[Place, ...] | None = None
