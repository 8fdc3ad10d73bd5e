"""A config beside a module of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from tests.support.custom_module import MODULE


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Makes a config beside a module ``mine`` with changed keys."""
    (tmp_path / "mine.py").write_text(MODULE)

    def make(*settings: str) -> RunConfig:
        path = tmp_path / "mine.yaml"
        path.write_text(
            "model: {target: 'mine:Net', modalities: [a, b], output: risk}\n"
            "data: {target: 'mine:Data'}\n"
        )
        return load_config(path, settings)

    return make
