"""Which samples of a data set are chosen: by scene, token, and what a scene's description says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from lmd_cli.config.samples import SamplesConfig
from lmd_cli.errors import ConfigError


@dataclass(frozen=True)
class Weather:
    """What a scene's description says in so many words; what it does not say is ``False``."""

    rain: bool
    night: bool

    @classmethod
    def of(cls, description: str) -> Weather:
        """``rain`` and ``night`` as words or the start of words (``raining``), in any case."""
        matches = (re.search(rf"\b{word}", description, re.I) for word in ("rain", "night"))
        return cls(*(match is not None for match in matches))


def chosen_rows(
    config: SamplesConfig,
    tokens: Sequence[str],
    scenes: Sequence[str],
    descriptions: Sequence[str],
) -> list[int]:
    """Numbers of the samples that meet every condition, in their order.

    Args:
        config: the conditions.
        tokens, scenes, descriptions: of every sample.

    Raises:
        ConfigError: a scene or token that is not there (names a near one), or conditions that no
            sample meets.
    """
    _require_known("samples.scenes", config.scenes, scenes)
    _require_known("samples.tokens", config.tokens, tokens)
    scenes_wanted, tokens_wanted = (
        None if names is None else set(names) for names in (config.scenes, config.tokens)
    )
    rows = [
        row
        for row, (token, scene, text) in enumerate(zip(tokens, scenes, descriptions, strict=True))
        if (scenes_wanted is None or scene in scenes_wanted)
        and (tokens_wanted is None or token in tokens_wanted)
        and config.night in (None, Weather.of(text).night)
        and config.rain in (None, Weather.of(text).rain)
    ]
    if not rows:
        weather = [Weather.of(text) for text in descriptions]
        raise ConfigError(
            f"samples: none of the {len(tokens)} samples is chosen; "
            f"{sum(w.night for w in weather)} are at night, {sum(w.rain for w in weather)} in rain "
            "by their scenes' descriptions. List them with: lmd samples --config CONFIG"
        )
    return rows


def _require_known(key: str, wanted: Sequence[str] | None, known: Sequence[str]) -> None:
    there = set(known)
    for name in wanted or ():
        if name not in there:
            near = get_close_matches(name, there, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{key}: {name} is not among the split's{hint}. List them with: lmd samples "
                "--config CONFIG"
            )
