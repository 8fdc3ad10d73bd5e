"""The training loop of the demo networks: seeded, resumable after every epoch."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Log = Callable[[str], None]
FrameT = TypeVar("FrameT")
NetworkT = TypeVar("NetworkT", bound=nn.Module)
_say = partial(print, flush=True)


@dataclass(frozen=True)
class Recipe:
    """How to train; networks add what their losses need.

    Attributes:
        epochs, batch: passes over the frames, frames per step.
        peak_rate: highest learning rate of the one-cycle schedule (AdamW).
        weight_decay: of AdamW.
        seed: seeds weights, order, mirroring and dropout.
    """

    epochs: int = 12
    batch: int = 2
    peak_rate: float = 3e-3
    weight_decay: float = 1e-4
    seed: int = 0


RecipeT = TypeVar("RecipeT", bound=Recipe)


class Loop(ABC, Generic[NetworkT, FrameT, RecipeT]):
    """Trains ``network`` on ``frames``; state is kept in ``checkpoint`` after every epoch.

    What is random in an epoch is drawn from a generator seeded by (seed, epoch), so that a run
    that was interrupted ends with the same weights as one that was not.
    """

    def __init__(
        self,
        network: NetworkT,
        frames: Sequence[FrameT],
        recipe: RecipeT,
        checkpoint: Path,
        log: Log = _say,
    ):
        self.frames, self.recipe = frames, recipe
        self.checkpoint, self.log = checkpoint, log
        self.network = network
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay
        )
        self.steps = math.ceil(len(frames) / recipe.batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, recipe.peak_rate, recipe.epochs * self.steps + 1, pct_start=0.15
        )
        self.epoch, self.seconds = 0, 0.0

    @abstractmethod
    def loss(self, chosen: Sequence[FrameT], mirror: bool, drop: float) -> Tensor:
        """The loss of one step.

        Args:
            chosen: the step's frames.
            mirror: take their mirror images.
            drop: in [0, 1), uniformly random; for the recipe's sensor dropout.
        """

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            ValueError: it was written by a run with another recipe or number of frames.
        """
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        if state["run"] != self._run():
            raise ValueError(f"{self.checkpoint} is of another run: {state['run']}")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]

    def train(
        self, until: int | None = None, after_epoch: Callable[[], None] | None = None
    ) -> None:
        """Train up to epoch ``until`` (the recipe's last if None)."""
        last = self.recipe.epochs if until is None else until
        while self.epoch < last:
            start = time.perf_counter()
            loss = self._run_epoch()
            self.epoch += 1
            self.seconds += time.perf_counter() - start
            self._save()
            self.log(f"epoch {self.epoch}: loss {loss:.4f}, {self.seconds:.0f} s of training")
            if after_epoch is not None:
                after_epoch()

    def _run(self) -> dict[str, Any]:
        return {**asdict(self.recipe), "frames": len(self.frames)}

    def _run_epoch(self) -> float:
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.frames), generator=generator).tolist()
        self.network.train()
        total = 0.0
        for step in range(self.steps):
            mirror, drop = torch.rand(2, generator=generator).tolist()
            chosen = order[step * self.recipe.batch : (step + 1) * self.recipe.batch]
            total += self._step(self.loss([self.frames[i] for i in chosen], mirror < 0.5, drop))
        return total / self.steps

    def _step(self, loss: Tensor) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        return loss.item()

    def _save(self) -> None:
        state = {
            "run": self._run(),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        draft = self.checkpoint.with_suffix(".draft")
        torch.save(state, draft)
        draft.replace(self.checkpoint)


#: A loop of any network.
AnyLoop = Loop[Any, Any, Any]
