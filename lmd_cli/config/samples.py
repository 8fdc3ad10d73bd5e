"""The ``samples`` section of the YAML: which of the data's samples."""

from __future__ import annotations

from lmd_cli.config.base import Section, option
from lmd_cli.config.data import Names


class SamplesConfig(Section):
    """Which samples of the split: those that meet every condition that is set."""

    scenes: Names | None = option(
        "only samples of these scenes", "a list of scenes such as [scene-0103]", None
    )
    tokens: Names | None = option("only these samples", "a list of sample tokens", None)
    night: bool | None = option(
        "only scenes whose description says night, or only the others", "true or false", None
    )
    rain: bool | None = option(
        "only scenes whose description says rain, or only the others", "true or false", None
    )

    @property
    def chooses(self) -> bool:
        """Whether any condition is set."""
        return any(value is not None for value in (self.scenes, self.tokens, self.night, self.rain))
