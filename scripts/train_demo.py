"""Train the demo network on the synthetic world and write its weights and model card.

    python scripts/train_demo.py

Makes the synthetic roots in the cache folder on first use, trains on the CPU, and goes on where
it was interrupted (its checkpoint lies in ``--state``). Writes ``demo_radar_cam.safetensors`` and
``demo_radar_cam.md`` into ``--output``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from demo_card import Facts, card
from demo_frames import load_frames
from demo_scoring import CONDITIONS, evaluate
from demo_training import Recipe, Trainer
from safetensors.torch import save_file

from lmd_cli.data import NuScenesSamples
from lmd_cli.data.synthetic import cached_root, demo_root
from lmd_cli.data.synthetic.root import cache_folder
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV, SimpleBEVWidths
from lmd_cli.networks.checkpoints import file_sha256, load_checkpoint

NAME = "demo_radar_cam"
IMAGE_SIZE = (128, 224)
GRID = Grid((100, 8, 100))
NSWEEPS = 5
WIDTHS = SimpleBEVWidths(
    latent=20,
    stem=16,
    encoder_blocks=(1, 1, 1),
    upsampling=32,
    decoder=32,
    decoder_blocks=(1, 1, 1),
)
#: Worlds (seeds) and keyframes per scene: 4 x 8 x 16 = 512 frames.
SEEDS, SAMPLES = (0, 1, 2, 3), 16


def build() -> SimpleBEV:
    """The demo network, untrained."""
    return SimpleBEV(
        ("camera", "radar"), grid=GRID, encoder="res50", radar="metaradar", widths=WIDTHS
    )


def describe() -> dict[str, object]:
    """The configuration as a YAML config spells it."""
    return {
        "modalities": ["camera", "radar"],
        "encoder": "res50",
        "radar": "metaradar",
        "image_size": list(IMAGE_SIZE),
        "grid": list(GRID.size),
        "nsweeps": NSWEEPS,
        "widths": asdict(WIDTHS),
    }


def training_roots(cache: Path) -> list[Path]:
    """The synthetic ``mini_train`` of every seed, made if it is not there."""
    return [
        cached_root("mini_train", SAMPLES, seed=seed, cache_dir=cache, progress=_progress)
        for seed in SEEDS
    ]


def _progress(done: int, total: int) -> None:
    print(f"\rmaking data: {done} of {total}", end="\n" if done == total else "", flush=True)


def write(network: SimpleBEV, trainer: Trainer, arguments: argparse.Namespace) -> Path:
    """Save the weights, score them as they were saved, and write the card."""
    path = Path(arguments.output) / f"{NAME}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    path.chmod(0o644)  # safetensors leaves it to its owner alone
    load_checkpoint(path, network)
    data = NuScenesSamples(
        demo_root(arguments.cache, _progress),
        "v1.0-mini",
        "mini_val",
        modalities=("camera", "radar"),
        nsweeps=NSWEEPS,
        image_size=IMAGE_SIZE,
        grid=GRID,
    )
    scores = evaluate(network, data)
    text = card(_facts(path, network, trainer, len(data)), trainer.recipe, scores)
    path.with_suffix(".md").write_text(text)
    for condition, title in CONDITIONS.items():
        print(f"{title}: IoU {scores[condition].iou:.3f}")
    return path


def _facts(path: Path, network: SimpleBEV, trainer: Trainer, samples: int) -> Facts:
    return Facts(
        file=path.name,
        sha256=file_sha256(path),
        size=path.stat().st_size,
        parameters=sum(p.numel() for p in network.parameters()),
        model=describe(),
        data=f"synthetic `mini_train`, 8 scenes x {SAMPLES} samples, worlds of seed "
        f"{SEEDS[0]} to {SEEDS[-1]}",
        frames=len(trainer.frames),
        minutes=trainer.seconds / 60,
        threads=torch.get_num_threads(),
        command="python scripts/train_demo.py",
        validation=f"synthetic `mini_val`, {samples} samples, seed 0",
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    models = Path(__file__).resolve().parents[1] / "models"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=models, help="folder for weights and card")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="folder for the data")
    parser.add_argument("--state", type=Path, default=None, help="checkpoint to go on from")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train, score and write; returns the exit code."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    frames, calibration = load_frames(
        training_roots(arguments.cache),
        "mini_train",
        nsweeps=NSWEEPS,
        image_size=IMAGE_SIZE,
        grid=GRID,
    )
    network = build()
    recipe = Recipe(epochs=arguments.epochs, seed=arguments.seed)
    state = arguments.state or arguments.cache / f"{NAME}-seed{recipe.seed}.training"
    trainer = Trainer(network, frames, calibration, recipe, state)
    trainer.resume()
    trainer.train()
    print(f"wrote {write(network, trainer, arguments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
