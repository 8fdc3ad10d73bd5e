"""A network whose outputs are numbers, from the command line; and what inspect says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lmd_cli.decomposition import unregister_rule
from tests.support.calling import Lmd

PATIENTS = """
import torch
from torch import nn


class Patients:
    def __init__(self, broken=""):
        self.broken = broken
        self.blood, self.notes = torch.randn(5, 3), torch.randn(5, 4, 8)
        self.tokens = [f"patient-{i}" for i in range(5)]

    def __len__(self):
        return 5

    def __getitem__(self, i):
        blood = self.blood[i] / 0 if self.broken == self.tokens[i] else self.blood[i]
        return {"blood": blood, "notes": self.notes[i]}


class Risk(nn.Module):
    modalities = ("blood", "notes")

    def __init__(self, gap=False):
        super().__init__()
        self.gap, self.blood = gap, nn.Linear(3, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def encode(self, batch):
        return {"blood": self.blood(batch["blood"])[:, None], "notes": batch["notes"]}

    def fuse(self, features):
        words = self.layer(torch.cat(list(features.values()), 1))
        words = torch.lgamma(words) if self.gap else words
        return {"risk": self.head(words.mean(1)), "words": self.head(words)}
"""
YAML = """
model: {target: "patients:Risk", modalities: [blood, notes], output: risk}
data: {target: "patients:Patients"}
perturbation: {count: 2}
bilinear: interaction
threads: 1
"""


@pytest.fixture(autouse=True)
def files(lmd: Lmd) -> None:
    Path("patients.py").write_text(PATIENTS)
    Path("risk.yaml").write_text(YAML)


def test_numbers_give_a_table_a_picture_and_a_page(lmd: Lmd):
    assert lmd("samples", "-c", "risk.yaml").output.splitlines()[1] == "1 patient-1"
    done = lmd("evaluate", "-c", "risk.yaml")
    assert done.exit_code == 0, done.output
    assert "PCC blood_p/notes" in Path("results/risk/table.csv").read_text()
    done = lmd("decompose", "-c", "risk.yaml", "--sample-token", "patient-3")
    assert done.exit_code == 0, done.output
    folder = Path("results/risk/decompose/patient-3")
    with np.load(folder / "parts.npz") as arrays:
        names = ("blood", "notes", "bias", "interaction")
        assert arrays["total"].shape == (4,)
        assert np.allclose(sum(arrays[n] for n in names), arrays["total"], atol=1e-5)
    assert (folder / "decomposition.png").stat().st_size > 5000
    done = lmd("report", "results/risk", "--config", "risk.yaml")
    assert done.exit_code == 0, done.output
    page = Path("results/risk/report.html").read_text()
    assert 'id="viewer-data"' not in page  # there is no map
    assert page.count("data:image/png") == 1
    assert "patient-4" in page


def test_tokens_by_channels_and_several_samples(lmd: Lmd):
    settings = ("--set", "model.output=words", "--set", "model.channel=2")
    done = lmd("decompose", "-c", "risk.yaml", *settings, "--samples", "2", "--output", "two")
    assert done.exit_code == 0, done.output
    assert Path("two/grid.png").is_file()


def test_what_does_not_apply_is_refused_with_the_reason(lmd: Lmd):
    for arguments, said in (
        (("score",), "patients:Patients does not say: give its data set a method regions(index)"),
        (
            ("gradcam", "--layer", "head"),
            "output risk is 4 numbers and no map; lmd gradcam draws maps",
        ),
        (("table", "7"), "table 7 compares 3 modalities, and the model has 2"),
        (("decompose", "--sample-token", "patient-9"), "sample patient-9 is not in"),
        (("decompose", "--set", "model.output=rsk"), "gives risk, words; did you mean risk?"),
        (("evaluate", "--set", "model.output=rsk"), "gives risk, words; did you mean risk?"),
        (("inspect", "--set", "model.target=nowhere:x"), "there is no module 'nowhere'"),
        (("evaluate", "--set", "data.target=patients:Pat"), "did you mean 'Patients'?"),
        (("samples", "--dataroot", "/x"), "unknown key data.dataroot"),
    ):
        done = lmd(*arguments, "--config", "risk.yaml")
        assert done.exit_code == 2, done.output
        assert said in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "decompose", "inspect"])
def test_infinite_features_name_modality_and_sample(lmd: Lmd, command: str):
    done = lmd(command, "-c", "risk.yaml", "--set", "data.options.broken=patient-0")
    assert done.exit_code == 2, done.output
    assert "Risk.encode: blood at sample patient-0 holds" in done.stderr


def test_check_lists_a_failure_of_the_networks_own(lmd: Lmd):
    done = lmd("check", "-c", "risk.yaml", "--set", "data.options.broken=patient-0")
    assert done.exit_code == 1
    assert "blood at sample patient-0 holds" in done.output


def test_inspect_lists_every_operation(lmd: Lmd):
    done = lmd("inspect", "-c", "risk.yaml")
    assert done.exit_code == 0, done.output
    assert "every one has a rule" in done.stdout
    assert "_transformer_encoder_layer_fwd" in done.stdout  # torch runs it as one


def test_inspect_ends_with_1_at_a_gap_and_says_what_would_fill_it(lmd: Lmd):
    gap = ("--set", "model.options.gap=true")
    done = lmd("inspect", "-c", "risk.yaml", *gap)
    assert done.exit_code == 1
    assert "gap: torch.lgamma in (root)" in done.stdout
    assert "fill it with: @register_rule(torch.lgamma)" in done.stdout
    done = lmd("inspect", "-c", "risk.yaml", *gap, "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["values"]["gaps"] == 1
    (row,) = [row for row in document["tables"]["operations"] if row["kind"] == "gap"]
    assert (row["operation"], row["register"]) == ("torch.lgamma", "@register_rule(torch.lgamma)")


def test_a_rule_registered_in_the_targets_module_fills_the_gap(lmd: Lmd):
    rule = """
from lmd_cli import register_rule
from lmd_cli.decomposition.maps import slope


@register_rule(torch.lgamma, equation="my own")
def log_gamma(call, input):
    total = call.plain()
    return total, slope(total / input)
"""
    Path("ruled.py").write_text(Path("patients.py").read_text() + rule)
    settings = ("--set", "model.target=ruled:Risk", "--set", "model.options.gap=true")
    try:
        done = lmd("inspect", "-c", "risk.yaml", *settings)
        assert done.exit_code == 0, done.output
        assert "my own" in done.stdout
    finally:
        unregister_rule(torch.lgamma)
