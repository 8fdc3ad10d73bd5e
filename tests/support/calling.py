"""The type of the ``lmd`` fixture."""

from __future__ import annotations

from collections.abc import Callable

from typer.testing import Result

Lmd = Callable[..., Result]
