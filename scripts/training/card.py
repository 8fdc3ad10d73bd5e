"""The model card of demo weights, from measured values."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lmd_cli.data.simplebev.samples import MODALITIES
from training.conditions import Tally, classes, conditions, title
from training.loop import Recipe

_PACKAGES = ("torch", "numpy", "opencv-python-headless", "nuscenes-devkit", "safetensors")


@dataclass(frozen=True)
class Facts:
    """What the card tells besides the scores.

    Attributes:
        file: name of the weights' file.
        network: what it is, in words.
        modalities: the network's sensors.
        sha256, size: of that file; ``size`` in bytes.
        parameters: number of them.
        model: the configuration, key -> value, as in a YAML config.
        data: the training data, in words.
        loss: in words.
        frames: number of training frames.
        minutes: training alone, without making and loading the data.
        threads: CPU threads.
        command: how to make it again.
        validation: the validation data, in words.
        metric: name of the main score.
        definitions: of the scores, in words.
    """

    file: str
    network: str
    modalities: tuple[str, ...]
    sha256: str
    size: int
    parameters: int
    model: dict[str, object]
    data: str
    loss: str
    frames: int
    minutes: float
    threads: int
    command: str
    validation: str
    metric: str
    definitions: str


def card(facts: Facts, recipe: Recipe, scores: Mapping[str, Tally]) -> str:
    """The card in Markdown."""
    sensors = " + ".join(title(name) for name in facts.modalities)
    parts = [
        f"# {facts.file}",
        f"A small {facts.network} ({sensors}) for the demo and the tests. It knows the synthetic "
        "world only: do not use it on real data.",
        _section("Weights", _weights(facts)),
        _section("Model", {key: f"`{value}`" for key, value in facts.model.items()}),
        _section("Training", _training(facts, recipe)),
        _scores(facts, scores),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, rows: dict[str, object]) -> str:
    lines = [f"- {key}: {value}" for key, value in rows.items()]
    return f"## {title}\n" + "\n".join(lines)


def _weights(facts: Facts) -> dict[str, object]:
    return {
        "file": f"`{facts.file}`, {facts.size} bytes, float32 safetensors",
        "sha256": f"`{facts.sha256}`",
        "parameters": facts.parameters,
    }


def _training(facts: Facts, recipe: Recipe) -> dict[str, object]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return {
        "data": f"{facts.data} ({facts.frames} frames, half of the steps on their mirror images)",
        "command": f"`{facts.command}`",
        "recipe": ", ".join(f"{key} {value}" for key, value in asdict(recipe).items()),
        "loss": facts.loss,
        "time": f"{facts.minutes:.0f} minutes on a CPU, {facts.threads} thread(s)",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def _scores(facts: Facts, scores: Mapping[str, Tally]) -> str:
    names = [name for name in classes(facts.modalities) if scores[""].detected[name]]
    counts = [len(scores[""].detected[name]) for name in names]
    head = "".join(f" recall, {n} ({k}) |" for n, k in zip(names, counts, strict=True))
    rows = [f"| | {facts.metric} |{head}", "|---|---|" + "---|" * len(names)]
    for condition, label in conditions(facts.modalities).items():
        score = scores[condition]
        recalls = "".join(f" {score.recall(name):.2f} |" for name in names)
        rows.append(f"| {label} | {score.figure:.3f} |{recalls}")
    beyond = [title(name) for name in MODALITIES if name not in facts.modalities]
    note = f" {beyond[0]}-only vehicles are beyond this network's sensors." if beyond else ""
    note = note.replace(" radar", " Radar")
    return f"## Scores on {facts.validation}\n" + "\n".join(rows) + f"\n\n{facts.definitions}{note}"
