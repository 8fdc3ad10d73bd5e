"""Everything that a run needs, checked before it starts: ``lmd check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lmd_cli.build import BuiltNetwork, build_dataset, build_network
from lmd_cli.config import RunConfig
from lmd_cli.data import NuScenesSamples
from lmd_cli.decomposition import Decomposition, DecompositionError
from lmd_cli.decomposition.replay import replay, replay_deviation
from lmd_cli.errors import LmdError
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.networks import SimpleBEV
from lmd_cli.progress import Progress, Silent
from lmd_cli.single import encode, split, start

#: Largest |total - sum of parts| over max |total| at any operation, by precision.
CONSERVATION = {torch.float32: 1e-4, torch.float64: 1e-12}
#: Largest deviation of a replayed part in float64, over the largest |part|.
REPLAY = 1e-9

Status = Literal["ok", "note", "FAIL", "skipped"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Covered:
    """The rule that an operation met in a module."""

    module: str
    operation: str
    kind: str
    equation: str


@dataclass
class Preflight:
    """What :func:`preflight` found.

    Attributes:
        checks: in the order in which they were made.
        coverage: every operation that met a decomposed tensor, in order of first use.
    """

    checks: list[Check] = field(default_factory=list)
    coverage: list[Covered] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing would fail."""
        return all(check.status in ("ok", "note") for check in self.checks)

    def add(self, name: str, passed: bool, detail: str) -> None:
        """A check that can fail."""
        self.checks.append(Check(name, "ok" if passed else "FAIL", detail))

    def note(self, name: str, detail: str) -> None:
        """Something to know that stops nothing."""
        self.checks.append(Check(name, "note", detail))

    def attempt[T](self, name: str, action: Callable[[], T]) -> T | None:
        """The result of ``action``, or a failed check with its message."""
        try:
            return action()
        except (LmdError, DecompositionError) as error:
            self.add(name, False, str(error))
            return None
