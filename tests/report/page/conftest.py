"""The browser and the page that its tests open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmd_cli.report.page.build import build_page
from lmd_cli.results.read_run import read_run
from tests.support import made_up
from tests.support.browser import CHROMIUM, DRIVER, FLAGS, Browser
from tests.support.made_up_detections import detections


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    run = made_up.run_folder(folder / "run", text=made_up.HOSTILE)
    target = folder / "report.html"
    boxes = detections(made_up.HOSTILE)
    target.write_bytes(build_page(read_run(run), made_up.survey(made_up.HOSTILE), boxes))
    return target


@pytest.fixture
def opened(browser: Browser, page: Path) -> Callable[..., Browser]:
    def open_page(width: int = 1280, scheme: str = "light") -> Browser:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        media = {"features": [{"name": name, "value": value} for name, value in wanted.items()]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.get_log("browser")
        browser.get(page.as_uri())
        return browser

    return open_page
