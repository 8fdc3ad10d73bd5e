"""What a detection network predicts: boxes with scores and class names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

#: What the columns of :attr:`Detections.boxes` hold.
BOX_COLUMNS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes of one sample, in the ego frame (x forward, y left, z up).

    Attributes:
        boxes: (n, 9), see :data:`BOX_COLUMNS`: centre and size in metres, heading in radians from
            x towards y, velocity over ground in m/s.
        scores: (n,), higher is surer.
        names: the class of each box, n of them.
    """

    boxes: Tensor
    scores: Tensor
    names: tuple[str, ...]
