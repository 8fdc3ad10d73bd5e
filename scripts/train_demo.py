"""Train a demo network on the synthetic world and write its weights and model card.

    python scripts/train_demo.py                     # camera + radar
    python scripts/train_demo.py --model lidar_cam   # see training.demos.DEMOS

Makes the synthetic roots in the cache folder on first use, trains on the CPU, and goes on where
it was interrupted (its checkpoint lies in ``--state``). Writes ``demo_MODEL.safetensors`` and
``demo_MODEL.md`` into ``--output``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from training.card import Facts, card
from training.conditions import conditions
from training.demos import DEFAULT, DEMOS, Demo
from training.loop import AnyLoop

from lmd_cli.data.synthetic import cached_root, demo_root
from lmd_cli.data.synthetic.root import DEMO_SAMPLES, cache_folder
from lmd_cli.networks.checkpoints.loading import file_sha256, load_checkpoint

#: Worlds (seeds) and keyframes per scene: 4 x 8 x 16 = 512 frames.
SEEDS, SAMPLES = (0, 1, 2, 3), 16


def training_roots(cache: Path) -> list[Path]:
    """The synthetic ``mini_train`` of every seed, made if it is not there."""
    return [
        cached_root("mini_train", SAMPLES, seed=seed, cache_dir=cache, progress=_progress)
        for seed in SEEDS
    ]


def _progress(done: int, total: int) -> None:
    print(f"\rmaking data: {done} of {total}", end="\n" if done == total else "", flush=True)


def write(demo: Demo, trainer: AnyLoop, arguments: argparse.Namespace) -> Path:
    """Save the weights, score them as they were saved, and write the card."""
    path = Path(arguments.output) / f"{demo.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    network = trainer.network
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    path.chmod(0o644)  # safetensors leaves it to its owner alone
    load_checkpoint(path, network)
    scores = demo.evaluate(network, demo_root(arguments.cache, _progress))
    text = card(_facts(demo, path, trainer), trainer.recipe, scores)
    path.with_suffix(".md").write_text(text)
    for condition, title in conditions(demo.modalities).items():
        print(f"{title}: {demo.metric} {scores[condition].figure:.3f}")
    return path


def _facts(demo: Demo, path: Path, trainer: AnyLoop) -> Facts:
    return Facts(
        file=path.name,
        network=demo.network,
        modalities=demo.modalities,
        sha256=file_sha256(path),
        size=path.stat().st_size,
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        model=demo.describe(),
        data=f"synthetic `mini_train`, 8 scenes x {SAMPLES} samples, worlds of seed "
        f"{SEEDS[0]} to {SEEDS[-1]}",
        loss=demo.loss,
        frames=len(trainer.frames),
        minutes=trainer.seconds / 60,
        threads=torch.get_num_threads(),
        command=demo.command,
        validation=f"synthetic `mini_val`, {2 * DEMO_SAMPLES} samples, seed 0",
        metric=demo.metric,
        definitions=demo.definitions,
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    models = Path(__file__).resolve().parents[1] / "models"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=DEMOS, default=DEFAULT, help="which demo network")
    parser.add_argument("--output", type=Path, default=models, help="folder for weights and card")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="folder for the data")
    parser.add_argument("--state", type=Path, default=None, help="checkpoint to go on from")
    parser.add_argument("--epochs", type=int, default=None, help="default: the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train, score and write; returns the exit code."""
    arguments = parse(argv)
    demo = DEMOS[arguments.model]
    torch.set_num_threads(arguments.threads)
    state = arguments.state or arguments.cache / f"{demo.name}-seed{arguments.seed}.training"
    roots = training_roots(arguments.cache)
    trainer = demo.trainer(roots, arguments.epochs or demo.epochs, arguments.seed, state)
    trainer.resume()
    trainer.train()
    print(f"wrote {write(demo, trainer, arguments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
