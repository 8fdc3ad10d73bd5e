"""The page in a real browser: Chromium, headless, opening the file from disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import made_up
from tests.support.browser import (
    WIDTHS,
    Browser,
    element,
    keys,
    needs_chromium,
    pixels,
    press,
    rows,
    run,
)

pytestmark = needs_chromium


@pytest.mark.parametrize("width", WIDTHS)
def test_loads_without_errors_and_fits(opened: Callable[..., Browser], width: int):
    browser = opened(width)
    assert browser.get_log("browser") == []
    assert run(browser, "return window.broken") is None
    assert run(browser, "return document.getElementById('viewer').hidden") is False
    content, window = run(browser, "return [document.documentElement.scrollWidth, innerWidth]")
    assert window == width
    assert content <= width


def test_console_errors_would_be_seen(opened: Callable[..., Browser]):
    browser = opened()
    run(browser, "setTimeout(() => { throw new Error('seen'); })")
    run(browser, "console.error('said')")
    said = "".join(entry["message"] for entry in browser.get_log("browser"))
    assert "seen" in said
    assert "said" in said


def test_the_policy_stops_foreign_scripts_and_handlers(opened: Callable[..., Browser]):
    browser = opened()
    run(
        browser,
        """const s = document.createElement('script'); s.textContent = 'window.broken = 3';
        document.body.append(s);
        document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="broken = 4">');""",
    )
    assert run(browser, "return window.broken") is None


def test_switches_and_slider_change_the_map(opened: Callable[..., Browser]):
    browser = opened()
    whole = pixels(browser)
    element(browser, "part-0").click()
    without_camera = pixels(browser)
    assert without_camera != whole
    element(browser, "part-0").click()
    assert pixels(browser) == whole
    name, minis = element(browser, "sample-name").text, pixels(browser, "mini-0")
    press(element(browser, "sample"), keys().ARROW_RIGHT)
    assert pixels(browser) != whole
    assert pixels(browser, "mini-0") != minis
    assert element(browser, "sample-name").text != name
    element(browser, "before").click()
    assert pixels(browser) == whole


def test_what_is_drawn_is_the_sum_of_the_parts(opened: Callable[..., Browser]):
    browser = opened()
    run(browser, "document.querySelector('input[value=positive]').click()")
    run(browser, "document.querySelector('input[name=marks][value=none]').click()")

    def colour(row: int, column: int) -> list[int]:
        return run(
            browser,
            """const c = document.getElementById('bev'), pen = c.getContext('2d');
            const along = c.clientWidth - 38 - 8, [row, column] = arguments;
            const x = 38 + (column + 0.5) / 20 * along, y = 6 + (20 - row - 0.5) / 20 * along;
            return [...pen.getImageData(x, y, 1, 1).data].slice(0, 3)""",
            row,
            column,
        )

    element(browser, "outlines").click()
    both, only_camera, none = colour(5, 4), colour(4, 4), colour(15, 15)
    assert none == [255, 255, 255]
    assert sum(both) < sum(only_camera) < sum(none)
    element(browser, "part-0").click()
    assert colour(4, 4) == none
    assert colour(5, 4) not in (both, none)


@pytest.mark.parametrize("style", ["positive", "probability"])
def test_other_styles(opened: Callable[..., Browser], style: str):
    browser = opened()
    before, scale = pixels(browser), pixels(browser, "scale")
    run(browser, "document.querySelector(`input[value=${arguments[0]}]`).click()", style)
    assert pixels(browser) != before
    assert pixels(browser, "scale") != scale


def test_the_map_answers_to_keys_and_clicks(opened: Callable[..., Browser]):
    browser = opened()
    bev, readout = element(browser, "bev"), element(browser, "readout")
    assert "0.5 m ahead, 0.5 m to the right" in readout.text
    press(bev, keys().ARROW_UP, keys().ARROW_LEFT, keys().ARROW_LEFT)
    assert "1.5 m ahead, 1.5 m to the left" in readout.text
    press(bev, keys().SHIFT + keys().ARROW_DOWN)
    assert "3.5 m behind" in readout.text
    press(bev, "1")
    assert not element(browser, "part-0").is_selected()
    assert "camera" not in readout.text
    bev.click()
    assert "1.5 m to the left" not in readout.text


def test_every_control_is_reached_by_the_tabulator(opened: Callable[..., Browser]):
    browser = opened()
    wanted = {"before", "sample", "after", "bev", "part-0", "part-1", "part-2", "outlines"}
    body = browser.switch_to.active_element
    seen: list[str] = []
    for _ in range(40):
        body.send_keys(keys().TAB)
        body = browser.switch_to.active_element
        seen.append(body.get_attribute("id") or body.tag_name)
        if wanted <= set(seen):
            break
    assert wanted <= set(seen)
    outline = run(browser, "return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none" or seen[-1].startswith("part")


def test_tables_sort_by_number_both_ways_with_the_keyboard(opened: Callable[..., Browser]):
    browser = opened()
    run(browser, "for (const d of document.querySelectorAll('details')) d.open = true")
    header = run(
        browser, "return document.getElementById('metrics').tHead.rows[0].cells[4].firstChild"
    )
    press(header, keys().ENTER)
    upwards = [float(value) for value in rows(browser, "metrics")]
    assert upwards == sorted(upwards)
    assert len(set(upwards)) > 4
    press(header, keys().SPACE)
    assert [float(value) for value in rows(browser, "metrics")] == upwards[::-1]
    said = run(browser, "return arguments[0].parentNode.getAttribute('aria-sort')", header)
    assert said == "descending"


def test_charts_say_their_values_to_pointer_and_keys(opened: Callable[..., Browser]):
    from selenium.webdriver import ActionChains

    browser = opened()
    tip = element(browser, "tip")
    assert not tip.is_displayed()
    chart = run(browser, "return document.querySelector('#separation ~ .charts svg')")
    press(chart, keys().ARROW_RIGHT)
    first = tip.text
    assert "PCC R_p/R" in first
    press(chart, keys().ARROW_RIGHT)
    assert tip.text != first
    press(chart, keys().ESCAPE)
    assert not tip.is_displayed()
    mark = run(browser, "return arguments[0].querySelector('.mark rect')", chart)
    ActionChains(browser).move_to_element(mark).perform()
    assert tip.text == first


def test_a_sample_of_the_table_is_shown_in_the_viewer(opened: Callable[..., Browser]):
    browser = opened()
    before = pixels(browser)
    run(browser, "document.querySelector('#disagreeing button[data-sample]').click()")
    assert element(browser, "sample").get_attribute("value") == "2"
    assert pixels(browser) != before


def test_a_single_point_of_failure_is_shown_in_the_viewer(opened: Callable[..., Browser]):
    browser = opened()
    press(element(browser, "sample"), keys().ARROW_RIGHT)
    before = pixels(browser)
    run(browser, "document.querySelector('#fails button[data-sample]').click()")
    assert element(browser, "sample").get_attribute("value") == "0"
    assert pixels(browser) != before


@pytest.fixture(scope="module")
def own_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of a network of one's own: twelve rows of twenty pixels."""
    from typer.testing import CliRunner

    from lmd_cli.cli.app import app

    folder = tmp_path_factory.mktemp("own")
    (folder / "spots.py").write_text(made_up.NETWORK)
    (folder / "spots.yaml").write_text(
        "model: {target: 'spots:Net', modalities: [left, right], output: spots}\n"
        "data: {target: 'spots:Spots'}\nperturbation: {count: 1}\n"
    )
    run = folder / "run"
    config = ["--config", str(folder / "spots.yaml"), "--output", str(run)]
    report = ["report", str(run), "--config", str(folder / "spots.yaml")]
    for arguments in (["evaluate", *config], report):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    return run / "report.html"


def test_the_page_of_a_network_of_ones_own(browser: Browser, own_page: Path):
    for width in WIDTHS:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get_log("browser")
        browser.get(own_page.as_uri())
        assert browser.get_log("browser") == []
        assert run(browser, "return document.documentElement.scrollWidth") <= width
    whole = pixels(browser)
    element(browser, "part-0").click()
    assert pixels(browser) != whole
    element(browser, "part-0").click()
    press(element(browser, "sample"), keys().ARROW_RIGHT)
    assert pixels(browser) != whole
    assert element(browser, "sample-name").text == "2 of 3: sample 1"
    press(element(browser, "bev"), keys().ARROW_UP)
    readout = element(browser, "readout").text
    assert readout.startswith("Row ")
    assert "left" in readout
    assert "ahead" not in readout
    labels = run(browser, "return document.getElementById('viewer').innerText")
    assert "metres" not in labels


def test_measures_are_shown_one_at_a_time(opened: Callable[..., Browser]):
    browser = opened()
    script = "return [...document.getElementById('measures').children].map((c) => c.hidden)"
    assert run(browser, script) == [False, True, True]
    run(browser, "document.querySelector('input[data-shows=decisive]').click()")
    assert run(browser, script) == [True, True, False]
