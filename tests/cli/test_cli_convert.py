"""``lmd convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from calling import Lmd


def test_convert_says_what_it_did(lmd: Lmd, tmp_path: Path):
    path = tmp_path / "crn.ckpt"
    content = {"state_dict": {"model.w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}
    torch.save(content, path)
    result = lmd("convert", path, tmp_path / "out.safetensors")
    assert result.exit_code == 0
    assert "1 tensors written" in result.stdout
    assert "left out (not built): argparse.Namespace" in result.stdout
    again = lmd("convert", path, tmp_path / "out.safetensors")
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr
