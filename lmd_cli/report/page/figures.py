"""The paper's figures for the page, of the samples where the sensors disagree most."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from lmd_cli.decomposition.layout import BIAS, INTERACTION
from lmd_cli.evaluation.ground.decisive import decisive_places
from lmd_cli.report.figures.bev import grid_figure
from lmd_cli.report.figures.generic import View, generic_figure
from lmd_cli.report.figures.scene import Scene
from lmd_cli.report.figures.styles import Style
from lmd_cli.results.survey import Shown, Survey, conflict_of

#: Rows of each figure.
ROWS = 3
CAPTIONS: dict[Style, str] = {
    "signed": "What speaks for and against a vehicle, on one scale (as figure 4 of the paper)",
    "positive": "What speaks for one, each map by its own maximum (as figure 2 of the paper)",
}


def page_figures(survey: Survey) -> list[dict[str, str]]:
    """Each as ``src`` (a PNG's data address) and ``caption``."""
    return [{"src": _address(f.png), "caption": f.caption} for f in survey_pictures(survey)]


class PagePicture(NamedTuple):
    """A figure: a short name, a sentence, and the file."""

    name: str
    caption: str
    png: bytes


def survey_pictures(survey: Survey) -> list[PagePicture]:
    """The figures of a page."""
    ranked = [row[0] for row in sorted(survey.samples, key=lambda row: -conflict_of(row))]
    shown = {one.token: one for one in survey.shown}
    chosen = [shown[token] for token in ranked if token in shown][:ROWS]
    if not survey.ground:
        return _generic_figures(chosen, survey)
    scenes = [scene_of_shown(one, survey) for one in chosen]
    return [
        PagePicture(style, caption, grid_figure(scenes, style))
        for style, caption in CAPTIONS.items()
        if scenes
    ]


def _generic_figures(chosen: list[Shown], survey: Survey) -> list[PagePicture]:
    """The same of outputs that do not lie on the ground; of numbers one figure says all."""
    views = [_view(one, survey) for one in chosen]
    if not views:
        return []
    if views[0].total.ndim == 1:
        return [PagePicture("numbers", "The numbers and their parts", generic_figure(views))]
    captions: dict[Style, str] = {
        "signed": "Prediction and parts",
        "positive": "Positive values only",
    }
    return [
        PagePicture(style, caption, generic_figure(views, style))
        for style, caption in captions.items()
    ]


def _view(one: Shown, survey: Survey) -> View:
    numbers = survey.plane.rows == 1
    parts = {n: p[0] if numbers else p for n, p in zip(survey.parts, one.parts, strict=True)}
    truth = one.truth.astype(np.float32) if one.truth.any() and not numbers else None
    total = np.stack(list(parts.values())).sum(axis=0)
    return View(total, parts, truth, *_titles(one))


def scene_of_shown(one: Shown, survey: Survey) -> Scene:
    """A surveyed sample as a figure's scene, its images as they are kept."""
    parts = dict(zip(survey.parts, one.parts, strict=True))
    sensors = [name for name in survey.parts if name not in (BIAS, INTERACTION)]
    outlines, criterion = list(one.outlines), survey.criterion
    title, note = _titles(one)
    pixels = {name: np.asarray(Image.open(io.BytesIO(d))) / 255.0 for name, d in one.images.items()}
    return Scene(
        images=pixels,
        ground_truth=one.truth.astype(np.float32),
        total=one.parts.sum(axis=0),
        parts=parts,
        plane=survey.plane,
        title=title,
        note=note,
        outlines=outlines,
        marks=decisive_places(parts, sensors, survey.plane, outlines, criterion),
        criterion=criterion,
    )


def _titles(one: Shown) -> tuple[str, str]:
    """Scene and time, and the token."""
    token = _plain(f"sample {one.token}")
    return _plain(f"{one.scene}, {one.moment}" if one.moment else f"{one.scene}, {token}"), token


def _plain(text: str) -> str:
    """One line, however long the text."""
    return " ".join(text.split())[:120]


def _address(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
