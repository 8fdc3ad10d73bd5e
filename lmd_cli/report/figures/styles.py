"""The three ways in which the paper's figures turn logits into colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from numpy.typing import NDArray

Map = NDArray[np.floating]
#: Figure 2, figure 3 and figure 4 of the paper.
Style = Literal["positive", "sigmoid", "signed"]
STYLES: tuple[Style, ...] = get_args(Style)

#: Colours from white, one for each part (Okabe and Ito's, safe for colour-blind readers).
COLOURS = {
    "prediction": "#303030",
    "camera": "#0072b2",
    "radar": "#d55e00",
    "lidar": "#00714f",
    "bias": "#7a4a77",
}
OTHER = "#404040"
#: Parts that are written otherwise than in a config.
TITLES = {"prediction": "fused prediction", "lidar": "LiDAR"}
#: The signed scale's end: this share of all cells of all maps lies within it.
QUANTILE = 0.999


@dataclass(frozen=True)
class MapStyle:
    """How maps are shown.

    Attributes:
        style: which of the three.
        statement: a sentence for the caption.
        values: from logits to what is coloured, and a note for the panel's title.
        colours: the colour map of a part.
        low, high: ends of the colour scale, shared by all panels.
        unit: of the colour bar; none where each panel has its own scale.
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


def make_map_style(style: Style, maps: Iterable[Map]) -> MapStyle:
    """A style whose scale is shared by all the maps of a figure."""
    if style == "positive":
        statement = (
            "Each map shows its positive values, divided by its own maximum (in brackets, logits)."
        )
        return MapStyle(style, statement, _positive, from_white, 0.0, 1.0, "", "#8a8a8a")
    if style == "sigmoid":
        statement = (
            "Each map shows the sigmoid of its logits; 0.5 is no evidence. One scale for all."
        )
        colours = matplotlib.colormaps["cividis"]
        return MapStyle(
            style, statement, _sigmoid, lambda _: colours, 0.0, 1.0, "sigmoid", "#ffffff"
        )
    limit = signed_limit(maps)
    statement = (
        "Teal: logits for a vehicle; brown: against. One scale for all maps; "
        f"{1 - QUANTILE:.1%} of the cells lie beyond its ends."
    )
    colours = matplotlib.colormaps["BrBG"]
    return MapStyle(
        style, statement, lambda v: (v, ""), lambda _: colours, -limit, limit, "logit", "#303030"
    )


def signed_limit(maps: Iterable[Map]) -> float:
    """End of a symmetric scale that :data:`QUANTILE` of all cells lie within."""
    values = np.concatenate([np.abs(m).ravel() for m in maps])
    return float(np.quantile(values, QUANTILE)) or 1.0


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


def from_white(part: str) -> Colormap:
    """White for 0, the part's colour for 0.6, and darker for 1, so that peaks stand out."""
    colour = to_rgb(COLOURS.get(part, OTHER))
    dark = tuple(0.45 * channel for channel in colour)
    stops = [(0.0, to_rgb("white")), (0.6, colour), (1.0, dark)]
    return LinearSegmentedColormap.from_list("part", stops)
