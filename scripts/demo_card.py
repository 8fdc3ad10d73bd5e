"""The model card of demo weights, from measured values."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass

from demo_classes import classes, conditions, title
from demo_loop import Recipe
from demo_scoring import Score

_PACKAGES = ("torch", "numpy", "opencv-python-headless", "nuscenes-devkit", "safetensors")
_BEYOND: dict[tuple[str, ...], str] = {
    ("camera", "radar"): " LiDAR-only vehicles are beyond this network's sensors.",
    ("camera", "lidar"): " Radar-only vehicles are beyond this network's sensors.",
}


@dataclass(frozen=True)
class Facts:
    """What the card tells besides the scores.

    Attributes:
        file: name of the weights' file.
        modalities: the network's sensors.
        sha256, size: of that file; ``size`` in bytes.
        parameters: number of them.
        model: the configuration, key -> value, as in a YAML config.
        data: the training data, in words.
        frames: number of training frames.
        minutes: training alone, without making and loading the data.
        threads: CPU threads.
        command: how to make it again.
        validation: the validation data, in words.
    """

    file: str
    modalities: tuple[str, ...]
    sha256: str
    size: int
    parameters: int
    model: dict[str, object]
    data: str
    frames: int
    minutes: float
    threads: int
    command: str
    validation: str


def card(facts: Facts, recipe: Recipe, scores: dict[str, Score]) -> str:
    """The card in Markdown."""
    sensors = " + ".join(title(name) for name in facts.modalities)
    parts = [
        f"# {facts.file}",
        f"A small SimpleBEV ({sensors}) for the demo and the tests. It knows the synthetic "
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
        "loss": "upstream's: cross-entropy inside `valid`, centre and offset, learnt weights",
        "time": f"{facts.minutes:.0f} minutes on a CPU, {facts.threads} thread(s)",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def _scores(facts: Facts, scores: dict[str, Score]) -> str:
    names = [name for name in classes(facts.modalities) if scores[""].found[name]]
    counts = [len(scores[""].found[name]) for name in names]
    head = "".join(f" recall, {n} ({k}) |" for n, k in zip(names, counts, strict=True))
    rows = [f"| | vehicle IoU |{head}", "|---|---|" + "---|" * len(names)]
    for condition, label in conditions(facts.modalities).items():
        score = scores[condition]
        recalls = "".join(f" {score.recall(name):.2f} |" for name in names)
        rows.append(f"| {label} | {score.iou:.3f} |{recalls}")
    definitions = (
        "IoU: at probability > 0.5 inside `valid` (visibility 1 is left out), intersections and "
        "unions summed over the split. Recall by the sensors that can see a vehicle (how many in "
        "brackets): found if the mean probability over its footprint's cells exceeds 0.5; "
        "visibility 1 left out. Zeroed: the sensor's encoded features are zero. BatchNorm in "
        f"evaluation mode.{_BEYOND.get(facts.modalities, '')}"
    )
    return f"## Scores on {facts.validation}\n" + "\n".join(rows) + f"\n\n{definitions}"
