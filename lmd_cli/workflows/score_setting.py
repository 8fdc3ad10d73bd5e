"""What ``lmd score`` works on, resolved once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from lmd_cli.assembly.build import BuiltNetwork
from lmd_cli.attribution import Method
from lmd_cli.config.schema import RunConfig
from lmd_cli.data import RemovalSettings
from lmd_cli.evaluation.interventions import Interventions
from lmd_cli.evaluation.planted import PlantedGroundTruth
from lmd_cli.runtime.stopwatch import Stopwatch
from lmd_cli.workflows.ground_truth_choice import ChosenGroundTruth


@dataclass(frozen=True)
class Setting:
    """What is scored, resolved once; ``strict`` if every method must explain the network.

    ``planted``: false alarms whose sensor is known, if the data has any.
    """

    config: RunConfig
    built: BuiltNetwork
    dataset: Any
    device: torch.device
    truth: ChosenGroundTruth
    threads: int
    methods: list[Method]
    strict: bool
    removal: RemovalSettings
    planted: PlantedGroundTruth | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def interventions(self) -> Interventions | None:
        """How objects are taken out of the data, if they are."""
        if not self.truth.intervenes:
            return None
        return Interventions(
            *(self.built.network, self.dataset, self.truth.objects, self.output),
            *(self.removal, self.device, self.config.compute.precision),
        )

    @property
    def output(self) -> str:
        """The output that is explained."""
        return self.config.model.output
