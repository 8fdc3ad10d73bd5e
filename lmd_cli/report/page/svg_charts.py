"""Charts as SVG: they print, follow the page's colours, and carry a text for each mark.

The marks' texts are shown on hover and with the arrow keys by ``templates/charts.js``; without
JavaScript the charts are still there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from lmd_cli.report.blocks import block_names, drawn_operations, last_name, stretches
from lmd_cli.report.palette import slot

#: From a value to its height on the chart.
Scale = Callable[[float], float]
WIDTH, HEIGHT = 440, 272
#: So many groups share :data:`WIDTH`; each of more takes this much, for the words under it.
FEW, ROOM = 5, 94
LEFT, RIGHT, TOP, BOTTOM = 58, 6, 10, 58
#: A block of the network that is narrower than this has no line before it.
NARROW = 8.0
#: Height of a line, and the letters of a name beside a chart.
ROW, LONGEST = 12.0, 11


@dataclass(frozen=True)
class Bar:
    """One bar, with a whisker if ``low`` and ``high`` are given.

    Attributes:
        value: its height; none for no bar.
        text: its label.
        low, high: ends of the whisker.
    """

    value: float | None
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """Bars side by side over one label, ``note`` in small letters below it; ``count``: of what they
    are made of, where it is known."""

    label: str
    bars: Sequence[Bar]
    note: str = ""
    count: int = 0


def bars(
    groups: Sequence[Group],
    series: Sequence[str],
    label: str,
    *,
    slots: Sequence[int] = (),
    across: str = "",
) -> Markup:
    """Grouped bars.

    Args:
        groups: each with one bar for each of the ``series``.
        series: names, which decide the colours unless ``slots`` does.
        label: of the vertical axis; also, with ``across``, the chart's accessible name.
        across: of the horizontal axis.
    """
    colours = slots or [slot(name, series) for name in series]
    ends = [v for g in groups for b in g.bars for v in (b.value, b.low, b.high) if v is not None]
    ticks = nice_ticks(min([0.0, *ends]), max([0.0, *ends]))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    whole = chart_width(len(groups))
    body = [_axis(ticks, y, whole)]
    pitch = (whole - LEFT - RIGHT) / max(len(groups), 1)
    width = min(0.8 * pitch / max(len(series), 1), 34.0)
    for number, group in enumerate(groups):
        middle = LEFT + (number + 0.5) * pitch
        start = middle - width * len(series) / 2
        for index, bar in enumerate(group.bars):
            if bar.value is not None:
                body.append(_bar(bar, start + index * width, width, y, colours[index]))
        body.append(_label(middle, group))
    body.append(_upright(label, (TOP + HEIGHT - BOTTOM) / 2))
    title = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    body.append(title.format((LEFT + whole) / 2, HEIGHT - 6, across))
    return _svg(whole, HEIGHT, f"{label} by {across}" if across else label, body)


def chart_width(groups: int) -> int:
    """Of :func:`bars`: more than a few groups need more room for what stands under them."""
    return WIDTH if groups <= FEW else LEFT + RIGHT + ROOM * groups


def _bar(bar: Bar, x: float, width: float, y: Scale, slot: int) -> Markup:
    assert bar.value is not None
    top, bottom = sorted((y(bar.value), y(0.0)))
    mark = Markup(
        '<g class="mark s{}" data-tip="{}"><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" '
        'height="{:.1f}"/>'
    ).format(slot, bar.text, x, top, max(width - 1.5, 1.0), max(bottom - top, 0.8))
    if bar.low is not None and bar.high is not None:
        at = x + (width - 1.5) / 2
        mark += Markup('<path class="whisker" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(
            at, y(bar.low), y(bar.high)
        )
    return mark + Markup("</g>")


def _label(x: float, group: Group) -> Markup:
    text = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    first = text.format(x, HEIGHT - BOTTOM + 16, group.label)
    return first + text.format(x, HEIGHT - BOTTOM + 31, group.note) if group.note else first


def _axis(ticks: Sequence[float], y: Scale, whole: int) -> Markup:
    """Horizontal lines with their values; zero is stronger."""
    line = Markup(
        '<path class="{}" d="M{} {:.1f}H{}"/>'
        '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    )
    return Markup("").join(
        line.format(
            "zero" if tick == 0 else "rule",
            *(LEFT, y(tick), whole - RIGHT, LEFT - 5, y(tick) + 4, f"{tick:g}"),
        )
        for tick in ticks
    )


def layer_chart(layers: Sequence[Sequence[object]], parts: Sequence[str]) -> Markup:
    """Stacked shares after each operation, from the fusion to the output.

    Args:
        layers: (order, module, operation), then one share for each part, in order of execution.
        parts: their names.
    """
    width, height, bottom, right = 880, 300, 84, 76
    blocks = block_names([str(module) for _, module, *_ in layers])
    drawn = drawn_operations(blocks)
    pitch = (width - LEFT - right) / max(len(drawn), 1)
    body: list[Markup] = []
    for number, at in enumerate(drawn):
        place = (LEFT + number * pitch, pitch, height - TOP - bottom)
        body.append(_stack(at, layers[at], parts, place))
    body += _stages([blocks[at] for at in drawn], pitch, height - bottom)
    if layers:
        body += _names(layers[-1][3:], parts, width - right, height - TOP - bottom)
    for share in (0.0, 0.5, 1.0):
        at_height = TOP + (1 - share) * (height - TOP - bottom)
        text = Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:.0%}</text>')
        body.append(text.format(LEFT - 5, at_height + 4, share))
    body.append(_upright("share of the norms", (TOP + height - bottom) / 2))
    return _svg(width, height, "Share of the signal after each operation", body)


def _stack(
    at: int, layer: Sequence[object], parts: Sequence[str], place: tuple[float, float, float]
) -> Markup:
    """One operation's shares, the first part on top; ``place``: left end, width, whole height."""
    _, module, operation, *shares = layer
    x, pitch, whole = place
    values = [float(share) for share in shares]  # type: ignore[arg-type]
    listed = ", ".join(f"{p} {v:.1%}" for p, v in zip(parts, values, strict=True))
    tip = f"{at + 1}. {module or 'network'}: {str(operation).rpartition('.')[2]}; {listed}"
    body, top = Markup('<g class="mark" data-tip="{}">').format(tip), float(TOP)
    for part, share in zip(parts, values, strict=True):
        rectangle = Markup(
            '<rect class="s{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>'
        )
        body += rectangle.format(slot(part, parts), x, top, pitch + 0.05, share * whole)
        top += share * whole
    return body + Markup("</g>")


def _names(shares: Sequence[object], parts: Sequence[str], x: float, whole: float) -> list[Markup]:
    """The parts' names beside what they have at the output, where there is room."""
    text = Markup('<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>')
    marks, top = [], float(TOP)
    for part, share in zip(parts, map(float, shares), strict=True):  # type: ignore[arg-type]
        if share * whole > ROW:
            marks.append(text.format(x + 5, top + share * whole / 2 + 4, part[:LONGEST]))
        top += share * whole
    return marks


def _upright(text: str, y: float) -> Markup:
    """The title of the vertical axis."""
    place = Markup('<text class="tick" text-anchor="middle" transform="translate(13 {:.1f}) ')
    return place.format(y) + Markup('rotate(-90)">{}</text>').format(text)


def _stages(names: Sequence[str], pitch: float, floor: float) -> list[Markup]:
    """Names of the network's blocks under their operations, where there is room."""
    marks = []
    for start, end in stretches(names):
        left, right = LEFT + start * pitch, LEFT + end * pitch
        if right - left >= NARROW:
            line = Markup('<path class="stage" d="M{:.1f} {}V{}"/>')
            marks.append(line.format(left, TOP, floor + 6))
        if right - left > 24:
            marks.append(_slanted((left + right) / 2, floor + 16, last_name(names[start])))
    return marks


def _slanted(x: float, y: float, text: str) -> Markup:
    place = Markup('<text class="tick" text-anchor="end" transform="translate({:.1f} {}) ')
    return place.format(x, y) + Markup('rotate(-32)">{}</text>').format(text)


def _svg(width: int, height: int, label: str, body: Sequence[Markup]) -> Markup:
    inside = Markup("").join(body)
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="group" tabindex="0" '
        'aria-label="{}; arrow keys read the values">{}</svg>'
    ).format(width, height, escape(label), inside)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values that span [low, high], about ``count`` of them, zero among them if inside."""
    if not high > low:
        high = low + 1.0
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(step * k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]
