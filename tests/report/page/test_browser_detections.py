"""The page's section on detections in a real browser, as wide as a phone and as a desk."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.browser import WIDTHS, Browser, needs_chromium, run

pytestmark = needs_chromium


@pytest.mark.parametrize("width", WIDTHS)
def test_a_count_leads_to_its_picture(opened: Callable[..., Browser], width: int):
    browser = opened(width=width)
    links = run(browser, "return [...document.querySelectorAll('.counts a')].map((a) => a.hash)")
    assert len(links) > 10
    for link in dict.fromkeys(links):
        shown = run(
            browser,
            "document.querySelector(`.counts a[href='${arguments[0]}']`).click();"
            "const place = document.querySelector(':target').getBoundingClientRect();"
            "return [place.top, place.left, place.right]",
            link,
        )
        assert 0 <= shown[0] < 900
        assert shown[1] >= 0
        assert shown[2] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_pictures_are_alike_and_their_boxes_are_in_them(opened: Callable[..., Browser], width: int):
    browser = opened(width=width)
    heights = run(
        browser,
        "return [...document.querySelectorAll('figure[id^=detection] > svg')]"
        ".map((s) => Math.round(s.getBoundingClientRect().height))",
    )
    assert len(heights) == 5
    assert len(set(heights)) == 1
    drawn = run(
        browser,
        "const svg = document.querySelector('#detection-2 svg svg');"
        "const image = svg.querySelector('image').getBoundingClientRect();"
        "const view = svg.viewBox.baseVal;"
        "return [view.x, view.y, view.width, view.height, svg.width.baseVal.value,"
        " svg.height.baseVal.value]",
    )
    x, y, wide, high, across, down = drawn
    assert x + wide == pytest.approx(200)  # the box leaves the image of 200 x 100 to the right
    assert 0 <= x < 150
    assert y <= 40 <= 60 <= y + high
    assert across / down == pytest.approx(wide / high, rel=1e-3)


def test_the_first_columns_are_seen_on_a_phone(opened: Callable[..., Browser]):
    browser = opened(width=390)
    edges = run(
        browser,
        "return [...document.querySelectorAll('.counts')].map((t) => t.tHead.rows[0].cells)"
        ".map((cells) => cells[Math.min(3, cells.length - 1)].getBoundingClientRect().right)",
    )
    assert edges
    assert max(edges) <= 390
