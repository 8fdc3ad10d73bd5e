"""Experiment trackers behind one interface, each through its own library.

Where a tracker sends its data is its own affair (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``); where
nothing says otherwise, TensorBoard and MLflow write below the folder given.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from PIL import Image

from lmd_cli.errors import ConfigError

PROJECT = "lmd"


class Tracker(Protocol):
    """One run in a tracker."""

    def scalars(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers by name, at a step."""

    def figure(self, name: str, png: bytes) -> None:
        """A picture."""

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """A table."""

    def close(self) -> None:
        """Ends the run; everything is written then."""


class TensorBoard:
    """Event files under ``FOLDER/tensorboard``; tables are text."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("config", f"    {json.dumps(config, indent=4)}")

    def scalars(self, values: Mapping[str, float], step: int = 0) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def figure(self, name: str, png: bytes) -> None:
        self._writer.add_image(name, np.asarray(_image(png)), dataformats="HWC")

    def table(self, name: str, frame: pd.DataFrame) -> None:
        rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
        lines = ("| " + " | ".join(map(str, row)) + " |" for row in rows)
        self._writer.add_text(name, "\n".join(lines))

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project ``lmd`` (or ``WANDB_PROJECT``); its files lie under ``FOLDER/wandb``."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]):
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        try:
            self._run: Any = wandb.init(
                project=project, name=name, dir=str(folder), config=dict(config)
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"wandb: {error}; log in with `wandb login`, or set WANDB_MODE=offline"
            ) from None
        self._image, self._table = wandb.Image, wandb.Table

    def scalars(self, values: Mapping[str, float], step: int = 0) -> None:
        self._run.log(dict(values), step=step, commit=True)

    def figure(self, name: str, png: bytes) -> None:
        self._run.log({name: self._image(_image(png))})

    def table(self, name: str, frame: pd.DataFrame) -> None:
        self._run.log({name: self._table(dataframe=frame.astype(object))})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of the experiment ``lmd`` (or ``MLFLOW_EXPERIMENT_NAME``); without
    ``MLFLOW_TRACKING_URI`` in ``FOLDER/mlflow/mlflow.db``."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]):
        from mlflow import MlflowClient

        own = "MLFLOW_TRACKING_URI" not in os.environ
        store = folder.resolve() / "mlflow"
        if own:
            store.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}" if own else None)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        place = (store / "artifacts").as_uri() if own else None
        known = self._client.get_experiment_by_name(experiment)
        number = (
            self._client.create_experiment(experiment, artifact_location=place)
            if known is None
            else known.experiment_id
        )
        self._run = self._client.create_run(number, run_name=name).info.run_id
        self._client.log_dict(self._run, dict(config), "config.json")

    def scalars(self, values: Mapping[str, float], step: int = 0) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, _plain(name), value, step=step)

    def figure(self, name: str, png: bytes) -> None:
        self._client.log_image(self._run, _image(png), f"{_plain(name)}.png")

    def table(self, name: str, frame: pd.DataFrame) -> None:
        self._client.log_table(self._run, frame.astype(object), f"{_plain(name)}.json")

    def close(self) -> None:
        self._client.set_terminated(self._run)


#: By name: what makes one of (folder, name of the run, config), and the modules that it needs.
TRACKERS: dict[str, tuple[Callable[[Path, str, Mapping[str, Any]], Tracker], tuple[str, ...]]] = {
    "tensorboard": (TensorBoard, ("tensorboard",)),
    "wandb": (WeightsAndBiases, ("wandb",)),
    "mlflow": (MLflow, ("mlflow", "sqlalchemy", "alembic")),
}


def require_tracker(kind: str) -> None:
    """Refuses a tracker that could not be opened, before anything is computed.

    Raises:
        ConfigError: it is unknown or not installed; says how to install it.
    """
    if kind not in TRACKERS:
        raise ConfigError(f"tracker {kind!r} is not one of {', '.join(TRACKERS)}")
    missing = [module for module in TRACKERS[kind][1] if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"{kind} needs {' and '.join(missing)}, not installed here: "
            f"pip install 'lmd-cli[{kind}]'"
        )


def open_tracker(
    kind: str, folder: str | Path, name: str = "run", config: Mapping[str, Any] | None = None
) -> Tracker:
    """A run in a tracker.

    Args:
        kind: ``tensorboard``, ``wandb`` or ``mlflow``.
        folder: where files go.
        name: of the run.
        config: plain values that belong to it.

    Raises:
        ConfigError: as :func:`require_tracker`; wandb is not logged in.
    """
    require_tracker(kind)
    return TRACKERS[kind][0](Path(folder), name, config or {})


def _image(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def _plain(name: str) -> str:
    """With the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
