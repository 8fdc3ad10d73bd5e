"""``lmd demo``, with the tiny config in place of the demo's, and ``--log``."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from lmd_cli.cli import demo
from lmd_cli.runtime import trackers
from tests.support.calling import Lmd


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tiny_config: Path) -> list[str]:
    """Addresses that a browser was asked to open."""
    addresses: list[str] = []
    monkeypatch.setattr(typer, "launch", addresses.append)
    monkeypatch.setattr(demo, "CONFIG", str(tiny_config))
    return addresses


def test_runs_reports_and_opens_the_page(lmd: Lmd, opened: list[str]) -> None:
    result = lmd("demo", "--open")
    assert result.exit_code == 0, result.output
    page = Path("results/tiny/report.html")
    assert "<html" in page.read_text()
    assert opened == [page.resolve().as_uri()]
    assert "PCC R_p/C" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"results: {page}; next: lmd decompose --config ")
    again = lmd("demo")  # what is there is not done again, and a pipe opens no browser
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    assert len(opened) == 1


def test_a_run_is_logged(lmd: Lmd, tiny_config: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = ("evaluate", "-c", tiny_config, "--output", "run", "--limit", 1, "--log", "tensorboard")
    result = lmd(*run, "--log", "tensorboard")
    assert result.exit_code == 0, result.output

    def written() -> dict:
        events = EventAccumulator("run/tensorboard")
        events.Reload()
        return events.Tags()

    tags = written()
    assert {"identity-ratio/R_p/C/pcc", "vehicle_iou"} < set(tags["scalars"])
    assert len(tags["images"]) == 3
    assert {"metrics/text_summary", "table/text_summary"} < set(tags["tensors"])
    assert len(list(Path("run/tensorboard").iterdir())) == 1
    result = lmd("report", "run", "--viewer", 1, "--log", "tensorboard")
    assert result.exit_code == 0, result.output
    more = {name: set(tags) for name, tags in written().items() if isinstance(tags, list)}
    assert {"iou", "objects.share.radar", "conflict", "change.camera"} < more["scalars"]
    assert not [name for name in more["scalars"] if name.startswith(("pcc.", "mse."))]
    assert {"report/signed", "report/positive"} < more["images"]
    assert {"survey/text_summary", "layers/text_summary"} < more["tensors"]


def test_a_tracker_that_is_missing_is_said_before_the_run(
    lmd: Lmd, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for command in (("evaluate", "-c", tiny_config), ("score", "-c", tiny_config), ("report", "a")):
        result = lmd(*command, "--output", "run", "--log", "wandb")
        assert result.exit_code == 2
        assert result.stderr == (
            "error: wandb needs wandb, not installed here: pip install 'lmd-cli[wandb]'\n"
        )
    assert not Path("run").exists()
