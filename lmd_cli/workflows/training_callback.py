"""A callback that evaluates a network while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from torch import nn

from lmd_cli.workflows.in_memory import Evaluation, evaluate


class TrainingCallback:
    """Evaluates a network while it is trained: call it at the end of each epoch.

    Training goes on as it would without it: weights, running statistics, modes and torch's random
    numbers are left alone.

    Args:
        loader: as ``lmd_cli.evaluate``'s; a few samples are enough.
        every: evaluate at every so many steps, counted from 0.
        log: called with ``Evaluation.scalars`` and the step, such as ``tracker.scalars``.
        options: further arguments of ``lmd_cli.evaluate``.

    Attributes:
        evaluations: by step.
    """

    def __init__(
        self,
        loader: Any,
        *,
        every: int = 1,
        log: Callable[[dict[str, float], int], None] | None = None,
        **options: Any,
    ):
        self._loader, self._every, self._log, self._options = loader, every, log, options
        self.evaluations: dict[int, Evaluation] = {}

    def __call__(self, network: nn.Module, step: int) -> Evaluation | None:
        """Evaluates if the step's turn has come.

        Args:
            network: in any mode.
            step: of an epoch or batch, from 0.

        Raises:
            LmdError: as ``lmd_cli.evaluate``.
        """
        if step % self._every:
            return None
        done = self.evaluations[step] = evaluate(network, self._loader, **self._options)
        if self._log is not None:
            self._log(done.scalars(), step)
        return done

    @property
    def history(self) -> pd.DataFrame:
        """One row for each evaluated step: the columns of ``Evaluation.scalars``."""
        rows = {step: done.scalars() for step, done in self.evaluations.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")
