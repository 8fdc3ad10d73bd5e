"""Locates the program's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "LMD_CACHE"


def cache_folder() -> Path:
    """The user's cache folder of this program; environment variable ``LMD_CACHE`` overrides it."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("lmd-cli"))
