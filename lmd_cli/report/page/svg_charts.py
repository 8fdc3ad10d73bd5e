"""Charts as SVG: they print, follow the page's colours, and carry a text for each mark.

The marks' texts are shown on hover and with the arrow keys by ``templates/charts.js``; without
JavaScript the charts are still there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

#: From a value to its height on the chart.
Scale = Callable[[float], float]
#: Colour classes of ``templates/style.css``; other names take the remaining ones in order.
SLOTS = {"camera": 0, "radar": 1, "lidar": 2, "bias": 3, "interaction": 4}
SLOT_COUNT = 8
WIDTH, HEIGHT = 440, 250
#: So many groups share :data:`WIDTH`; each of more takes this much, for the words under it.
FEW, ROOM = 5, 94
LEFT, RIGHT, TOP, BOTTOM = 44, 6, 10, 42
#: A block of the network that is narrower than this has no line before it.
NARROW = 8.0


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
    """Bars side by side over one label, ``note`` in small letters below it."""

    label: str
    bars: Sequence[Bar]
    note: str = ""


def slot(name: str, names: Sequence[str]) -> int:
    """Number of a series' colour class, the same for a sensor in every chart."""
    if name in SLOTS:
        return SLOTS[name]
    others = [other for other in names if other not in SLOTS]
    return len(SLOTS) + others.index(name) % (SLOT_COUNT - len(SLOTS))


def bars(
    groups: Sequence[Group], series: Sequence[str], label: str, *, slots: Sequence[int] = ()
) -> Markup:
    """Grouped bars.

    Args:
        groups: each with one bar for each of the ``series``.
        series: names, which decide the colours unless ``slots`` does.
        label: of the vertical axis; also the chart's accessible name.
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
    return _svg(whole, HEIGHT, label, body)


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
    width, height, bottom = 880, 300, 84
    pitch = (width - LEFT - RIGHT) / max(len(layers), 1)
    body: list[Markup] = []
    for number, (_, module, operation, *shares) in enumerate(layers):
        x, top = LEFT + number * pitch, float(TOP)
        values = [float(share) for share in shares]  # type: ignore[arg-type]
        listed = ", ".join(f"{p} {v:.1%}" for p, v in zip(parts, values, strict=True))
        tip = f"{number + 1}. {module or 'network'}: {str(operation).rpartition('.')[2]}; {listed}"
        body.append(Markup('<g class="mark" data-tip="{}">').format(tip))
        for part, share in zip(parts, values, strict=True):
            tall = share * (height - TOP - bottom)
            body.append(
                Markup(
                    '<rect class="s{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>'
                ).format(slot(part, parts), x, top, pitch + 0.05, tall)
            )
            top += tall
        body.append(Markup("</g>"))
    body += _stages(layers, pitch, height - bottom)
    for share in (0.0, 0.5, 1.0):
        at = TOP + (1 - share) * (height - TOP - bottom)
        text = Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:.0%}</text>')
        body.append(text.format(LEFT - 5, at + 4, share))
    return _svg(width, height, "Share of the signal after each operation", body)


def _stages(layers: Sequence[Sequence[object]], pitch: float, floor: float) -> list[Markup]:
    """Names of the network's blocks under their operations, where there is room."""
    names = [stage_of(str(module)) for _, module, *_ in layers]
    marks = []
    start = 0
    for end in range(1, len(names) + 1):
        if end < len(names) and names[end] == names[start]:
            continue
        left, right = LEFT + start * pitch, LEFT + end * pitch
        if right - left >= NARROW:
            line = Markup('<path class="stage" d="M{:.1f} {}V{}"/>')
            marks.append(line.format(left, TOP, floor + 6))
        if right - left > 24:
            marks.append(_slanted((left + right) / 2, floor + 16, names[start].rpartition(".")[2]))
        start = end
    return marks


def _slanted(x: float, y: float, text: str) -> Markup:
    place = Markup('<text class="tick" text-anchor="end" transform="translate({:.1f} {}) ')
    return place.format(x, y) + Markup('rotate(-32)">{}</text>').format(text)


def stage_of(module: str) -> str:
    """The first two components of a module's name that are not numbers."""
    named = [component for component in module.split(".") if not component.isdigit()]
    return ".".join(named[:2])


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
