"""One colour for each part, the same in figures, on the page and in its tables.

After Okabe and Ito: told apart by colour-blind readers, at least 3:1 against the paper. On grey
paper order, labels and hatches tell what colours cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmd_cli.decomposition.layout import BIAS, INTERACTION

#: Places in :data:`LIGHT` and :data:`DARK`.
FIXED = {"camera": 0, "radar": 1, "lidar": 2, BIAS: 3, INTERACTION: 4}
SENSORS, MORE = ("camera", "radar", "lidar"), (5, 6, 7, 8)
LIGHT = (
    *("#0072b2", "#d55e00", "#008a64", "#8a5a86", "#767676"),
    *("#a67c00", "#3f8fc8", "#7b1e3a", "#5b6b1f"),
)
DARK = (
    *("#4aa8e0", "#f08a3c", "#35c497", "#bd8bb8", "#9a9a9a"),
    *("#dcb53a", "#8fd0f7", "#e38aa4", "#b3c46a"),
)
#: Of what is no part: methods and variants side by side, from dark to light, and the prediction.
SHADES = ("#1f2a36", "#5c7389", "#8296a8", "#3d3d3d", "#767676", "#949494")
DARK_SHADES = ("#e4e8ec", "#9db2c4", "#738799", "#cfcfcf", "#9a9a9a", "#7d7d7d")
PREDICTION = "#303030"


def slot(name: str, names: Sequence[str]) -> int:
    """A part's colour, by its place in :data:`LIGHT`.

    Modalities of other names take the colours of the usual sensors that are not there, in the
    order of ``names``, and then others.

    Args:
        names: of all the parts.
    """
    if name in FIXED:
        return FIXED[name]
    free = [*(FIXED[sensor] for sensor in SENSORS if sensor not in names), *MORE]
    others = [other for other in names if other not in FIXED]
    return free[others.index(name) % len(free)]


def colour(name: str, names: Sequence[str]) -> str:
    """A part's colour on white paper; of what is no part the prediction's."""
    return LIGHT[slot(name, names)] if name in names else PREDICTION


def shade(number: int) -> int:
    """The place of the n-th method's or variant's shade, behind those of :data:`LIGHT`."""
    return len(LIGHT) + number % len(SHADES)


def stylesheet() -> str:
    """The page's custom properties ``--s0``, ... and classes ``.s0``, ... that fill with them."""
    light, dark = (_properties(colours) for colours in (LIGHT + SHADES, DARK + DARK_SHADES))
    fills = " ".join(f".s{n} {{ fill: var(--s{n}); }}" for n in range(len(LIGHT) + len(SHADES)))
    dim = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    return f":root {{ {light} }}\n{dim}\n{fills}\n"


def _properties(colours: Sequence[str]) -> str:
    return " ".join(f"--s{number}: {colour};" for number, colour in enumerate(colours))
