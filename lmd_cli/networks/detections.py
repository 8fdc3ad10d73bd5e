"""What a detection network predicts: boxes with scores and class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

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


class Cells(Sequence[Place]):
    """Places of one cell each, made when they are asked for: a sample has a thousand.

    Args:
        outputs: name of each one's output.
        cells: (n, 3) channel, row, column.
    """

    def __init__(self, outputs: Sequence[str], cells: NDArray[np.int64]):
        self._outputs, self._cells = outputs, cells

    @classmethod
    def joined(cls, several: Sequence[Cells]) -> Cells:
        """One behind the other."""
        names = [name for one in several for name in one._outputs]
        return cls(names, np.concatenate([one._cells for one in several]))

    def __len__(self) -> int:
        return len(self._outputs)

    @overload
    def __getitem__(self, index: int) -> Place: ...

    @overload
    def __getitem__(self, index: slice) -> list[Place]: ...

    def __getitem__(self, index: int | slice) -> Place | list[Place]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Place.cell(self._outputs[index], *self._cells[index].tolist())


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
    places: Sequence[Place] | None = None
