"""What scores of the demo networks share: conditions, and recall by who can see a vehicle."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmd_cli.data.simplebev.samples import MODALITIES
from lmd_cli.data.synthetic import EVIDENCE_FILE


@dataclass
class Tally(ABC):
    """What was detected in a split under one condition, by class of visibility."""

    detected: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))

    @property
    @abstractmethod
    def figure(self) -> float:
        """The network's main score, 0 to 1."""

    def recall(self, name: str) -> float:
        """Share of a class's vehicles that were detected."""
        return float(np.mean(self.detected[name])) if self.detected[name] else float("nan")


def read_evidence(dataroot: Path) -> dict[str, dict[str, Any]]:
    """What each sensor had to go by, by annotation token, of a synthetic root."""
    table: dict[str, dict[str, Any]] = json.loads(
        (dataroot / "v1.0-mini" / EVIDENCE_FILE).read_text()
    )
    return table


def conditions(modalities: Sequence[str]) -> dict[str, str]:
    """What is zeroed ("" for nothing) -> the name of the condition."""
    everything = {2: "both", 3: "all"}[len(modalities)]
    return {
        "": f"{everything} sensors",
        **{name: f"{title(name)} zeroed" for name in modalities},
    }


def classes(modalities: Sequence[str]) -> list[str]:
    """Names of the classes of visibility, in the order of the card."""
    return [
        _several(modalities),
        *(f"{title(name)} only" for name in modalities),
        _beyond(modalities),
    ]


def class_of(seen: dict[str, Any], modalities: Sequence[str]) -> str:
    """The class of a vehicle, by which of the network's sensors can see it."""
    names = [name for name in modalities if seen[name]]
    if not names:
        return _beyond(modalities)
    return f"{title(names[0])} only" if len(names) == 1 else _several(modalities)


def title(modality: str) -> str:
    """A sensor's name in prose."""
    return {"lidar": "LiDAR"}.get(modality, modality)


def _several(modalities: Sequence[str]) -> str:
    return {2: "both", 3: "several"}[len(modalities)]


def _beyond(modalities: Sequence[str]) -> str:
    others = [title(name) for name in MODALITIES if name not in modalities]
    return f"neither ({' or '.join(others)} only)" if others else "none"
