"""``lmd convert``."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.calling import Lmd


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As Lightning writes it, with hyper-parameters that the safe loader refuses."""
    path = tmp_path / "crn.ckpt"
    content = {"state_dict": {"model.w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}
    torch.save(content, path)
    return path


def test_convert_says_what_it_did(lmd: Lmd, checkpoint: Path):
    result = lmd("convert", checkpoint, "out.safetensors")
    assert result.exit_code == 0, result.output
    before, after = (
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (checkpoint, Path("out.safetensors"))
    )
    assert result.stdout.splitlines() == [
        "1 tensors written to out.safetensors",
        "left out (not built): argparse.Namespace",
        "entries that are not weights: args",
        f"sha256 of {checkpoint}: {before}",
        f"sha256 of out.safetensors: {after}",
    ]
    assert torch.equal(load_file("out.safetensors")["w"], torch.ones(2))


def test_nothing_is_overwritten_unless_told(lmd: Lmd, checkpoint: Path):
    out = Path("out.safetensors")
    out.write_bytes(b"kept")
    result = lmd("convert", checkpoint, out)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: output out.safetensors exists: ")
    assert "--overwrite" in result.stderr
    assert out.read_bytes() == b"kept"
    assert lmd("convert", checkpoint, out, "--overwrite").exit_code == 0
    assert list(load_file(out)) == ["w"]


def test_bad_input(lmd: Lmd, checkpoint: Path):
    Path("cut.ckpt").write_bytes(checkpoint.read_bytes()[:-1])
    Path("page.ckpt").write_text("<!DOCTYPE html><p>404")
    torch.save({"epoch": 3}, "empty.ckpt")
    cases = {
        "absent.ckpt": "checkpoint absent.ckpt does not exist",
        "cut.ckpt": "checkpoint cut.ckpt (",
        "page.ckpt": "checkpoint page.ckpt (",
        "empty.ckpt": "checkpoint empty.ckpt holds no tensors",
    }
    for name, message in cases.items():
        result = lmd("convert", name, "out.safetensors")
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith(f"error: {message}")
        assert not Path("out.safetensors").exists()
    assert lmd("convert", checkpoint).exit_code == 2
