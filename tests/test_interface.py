"""What ``import lmd_cli`` gives, and when it is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lmd_cli


def test_dir_lists_the_interface_and_every_name_is_there() -> None:
    assert dir(lmd_cli) == sorted([*lmd_cli.__all__, "__version__"])
    wanted = {"decompose", "evaluate", "load", "load_run", "sample", "TrainingCallback"}
    assert wanted < set(dir(lmd_cli))
    for name in dir(lmd_cli):
        assert getattr(lmd_cli, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'decomposed'"):
        _ = lmd_cli.decomposed


def test_names_alone_import_nothing() -> None:
    code = "import sys, lmd_cli; dir(lmd_cli); print(lmd_cli.__version__); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version == lmd_cli.__version__
    assert not {"torch", "numpy", "pandas", "matplotlib"} & set(modules.split())
