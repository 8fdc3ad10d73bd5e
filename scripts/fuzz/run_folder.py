"""Run folders that somebody handed over, damaged: reported, gone on with, and cleared.

    python scripts/fuzz/run_folder.py --seed 0 --seconds 60

Nothing beside the folder may change, whatever links it holds. A figure is drawn once for each
content: most damage leaves a survey's maps alone, and drawing takes a hundred times what the
rest of a report does.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from trials import damage_file, main

from lmd_cli.evaluation.comparisons import measured_comparisons
from lmd_cli.evaluation.ground.plane import Plane
from lmd_cli.report.page import figures
from lmd_cli.results.pair_rows import PAIR_FIELDS, SAMPLE_FIELDS, Stretch, merge
from lmd_cli.results.run_folder import RunFolder, read_record
from lmd_cli.results.summary import read_pairs
from lmd_cli.results.survey import Shown, Survey, _jpeg
from lmd_cli.results.survey_draft import DraftFolder
from lmd_cli.results.survey_files import FORMAT, write_survey
from lmd_cli.runtime.files import csv_lines
from lmd_cli.workflows.report import ReportOptions, make_report

MODALITIES, SAMPLES, VARIANT = ["camera", "radar"], 3, "identity-ratio"
PARTS = [*MODALITIES, "bias"]


def trial(chance: random.Random, folder: Path) -> None:
    """Damages a run's folder in one to three places, and does one of the things one does with it.

    Raises:
        LmdError: the folder is refused.
        AssertionError: something beside it has changed.
    """
    run, outside = folder / "run", folder / "outside"
    shutil.copytree(whole_run(), run)
    outside.mkdir()
    (outside / "kept.csv").write_bytes(b"kept\n")
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(sorted(p for p in run.rglob("*") if not p.is_symlink()))
        (damage_kind if chance.random() < 0.25 or not path.is_file() else damage_file)(path, chance)
    try:
        chance.choice([report, report, go_on, clear, survey_again])(run)
    finally:
        assert (outside / "kept.csv").read_bytes() == b"kept\n", "written through a link"
        assert [path.name for path in outside.iterdir()] == ["kept.csv"], "made through a link"


def damage_kind(path: Path, chance: random.Random) -> None:
    """Puts a link, a pipe or a folder in a path's place."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    outside = _top(path) / "outside"
    kind = chance.randrange(5)
    if kind == 0:
        path.symlink_to(outside / "kept.csv")
    elif kind == 1:
        path.symlink_to(outside, target_is_directory=True)
    elif kind == 2:
        path.symlink_to(outside / "new.csv")
    elif kind == 3:
        os.mkfifo(path)
    else:
        path.mkdir()


def _top(path: Path) -> Path:
    """The trial's folder."""
    return next(parent.parent for parent in path.parents if parent.name == "run")


def report(run: Path) -> None:
    """As ``lmd report`` does without data and weights."""
    make_report(run, options=ReportOptions(compute=False))


def drawn_once(draw: Callable[..., bytes]) -> Callable[..., bytes]:
    """The same pictures, kept by what they are drawn from."""
    pictures: dict[bytes, bytes] = {}

    def drawn(*arguments: Any) -> bytes:
        content = pickle.dumps(arguments)
        if content not in pictures:
            pictures[content] = draw(*arguments)
        return pictures[content]

    return drawn


def go_on(run: Path) -> None:
    """As ``lmd evaluate`` does before and after it measures."""
    folder = RunFolder(run)
    with folder.locked():
        read_record(run)
        if merge(run) < SAMPLES:
            Stretch(run, SAMPLES).trim()
            folder.rows().append([], (SAMPLES, "t", "ok", 0, "", None, None, None, None))
        read_pairs(folder.file("pairs.csv"))
        folder.write_record({"status": "unfinished"})


def clear(run: Path) -> None:
    """As ``--overwrite`` does."""
    with RunFolder(run).locked():
        RunFolder(run).clear()


def survey_again(run: Path) -> None:
    """As a report does that goes on with a survey."""
    draft = DraftFolder(run / "survey" / "unfinished", {})
    with draft.held():
        draft.read(1)


@functools.cache
def whole_run() -> Path:
    """A run's folder, until the process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    write_run(folder / "run")
    return folder / "run"


def write_run(path: Path) -> None:
    """What an evaluation and a report leave."""
    (path / "rows").mkdir(parents=True)
    cells = measured_comparisons(MODALITIES)
    pairs = [
        (f"t{k}", f"t{(k + 1) % SAMPLES}", 1, VARIANT, c.perturbed_name, c.target, 0.5, 0.25)
        for k in range(SAMPLES)
        for c in cells
    ]
    rows = [(k, f"t{k}", "ok", len(cells), "", 10, 20, 1e-7, None) for k in range(SAMPLES)]
    (path / "pairs.csv").write_bytes(csv_lines([PAIR_FIELDS, *pairs]))
    (path / "samples.csv").write_bytes(csv_lines([SAMPLE_FIELDS, *rows]))
    (path / "notes.txt").write_text("A note.\n")
    (path / "run.json").write_text(json.dumps(record()))
    Stretch(path, SAMPLES + 1).trim()
    write_survey(survey(), {}, path / "survey")
    (path / "survey" / "unfinished").mkdir()
    state = {"identity": {"format": FORMAT}, "done": 1, "parts": PARTS, "layers": [1, []]}
    (path / "survey" / "unfinished" / "state.json").write_text(json.dumps(state))
    line = [0, ["t0", "scene", "", "", 1, 0.5, 1e-7, 0.5, 0.5, 1.0], []]
    (path / "survey" / "unfinished" / "rows.jsonl").write_text(json.dumps(line) + "\n")
    for name in (".lock", ".ranks"):
        (path / name).touch()


def record() -> dict[str, Any]:
    """``run.json``, as far as anybody reads it."""
    model = {"name": "simplebev", "modalities": MODALITIES, "output": "segmentation"}
    data = {"dataroot": "/data", "version": "v1.0-mini", "split": "mini_val"}
    return {
        "status": "finished",
        "config": {"data": data, "model": model, "variants": [VARIANT]},
        "checkpoint": "weights.pth",
        "weights": {"sha256": "ab" * 32, "random": False},
        "samples": {"count": SAMPLES, "sha256": "cd" * 32},
        "schedule": {"stride": 1, "count": 1},
        "threads": 1,
        "device": "cpu",
        "compute": {"channels_last": False, "chunk_bytes": dict.fromkeys(CHUNKS, 2**20)},
        "versions": {"torch": "2"},
        "vehicle_iou": 0.5,
        "conservation_residual": 1e-7,
        "replay_deviation": None,
    }


CHUNKS = ("linear", "parts", "head")


def survey() -> Survey:
    """One sample with a map of 8 by 8."""
    maps = np.linspace(-1, 1, 3 * 64, dtype=np.float32).reshape(3, 8, 8)
    box = np.zeros((1, 4, 2), np.float32)
    frames = np.array([[0, 1, 1, 5, 4]], np.float32)
    images = {"CAM_FRONT": _jpeg(np.zeros((8, 12, 3)))}
    named = ("t0", "scene", "Rain", "0.0 s")
    shown = Shown(0, *named, maps, maps[0] > 0, box, frames, images)
    samples: list[Sequence[Any]] = [(*named, 1, 0.5, 1e-7, 0.5, 0.5, 1.0)]
    layers: list[Sequence[Any]] = [(0, "head", "conv", 0.5, 0.3, 0.2)]
    plane = Plane(8, 8, -4.0, 4.0, -4.0, 4.0)
    return Survey(plane, VARIANT, PARTS, [shown], [], samples, layers, PARTS)


if __name__ == "__main__":
    figures.grid_figure = drawn_once(figures.grid_figure)
    figures.generic_figure = drawn_once(figures.generic_figure)
    main(__doc__ or "", trial)
