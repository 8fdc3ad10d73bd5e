"""Charts: where the bars end, which colours they take, and that texts are escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from lmd_cli.report.page.svg_charts import (
    BOTTOM,
    HEIGHT,
    TOP,
    Bar,
    Group,
    bars,
    layer_chart,
    nice_ticks,
    slot,
)
from tests.support import made_up


def rectangles(svg: str) -> list[tuple[float, float]]:
    """(y, height) of each."""
    root = ElementTree.fromstring(svg)
    return [(float(e.get("y", 0)), float(e.get("height", 0))) for e in root.iter("rect")]


def test_bars_are_as_high_as_their_values():
    groups = [Group("a", [Bar(1.0, "one"), Bar(-0.5, "minus")]), Group("b", [Bar(None, "")] * 2)]
    (above, tall), (below, short) = rectangles(bars(groups, ["camera", "radar"], "chart"))
    ticks = nice_ticks(-0.5, 1.0)
    unit = (HEIGHT - TOP - BOTTOM) / (ticks[-1] - ticks[0])
    assert tall == pytest.approx(unit, abs=0.1)
    assert short == pytest.approx(unit / 2, abs=0.1)
    assert above + tall == pytest.approx(below, abs=0.11)  # they meet at zero


def test_many_groups_make_a_wider_chart():
    """Each has room for its words, in 11.5 pixels."""
    groups = [Group(f"C_pR_p/{i}", [Bar(1.0, "")], "should change") for i in range(9)]
    root = ElementTree.fromstring(bars(groups, ["x"], "chart"))
    places = [float(e.get("x", 0)) for e in root.iter("text") if e.text == "should change"]
    assert min(np.diff(places)) > len("should change") * 11.5 * 0.55
    assert max(places) < float(root.get("viewBox", "").split()[2])


def test_a_sensor_has_its_colour_everywhere():
    assert slot("radar", ["radar", "bias"]) == slot("radar", ["camera", "radar", "lidar", "bias"])
    names = ["ct", "camera", "mri", "bias"]
    assert len({slot(name, names) for name in names}) == 4


def test_texts_stay_texts():
    group = Group(made_up.HOSTILE, [Bar(1.0, made_up.HOSTILE)], made_up.HOSTILE)
    svg = bars([group], ["camera"], made_up.HOSTILE)
    root = ElementTree.fromstring(svg)
    assert {e.tag for e in root.iter()} <= {"svg", "g", "rect", "path", "text"}
    mark = next(e for e in root.iter() if e.get("data-tip"))
    assert mark.get("data-tip") == made_up.HOSTILE
    chart = layer_chart([(0, made_up.HOSTILE, made_up.HOSTILE, 1.0)], ["camera"])
    assert {e.tag for e in ElementTree.fromstring(chart).iter()} <= {
        "svg",
        "g",
        "rect",
        "path",
        "text",
    }


def test_the_layer_chart_stacks_to_the_whole():
    layers = [(0, "", "torch.cat", 0.25, 0.75), (1, "a.b.0", "torch.conv", 0.5, 0.5)]
    svg = layer_chart(layers, ["camera", "bias"])
    heights = [height for _, height in rectangles(svg)]
    assert heights[0] + heights[1] == pytest.approx(heights[2] + heights[3], abs=0.02)
    assert heights[1] == pytest.approx(3 * heights[0], abs=0.02)
    assert re.search(r"2\. a\.b\.0: conv; camera 50\.0%, bias 50\.0%", svg)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.1, 1.0, [-0.5, 0.0, 0.5, 1.0]),
        (0.0, 37.0, [0.0, 10.0, 20.0, 30.0, 40.0]),
        (0.0, 0.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 4e-7, [0.0, 1e-7, 2e-7, 3e-7, 4e-7]),
    ],
)
def test_ticks_are_round_and_span_the_values(low: float, high: float, expected: list[float]):
    assert nice_ticks(low, high) == pytest.approx(expected)
