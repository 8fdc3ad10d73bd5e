"""The ways in which figures turn logits into colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from numpy.typing import NDArray

from lmd_cli.decomposition.layout import BIAS
from lmd_cli.report.palette import PREDICTION, colour
from lmd_cli.report.words import bias_warning

Map = NDArray[np.floating]
#: Figures 4, 2 and 3 of the paper; the first is the default.
Style = Literal["signed", "positive", "sigmoid"]
STYLES: tuple[Style, ...] = get_args(Style)

#: Parts that are written otherwise than in a config.
TITLES = {"prediction": "fused prediction", "lidar": "LiDAR"}
#: The signed scale's end: this share of all cells of all maps lies within it.
QUANTILE = 0.999
#: Unit of a map that is divided by its own maximum.
SHARE = "share of the map's own maximum"
#: From against, over nothing, to for. What speaks for a vehicle is darker than anything against
#: it, so that the two differ on grey paper too.
SIGNED = LinearSegmentedColormap.from_list(
    "signed",
    [(0.0, "#c9893a"), (0.35, "#ecd3a8"), (0.5, "#ffffff"), (0.65, "#7fc4b8"), (1.0, "#00332e")],
)


@dataclass(frozen=True)
class MapStyle:
    """How maps are shown.

    Attributes:
        style: which of the three.
        statement: a sentence for the caption.
        values: from logits to what is coloured, and a note for the panel's title.
        colours: the colour map of a part.
        low, high: ends of the colour scale, shared by all panels.
        unit: of the colour bar.
        outline: colour of the vehicles' outlines.
    """

    style: Style
    statement: str
    values: Callable[[Map], tuple[Map, str]]
    colours: Callable[[str], Colormap]
    low: float
    high: float
    unit: str
    outline: str


def part_title(name: str) -> str:
    """A part as it is written in a figure."""
    return TITLES.get(name, name)


def make_map_style(
    style: Style, maps: Iterable[Map], names: Sequence[str] = (), unit: str = "logit"
) -> MapStyle:
    """A style whose scale is shared by all the maps of a figure.

    Args:
        maps: the prediction and its parts.
        names: of the parts, which decide their colours.
        unit: of the output.
    """
    if style == "positive":
        statement = f"Each map shows its positive values, divided by its own maximum ({unit})."
        shades = lambda name: from_white(colour(name, names))  # noqa: E731
        return MapStyle(style, statement, _positive, shades, 0.0, 1.0, SHARE, "#8a8a8a")
    if style == "sigmoid":
        statement = "Each map shows the sigmoid of its values; 0.5 is no evidence. One scale."
        cividis = matplotlib.colormaps["cividis"]
        return MapStyle(
            style, statement, _sigmoid, lambda _: cividis, 0.0, 1.0, "sigmoid", "#ffffff"
        )
    limit = signed_limit(maps)
    statement = f"One scale for the prediction and its parts; {1 - QUANTILE:.1%} lie beyond it."
    return MapStyle(
        style, statement, lambda v: (v, ""), lambda _: SIGNED, -limit, limit, unit, "#303030"
    )


def signed_limit(maps: Iterable[Map]) -> float:
    """End of a symmetric scale that :data:`QUANTILE` of all cells lie within."""
    values = np.concatenate([np.abs(m).ravel() for m in maps])
    return float(np.quantile(values, QUANTILE)) or 1.0


def bias_lines(samples: Iterable[Mapping[str, Map]]) -> list[str]:
    """A line of the caption where the bias is large in a figure; of each sample its parts."""
    norms = [{n: float(np.linalg.norm(values)) for n, values in each.items()} for each in samples]
    return bias_warning([each.get(BIAS, 0.0) / (sum(each.values()) or 1.0) for each in norms])


def positive_normalised(values: Map) -> tuple[Map, float]:
    """Negative values cut to zero, then divided by the maximum; and that maximum.

    A map without positive values stays zero.
    """
    positive = np.clip(values, 0.0, None)
    top = float(positive.max(initial=0.0))
    return (positive / top if top > 0 else positive), top


def _positive(values: Map) -> tuple[Map, str]:
    shown, top = positive_normalised(values)
    return shown, f" (max {top:.3g})" if top > 0 else " (no positive value)"


def _sigmoid(values: Map) -> tuple[Map, str]:
    return 1.0 / (1.0 + np.exp(-np.asarray(values, dtype=np.float64))), ""


def from_white(hue: str = PREDICTION) -> Colormap:
    """White for 0, the colour for 0.6, and darker for 1, so that peaks stand out."""
    middle = to_rgb(hue)
    dark = tuple(0.45 * channel for channel in middle)
    return LinearSegmentedColormap.from_list(
        "part", [(0.0, to_rgb("white")), (0.6, middle), (1.0, dark)]
    )
