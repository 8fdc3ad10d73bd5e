"""Draws the three figures of the README and the pages again, from a finished run of the demo.

    lmd evaluate --config demo.yaml
    python scripts/readme_figures.py results/demo --output models

The decomposition of the split's first sample, and two pictures of the run's page as Chromium shows
it. They are WebP, each under 100 kB; commit them only when their layout has changed.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from lmd_cli.config.loading import load_config
from lmd_cli.report.figures.bev import decomposition_figure
from lmd_cli.report.figures.scene import scene_of
from lmd_cli.runtime.progress import make_progress
from lmd_cli.workflows.decompose import decompose_sample
from lmd_cli.workflows.report import make_report

LARGEST = 100_000
#: Qualities that are tried, the best first.
QUALITIES = range(90, 20, -5)
#: Pixels: of the decomposition, and of the browser's window.
WIDTH, WINDOW = 1500, (1140, 2400)
#: Elements of the page, by the name of their picture; the window is as high as the first.
ELEMENTS = {"demo_page": "#viewer", "demo_vehicles": "#measures > div"}
#: Charts that stay, by how their title starts: in the demo, weather and time of day do not vary.
CHARTS = ("Distance", "Visibility", "Radar points")
KEEP_CHARTS = """
for (const chart of document.querySelectorAll("#measures figure"))
  if (!arguments[0].some((title) => chart.textContent.trim().startsWith(title))) chart.remove();
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run of demo.yaml")
    parser.add_argument("--output", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    split = decompose_sample(load_config("demo.yaml"), progress=make_progress())
    pictures = {"demo_decomposition": decomposition_figure(scene_of(split))}
    page = make_report(arguments.run, progress=make_progress())
    with chromium() as browser:
        browser.get(page.resolve().as_uri())
        browser.execute_script(KEEP_CHARTS, CHARTS)
        for name, element in ELEMENTS.items():
            pictures[name] = browser.find_element("css selector", element).screenshot_as_png
    for name, png in pictures.items():
        target = arguments.output / f"{name}.webp"
        target.write_bytes(small(png))
        print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def small(png: bytes) -> bytes:
    """WebP of the best quality that is small enough, not wider than :data:`WIDTH`."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() < LARGEST:
            return buffer.getvalue()
    raise ValueError(f"no quality gives less than {LARGEST} bytes")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser with fine pixels and the light colours."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        sys.exit("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", size)
        for flag in (*flags, "--force-device-scale-factor=1.5", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield browser
        finally:
            browser.quit()


if __name__ == "__main__":
    main()
