"""Who reads the page: axe, keyboards, filters of the lists, print and dark mode."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import pytest

from tests.support.browser import (
    WIDTHS,
    Browser,
    element,
    needs_chromium,
    pixels,
    press,
    run,
)

pytestmark = needs_chromium


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_has_no_complaint(opened: Callable[..., Browser], width: int, scheme: str):
    from axe_core_python.selenium import Axe

    browser = opened(width, scheme)
    run(browser, "for (const d of document.querySelectorAll('details')) d.open = true")
    result = Axe().run(browser, options={"resultTypes": ["violations", "passes"]})
    violations = {v["id"]: [node["html"] for node in v["nodes"]] for v in result["violations"]}
    assert violations == {}
    assert len(result["passes"]) > 20


def test_the_list_of_objects_is_filtered(opened: Callable[..., Browser]):
    browser = opened()

    def names() -> list[str]:
        return run(
            browser,
            """return [...document.getElementById('all_objects').tBodies[0].rows]
            .filter((row) => !row.hidden).map((row) => [...row.cells].at(-1).textContent)""",
        )

    def choose(column: str, text: str) -> None:
        run(
            browser,
            """for (const label of document.querySelectorAll('.filters label'))
            if (label.textContent.startsWith(arguments[0])) {
              const select = label.querySelector('select');
              select.value = arguments[1];
              select.dispatchEvent(new Event('input'));
            }""",
            column,
            text,
        )

    assert len(names()) == 4
    choose("the network", "=misses")
    assert [name[:2] for name in names()] == ["v2"]
    choose("the network", "=detects without annotation")
    assert names() == ["detection 1"]
    assert run(browser, "return document.querySelector('.filters output').value") == "1 of 4 rows"
    choose("the network", "")
    press(run(browser, "return document.querySelector('.filters input')"), "V1")
    assert [name[:2] for name in names()] == ["v1"]


def test_an_object_is_marked_on_the_map_and_marks_say_their_question(
    opened: Callable[..., Browser],
):
    browser = opened()
    removal = pixels(browser)
    run(browser, "document.querySelector('input[name=marks][value=parts]').click()")
    parts = pixels(browser)
    run(browser, "document.querySelector('input[name=marks][value=none]').click()")
    assert len({removal, parts, pixels(browser)}) == 3
    run(browser, "document.querySelector('#false button[data-object]').click()")
    assert "5.5 m ahead, 5.5 m to the right" in element(browser, "readout").text
    assert element(browser, "sample").get_attribute("value") == "0"


def test_print_has_every_number_and_no_controls(opened: Callable[..., Browser]):
    browser = opened()
    closed = "return document.querySelectorAll('details:not([open])').length"
    assert run(browser, closed) > 0
    run(browser, "dispatchEvent(new Event('beforeprint'))")
    assert run(browser, closed) == 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = """return [...document.querySelectorAll('input, select, nav, .stepper button')]
        .filter((part) => part.checkVisibility()).length"""
    assert run(browser, shown) == 0
    hidden = """return [...document.querySelectorAll('#measures > *')]
        .filter((measure) => !measure.checkVisibility()).length"""
    assert run(browser, hidden) == 0
    words = """return [...document.querySelectorAll('button[data-object]')]
        .map((button) => getComputedStyle(button).fontSize)"""
    assert set(run(browser, words)) == {"0px"}  # pictures without the word of a control
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    run(browser, "dispatchEvent(new Event('afterprint'))")
    assert run(browser, closed) > 0


#: A table of some pages, with a head as high as an eighth of one.
TALL = """
const table = document.getElementById("two_answers");
const [row] = table.tBodies[0].rows;
table.tHead.style.display = arguments[0];
table.tHead.rows[0].cells[1].style.height = "130px";
table.tBodies[0].append(...Array.from({length: 90}, () => row.cloneNode(true)));
document.body.replaceChildren(table);
addEventListener("beforeprint", () => {
  window.controls = document.querySelectorAll("thead button").length;
});
"""


def test_the_head_of_a_long_table_is_on_each_printed_page(opened: Callable[..., Browser]):
    """Chromium leaves room for a head that holds controls, but draws it on the first page only."""
    pages = {}
    for display in ("table-header-group", "table-row-group"):  # repeated, and never repeated
        browser = opened()
        run(browser, TALL, display)
        printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
        pages[display] = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert pages["table-row-group"] >= 4
    assert pages["table-header-group"] > pages["table-row-group"]
    assert run(browser, "return window.controls") == 0
    assert run(browser, "return document.querySelectorAll('thead button').length") > 5  # again


def test_regions_that_scroll_are_reached_by_keyboard(opened: Callable[..., Browser]):
    browser = opened(390)
    run(browser, "for (const d of document.querySelectorAll('details')) d.open = true")
    unreached = """return [...document.querySelectorAll('*')].filter((part) => {
        const way = getComputedStyle(part).overflowX;
        return (way === 'auto' || way === 'scroll') && part.scrollWidth > part.clientWidth
          && part.tabIndex < 0;
      }).map((part) => part.outerHTML.slice(0, 80))"""
    assert run(browser, unreached) == []


def test_dark_follows_the_system_and_print_is_light(opened: Callable[..., Browser]):
    def ground(browser: Browser) -> str:
        return run(browser, "return getComputedStyle(document.body).backgroundColor")

    light = opened()
    assert ground(light) == "rgb(255, 255, 255)"
    lit = pixels(light)
    dark = opened(scheme="dark")
    assert ground(dark) == "rgb(20, 24, 28)"
    assert pixels(dark) != lit
    media = {
        "media": "print",
        "features": [{"name": "prefers-color-scheme", "value": "dark"}],
    }
    dark.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert ground(dark) == "rgb(255, 255, 255)"
    dark.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_it_prints_the_viewer_on_the_first_page(opened: Callable[..., Browser]):
    browser = opened()
    first = {"printBackground": True, "pageRanges": "1"}
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", first)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1
    assert b"/Subtype /Image" in printed  # the map
