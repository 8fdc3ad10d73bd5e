"""The page as a text: what it says, and that no data can get out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import lmd_cli.report.page.build as page_module
from lmd_cli.errors import ResultsError, RunError
from lmd_cli.report.page.build import build_page
from lmd_cli.report.page.figures import page_figures
from lmd_cli.report.page.separation import by_construction, explained
from lmd_cli.report.page.viewer import LEVELS, colour_limits, quantise, viewer_data
from lmd_cli.results.read_run import read_run
from lmd_cli.results.survey import Survey
from tests.support import made_up


class Elements(HTMLParser):
    """Counts elements and keeps the text of the page and of each script."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


#: Figures by the tokens of their samples.
DRAWN: dict[tuple[str, ...], list[dict[str, str]]] = {}


@pytest.fixture(autouse=True)
def figures_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of a survey, most of a page's cost, are the same in every test."""

    def once(actual: Survey) -> list[dict[str, str]]:
        key = tuple(one.token for one in actual.shown)
        if key not in DRAWN:
            DRAWN[key] = page_figures(actual)
        return DRAWN[key]

    monkeypatch.setattr(page_module, "page_figures", once)


def page(tmp_path: Path, **options: object) -> str:
    folder = made_up.run_folder(tmp_path / "run", **options)  # type: ignore[arg-type]
    actual = made_up.survey(str(options.get("text", "")))
    return build_page(read_run(folder), actual).decode()


def test_hostile_texts_add_no_element_and_no_handler(tmp_path: Path):
    (tmp_path / "calm").mkdir()
    calm = Elements(page(tmp_path / "calm"))
    hostile_text = page(tmp_path, text=made_up.HOSTILE)
    hostile = Elements(hostile_text)
    assert hostile.tags == calm.tags
    assert not [name for name, _ in hostile.attributes if name.startswith("on")]
    sources = [str(value) for name, value in hostile.attributes if name == "src"]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    said = "".join(hostile.words)
    assert made_up.HOSTILE in said  # shown as it is, not swallowed
    assert "window.broken" not in re.sub(r"\\u003c|&lt;", "", hostile_text).split("<script>")[-1]


def test_data_for_scripts_reads_back_as_it_was(tmp_path: Path):
    text = page(tmp_path, text=made_up.HOSTILE)
    actual = re.search(
        r'<script type="application/json" id="viewer-data">(.*?)</script>', text, re.S
    )
    assert actual is not None
    data = json.loads(actual[1])
    assert data["samples"][1]["token"] == f"t1{made_up.HOSTILE}"
    assert "<" not in actual[1]
    assert "\u2028" not in actual[1]


def test_nothing_is_fetched_and_only_own_scripts_may_run(tmp_path: Path):
    text = page(tmp_path)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert policy[1].count("sha256-") == len(page_module.SCRIPTS) + 1
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_the_same_files_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page_module, "page_figures", page_figures)  # drawn each time
    folder = made_up.run_folder(tmp_path / "run")
    run = read_run(folder)
    assert build_page(run, made_up.survey()) == build_page(read_run(folder), made_up.survey())


def test_what_a_reader_must_know_stands_there(tmp_path: Path):
    said = " ".join("".join(Elements(page(tmp_path)).words).split())
    for phrase in (
        "the run was limited",
        "random weights",
    ):
        assert phrase not in said
    for phrase in ("Misleading reassurance", "camera-only network", "by construction", "ab" * 32):
        assert phrase in said
    assert "0.500" in said  # the IoU
    answer = (
        "In short (all 3 samples): the network detects 2 of 3 annotations of 2 vehicles in 1 "
        "scene. If a sensor fails (features set to zero), it loses 0 (0 %) without the camera and "
        "1 (50 %, 95 % interval 0 to 100 %) without the radar; new false alarms appear: 6 without "
        "the camera and 0 without the radar; the IoU is 0.50 with all sensors, 0.40 without the "
        "camera and 0.25 without the radar. 1 stay detected whichever one sensor fails; 1 have a "
        "single point of failure. This is removal"
    )
    assert answer in said
    assert "are by the rules identity-ratio, asked for." in said


def test_the_page_says_which_rules_its_maps_are_by_and_why(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run"))
    survey = replace(made_up.survey(), variant="identity-ratio-shapley")
    said = " ".join("".join(Elements(build_page(run, survey).decode()).words).split())
    assert (
        "are by the rules identity-ratio-shapley, the default: on the demos its parts agree better "
        "with known truth than those of the paper's rules, which tables keep"
    ) in said


def test_a_run_of_methods_has_its_own_rows_and_words(tmp_path: Path):
    names = ["identity-ratio", "shapley", "uniform-identity@perturbed"]
    folder = made_up.run_folder(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "rows": names[:2]}))
    rows = (folder / "pairs.csv").read_text().replace("uniform-identity", "shapley")
    (folder / "pairs.csv").write_text(rows)
    run = read_run(folder)
    assert run.metrics.variant.unique().tolist() == names[:2]
    assert run.exact == ["identity-ratio"]
    assert len(run.table) == 2
    said = " ".join("".join(Elements(build_page(run, None).decode()).words).split())
    assert "In the rows identity-ratio 1 and 0 hold by construction" in said
    assert "For shapley nothing holds by construction: every comparison is measured" in said
    (folder / "run.json").write_text(json.dumps({**record, "rows": names[2:]}))
    said = by_construction(read_run(folder))
    assert said.startswith("Rows @perturbed are linearised anew")
    assert "1 and 0" not in said


def test_a_subset_is_called_one_in_every_number(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run", samples=2, status="2 of 3 samples"))
    said = " ".join(
        "".join(Elements(build_page(run, made_up.survey(samples=2)).decode()).words).split()
    )
    assert "all 3 samples" not in said
    for phrase in (
        "In short (2 of 3 samples): the network detects",
        "Mean ± standard deviation over 2 of 3 samples",
        "all pairs of 2 of 3 samples",
        "averaged over 2 of 3 samples",
        "In 2 of 3 samples, 2 annotations of 1 vehicle in 1 scene lie inside",
        "overlap of predicted and annotated, 2 of 3 samples",
    ):
        assert phrase in said


def test_words_fit_the_sensors_of_the_run(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run"))
    assert explained(run) == (
        "R_p/C is what became of the camera's part when the radar was replaced (sensors by their "
        "first letters)."
    )
    run.record["config"]["model"]["modalities"] = ["mri", "pet"]
    assert explained(run) == (
        "mri_p/pet is what became of the pet's part when the mri was replaced."
    )
    assert "a part whose modality was kept is compared with itself" in by_construction(run)


def test_the_page_says_from_which_code_weights_and_data(tmp_path: Path):
    folder = made_up.run_folder(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["code"] = {"lmd": {"sha256": "ef" * 32, "commit": "0a" * 20, "modified": False}}
    record["command"] = {"name": "evaluate", "methods": ["lmd", "shapley"]}
    record["files"] = {"pairs.csv": "12" * 32}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "data.sha256").write_text(f"{'34' * 32}  samples/a.jpg\n")
    entry = {"event": "started", "date": "2026-01-02", "command": ["lmd", "demo"], "machine": 7}
    (folder / "invocations.jsonl").write_text(json.dumps(entry) + "\n")
    cells = Elements(build_page(read_run(folder), made_up.survey()).decode()).words
    for name, value in (
        *(("code.lmd.commit", "0a" * 20), ("code.lmd.modified", "False")),
        *(("command.methods", "lmd, shapley"), ("files.pairs.csv", "12" * 32)),
        *(("weights.sha256", "ab" * 32), ("samples.sha256", "cd" * 32)),
    ):
        assert cells[cells.index(name) + 1] == value
    assert cells[cells.index("data.sha256 sha256") + 1].endswith(", of 1 files")
    at = cells.index("2026-01-02")
    assert cells[at : at + 5] == ["2026-01-02", "started", "lmd demo", "7", "\n"]


def test_each_printed_page_names_run_and_hash(tmp_path: Path):
    folder = made_up.run_folder(tmp_path / "run")
    digest = hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
    text = build_page(read_run(folder), None).decode()
    margin = re.search(r'@bottom-left { content: "([^"]*)"', text)
    assert margin is not None
    said = re.sub(r"\\([0-9a-f]{6})", lambda code: chr(int(code[1], 16)), margin[1])
    assert said == f"run run, run.json sha256 {digest}"


def test_an_unfinished_run_says_so_first(tmp_path: Path):
    text = page(tmp_path, samples=2, status="unfinished", random=True)
    banner = text.index("2 of 3 samples are in: the run was limited, or cut off.")
    assert banner < text.index("<nav")
    assert "random weights" in text[banner : banner + 600]


def test_rows_of_a_sample_that_is_not_finished_do_not_count(tmp_path: Path):
    folder = made_up.run_folder(tmp_path / "run", samples=3)
    lines = (folder / "samples.csv").read_text().splitlines(keepends=True)
    whole = read_run(folder).metrics
    (folder / "samples.csv").write_text("".join(lines[:-1]))
    with open(folder / "pairs.csv", "a") as file:
        file.write("t3,t1,1,identity-ra")  # torn
    part = read_run(folder)
    assert len(part.samples) == 2
    assert part.metrics.pairs.sum() == whole.pairs.sum() * 2 / 3
    assert (folder / "samples.csv").read_text() == "".join(lines[:-1])  # only read


def test_a_page_without_a_survey(tmp_path: Path):
    run = read_run(made_up.run_folder(tmp_path / "run"))
    text = build_page(run, None).decode()
    assert 'id="viewer-data"' not in text
    assert 'id="separation"' in text


def test_a_page_that_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").mkdir()
    whole = page(tmp_path / "a")
    assert "left out to keep" not in whole
    monkeypatch.setattr(page_module, "LARGEST", len(whole) - 2_000)
    (tmp_path / "b").mkdir()
    less = page(tmp_path / "b")
    assert len(less.encode()) <= len(whole) - 2_000
    assert "1 more samples were left out" in less
    monkeypatch.setattr(page_module, "LARGEST", 10_000)
    with pytest.raises(RunError, match="without maps with --no-survey"):
        page(tmp_path)


@pytest.mark.parametrize("name", ["pairs.csv", "run.json"])
def test_folders_that_are_not_runs(tmp_path: Path, name: str):
    folder = made_up.run_folder(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(ResultsError, match=re.escape(name)):
        read_run(folder)
    with pytest.raises(ResultsError, match="is not a folder"):
        read_run(tmp_path / "nowhere")


def test_rows_that_are_missing_are_an_error(tmp_path: Path):
    folder = made_up.run_folder(tmp_path / "run")
    lines = (folder / "pairs.csv").read_text().splitlines(keepends=True)
    (folder / "pairs.csv").write_text("".join(lines[:-3]))
    with pytest.raises(ResultsError, match="has 21 of the 24 rows"):
        read_run(folder)


def test_quantised_maps_are_off_by_at_most_half_a_step():
    values = np.random.default_rng(0).normal(size=(7, 5)) * 3
    whole, scale = quantise(values)
    assert np.abs(whole * scale - values).max() <= scale / 2 * (1 + 1e-9)
    assert np.abs(whole).max() == LEVELS
    zero, scale = quantise(np.zeros((2, 2)))
    assert not zero.any()
    assert scale == 1.0


def test_the_viewers_maps_add_up_to_the_prediction():
    actual = made_up.survey()
    data = viewer_data(actual, actual.shown)
    sample = data["samples"][2]
    raw = base64.b64decode(sample["maps"])
    whole = np.array(struct.unpack(f"<{len(raw) // 2}h", raw)).reshape(3, 20, 20)
    total = (whole * np.array(sample["scales"])[:, None, None]).sum(axis=0)
    np.testing.assert_allclose(total, actual.shown[2].parts.sum(axis=0), atol=1e-3)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(sample["truth"]), np.uint8))[:400]
    np.testing.assert_array_equal(bits.reshape(20, 20), actual.shown[2].truth)
    limits = colour_limits(actual.shown)
    assert 0 < limits["positive"] <= 6.0
    assert limits["signed"] <= 6.0
