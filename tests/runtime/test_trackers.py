"""Trackers, offline, read back through their own libraries."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from lmd_cli.errors import ConfigError
from lmd_cli.runtime import trackers
from lmd_cli.runtime.trackers import open_tracker, require_tracker

TABLE = pd.DataFrame({"variant": ["identity-ratio"], "pcc_mean": [0.25]})


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def write(kind: str, folder: Path) -> None:
    tracker = open_tracker(kind, folder, "tiny", {"seed": 3})
    tracker.scalars({"C_p+R_p/L/pcc": 0.5, "loss": 2.0}, step=0)
    tracker.scalars({"loss": 1.0}, step=1)
    tracker.table("metrics", TABLE)
    tracker.figure("decomposition/signed", png())
    tracker.close()


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(0, 2.0), (1, 1.0)]
    assert events.Scalars("C_p+R_p/L/pcc")[0].value == 0.5
    image = events.Images("decomposition/signed")[0]
    assert (image.width, image.height) == (6, 4)
    text = events.Tensors("metrics/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines()[-1] == "| identity-ratio | 0.25 |"


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    seen: dict[str, Any] = {}
    init, finish = wandb.init, wandb.Run.finish

    def recorded(**options: Any) -> Any:
        seen.update(options)
        return init(**options)

    def finished(run: Any) -> None:
        seen["summary"] = dict(run.summary)
        finish(run)

    monkeypatch.setattr(wandb, "init", recorded)
    monkeypatch.setattr(wandb.Run, "finish", finished)
    write("wandb", tmp_path)
    assert (seen["project"], seen["name"], seen["config"]) == ("lmd", "tiny", {"seed": 3})
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert len(list(run.glob("*.wandb"))) == 1
    (picture,) = run.glob("files/media/images/decomposition/*.png")
    assert Image.open(picture).size == (6, 4)
    (table,) = run.glob("files/media/table/metrics*.json")
    assert json.loads(table.read_text())["data"] == [["identity-ratio", 0.25]]
    assert seen["summary"]["loss"] == 1.0
    assert seen["summary"]["C_p+R_p/L/pcc"] == 0.5


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write("mlflow", tmp_path)
    write("mlflow", tmp_path)  # a second run of the same experiment
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("lmd")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    run = runs[0]
    assert run.info.run_name == "tiny"
    assert run.data.metrics == {"C_p_R_p/L/pcc": 0.5, "loss": 1.0}
    steps = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in steps] == [(0, 2.0), (1, 1.0)]
    (picture,) = tmp_path.glob(f"mlflow/artifacts/{run.info.run_id}/**/signed.png")
    assert Image.open(picture).size == (6, 4)
    (config,) = tmp_path.glob(f"mlflow/artifacts/{run.info.run_id}/**/config.json")
    assert json.loads(config.read_text()) == {"seed": 3}
    (table,) = tmp_path.glob(f"mlflow/artifacts/{run.info.run_id}/**/metrics.json")
    assert json.loads(table.read_text())["data"] == [["identity-ratio", 0.25]]


def test_what_is_not_installed_is_said_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        require_tracker("mlflow")
    assert str(error.value) == (
        "mlflow needs mlflow and sqlalchemy and alembic, not installed here: "
        "pip install 'lmd-cli[mlflow]'"
    )
    with pytest.raises(ConfigError, match="'comet' is not one of tensorboard, wandb, mlflow"):
        require_tracker("comet")
