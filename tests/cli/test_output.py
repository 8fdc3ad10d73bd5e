"""``--json``, ``--quiet``, variables of the environment, and completion."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from lmd_cli.cli.app import app
from lmd_cli.cli.options import DataOptions
from lmd_cli.config.loading import load_config
from tests.support.calling import Lmd
from tests.support.run_pairs import before_and_after

#: The document of ``--json``, as the reference has it.
SCHEMA: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "command": str,
    "tables": dict,
    "values": dict,
    "notes": list,
    "files": list,
    "next": (list, type(None)),
    "error": (str, type(None)),
    "exit_code": int,
}


def document(result: Result) -> dict[str, Any]:
    """The whole of standard output as one document of the schema."""
    made = json.loads(result.stdout, parse_constant=pytest.fail)
    assert list(made) == list(SCHEMA)
    for name, kind in SCHEMA.items():
        assert isinstance(made[name], kind), name
    assert made["format"] == 1
    assert made["exit_code"] == result.exit_code
    assert all(isinstance(row, dict) for rows in made["tables"].values() for row in rows)
    assert all(isinstance(line, str) for name in ("notes", "files") for line in made[name])
    return made


def test_every_command_takes_both_options():
    for command in app.registered_commands:
        assert command.callback is not None
        assert {"json", "quiet"} <= set(inspect.signature(command.callback).parameters)


def test_documents(lmd: Lmd, tiny_config: Path):
    result = lmd("evaluate", "-c", tiny_config, "--output", "run", "--limit", 1, "--json")
    made = document(result)
    assert "evaluate: 1/1" in result.stderr
    assert made["command"] == "evaluate"
    assert [row["variant"] for row in made["tables"]["table"]] == [
        *("identity-ratio", "uniform-identity")
    ]
    kept = [m for m in made["values"]["metrics"] if m["expected"] == "keep"]
    assert {metric["mse_mean"] for metric in kept} == {0.0}  # numbers, not text
    assert "run/metrics.csv" in made["files"]
    assert made["next"] == ["lmd", "report", "run"]

    made = document(lmd("samples", "-c", tiny_config, "--limit", 2, "--json"))
    assert [row["index"] for row in made["tables"]["samples"]] == [0, 1]
    assert set(made["tables"]["samples"][0]) == {"index", "token", "scene"}

    made = document(lmd("inspect", "-c", tiny_config, "--json"))
    assert made["values"]["gaps"] == 0
    assert {"module", "operation", "calls", "kind"} <= set(made["tables"]["operations"][0])


def test_a_gate_in_json(lmd: Lmd, tmp_path: Path):
    before, after = before_and_after(tmp_path / "pair")
    asked = ("--no-survey", "--output", "out", "--json")
    made = document(lmd("gate", after, "--require", "iou>=0.7", *asked))
    assert made["exit_code"] == 1
    assert made["tables"]["requirements"][0]["value"] == pytest.approx(0.6)
    made = document(lmd("compare", before, after, *asked))
    iou = [row for row in made["tables"]["metrics"] if row["metric"] == "iou"]
    assert [row["value"] for row in iou] == pytest.approx([0.5, 0.6])
    assert iou[0]["difference"] is None


def test_an_error_is_a_document_too(lmd: Lmd):
    result = lmd("report", "nowhere", "--json")
    made = document(result)
    assert made["exit_code"] == 2
    assert made["error"].startswith("error: nowhere is not a folder")
    assert made["error"] in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate"], "Missing option '--config' / '-c'"),
        (["evaluate", "-c", "demo.yaml", "--limit", "0"], "Invalid value for '--limit'"),
        (["convert", "one.pth"], "Missing argument 'OUT.safetensors'"),
        (["report", "run", "--nothing"], "No such option: --nothing"),
    ],
)
def test_an_error_of_usage_is_a_document_too(lmd: Lmd, arguments: list[str], said: str):
    made = document(lmd(*arguments, "--json"))
    assert (made["command"], made["exit_code"]) == (arguments[0], 2)
    assert made["error"].startswith(f"error: {said}")
    assert said in lmd(*arguments).stderr


@pytest.mark.parametrize("by", ["option", "variable"])
def test_quiet(lmd: Lmd, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, by: str):
    if by == "variable":
        monkeypatch.setenv("LMD_QUIET", "1")
    given = ["--quiet"] if by == "option" else []
    result = lmd("evaluate", "-c", tiny_config, "--output", "run", "--limit", 1, *given)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "identity-ratio" in result.stdout
    assert "files in" not in result.stdout
    assert "next: " not in result.stdout


def test_variables_for_what_is_set_once(
    lmd: Lmd, tiny_config: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
):
    config = str(tiny_config)
    for name, value in {"DATAROOT": "/elsewhere", "WORKERS": "1", "DEVICE": "auto"}.items():
        monkeypatch.setenv(f"LMD_{name}", value)
    run = DataOptions(config, ["workers=0"]).load()
    assert run.data.dataroot == "/elsewhere"  # over the YAML
    assert run.workers == 0  # under --set
    assert run.device == "auto"
    run = DataOptions(config, dataroot=str(tiny_root)).load(workers=2, device="cpu")
    assert (run.data.dataroot, run.workers, run.device) == (str(tiny_root), 2, "cpu")
    monkeypatch.setenv("LMD_WORKERS", "many")
    result = lmd("samples", "-c", tiny_config)
    assert result.exit_code == 2
    assert "LMD_WORKERS=many" in result.stderr


def test_the_demo_keeps_its_own_data(lmd: Lmd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LMD_DATAROOT", "/data/nuscenes")
    assert DataOptions("demo.yaml").load() == load_config("demo.yaml", [])
    assert DataOptions("radar_cam.yaml", ["model.checkpoint=random"]).load().data.dataroot == (
        "/data/nuscenes"
    )


#: How a shell's script asks for what ``lmd com`` may become.
ASKED = {
    "bash": {"COMP_WORDS": "lmd com", "COMP_CWORD": "1"},
    "zsh": {"_TYPER_COMPLETE_ARGS": "lmd com"},
    "fish": {"_TYPER_COMPLETE_ARGS": "lmd com", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    "powershell": {
        "_TYPER_COMPLETE_ARGS": "lmd com",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "com",
    },
}


@pytest.mark.parametrize("shell", ASKED)
def test_completion(lmd: Lmd, shell: str):
    """The script asks lmd as it says, and lmd answers with its commands."""
    result = lmd("completion", shell)
    assert result.exit_code == 0
    assert f"complete_{shell}" in result.stdout
    assert "_LMD_COMPLETE" in result.stdout
    assert re.search(r"\blmd\b", result.stdout)
    for name in ASKED[shell]:
        assert name in result.stdout
    asked = ASKED[shell] | {"_LMD_COMPLETE": f"complete_{shell}"}
    done = subprocess.run(
        [sys.executable, "-m", "lmd_cli"], env=os.environ | asked, capture_output=True, text=True
    )
    assert re.findall(r"\bcom\w+(?=$|[\":\t])", done.stdout, re.M) == ["compare", "completion"]
