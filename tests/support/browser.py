"""A page of the report in a real browser: Chromium, headless, opening the file from disk."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs chromium and chromedriver (apt-get install chromium chromium-driver)",
)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1280,900"),
)
WIDTHS = (390, 1280)
Browser = Any


def run(browser: Browser, script: str, *arguments: object) -> Any:
    return browser.execute_script(script, *arguments)


def pixels(browser: Browser, canvas: str = "bev") -> str:
    return run(browser, "return document.getElementById(arguments[0]).toDataURL()", canvas)


def element(browser: Browser, name: str) -> Any:
    from selenium.webdriver.common.by import By

    return browser.find_element(By.ID, name)


def press(target: Any, *keys: str) -> None:
    target.send_keys(*keys)


def keys() -> Any:
    from selenium.webdriver.common.keys import Keys

    return Keys


def rows(browser: Browser, table: str) -> list[str]:
    return run(
        browser,
        "return [...document.getElementById(arguments[0]).tBodies[0].rows]"
        ".map((row) => row.cells[arguments[1]].textContent)",
        table,
        4,
    )
