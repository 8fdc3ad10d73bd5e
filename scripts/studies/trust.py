"""Methods of attribution on fresh synthetic worlds, with paired intervals of their differences.

    python scripts/studies/trust.py --output FOLDER --seed 21 --seed 22 --seed 23

Makes a world for each seed and scores the methods on it as ``lmd score`` does; what is finished in
the folder is kept. A score is the mean over the worlds. An interval resamples whole objects of
every world and is of a difference on the same draws. Prints two tables in Markdown: each method
with its difference to exact Shapley values, the best and those that its interval does not exclude
in bold; and one method's difference on each world.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lmd_cli.attribution import method_named
from lmd_cli.config.loading import load_config
from lmd_cli.data.synthetic import synthesize
from lmd_cli.errors import MethodError
from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.evaluation.statistics import (
    Array,
    Interval,
    cluster_draws,
    clusters_of,
    percentile_interval,
)
from lmd_cli.runtime.progress import make_progress
from lmd_cli.workflows.score import score

CONFIGS = ("demo.yaml", "demo_lidar.yaml", "demo_three.yaml", "demo_crn.yaml")
EXACT, DEFAULT = "shapley", "lmd:identity-ratio-shapley"
METHODS = (
    "lmd:identity-ratio",
    DEFAULT,
    "lmd:identity-ratio-reveal",
    "lmd:identity-ratio-rescale",
    "lmd:coalitions",
    "leave-one-out",
    EXACT,
)
SCORES = ("auroc_all", "auroc_detected", "rank_correlation")
#: A score and its sensor.
Key = tuple[str, str]


class Drawn:
    """A score of one method: its estimate, then those of the resamples, ``(1 + resamples,)``.

    The same seed draws the same objects for every method.
    """

    def __init__(self, listed: Sequence[Array]):
        self.values = np.mean(listed, axis=0)  # NaN in a world where it does not exist

    @classmethod
    def of(cls, given: Score, seed: int, resamples: int) -> Drawn:
        clusters = clusters_of(given.objects)
        drawn = [math.nan] * resamples
        if clusters:
            draws = cluster_draws(len(clusters), seed, resamples)
            drawn = [given.statistic(np.concatenate([clusters[i] for i in d])) for d in draws]
        return cls([np.array([given.interval.estimate, *drawn], dtype=np.float64)])

    def less(self, other: Drawn) -> Interval:
        """The difference with its paired interval."""
        difference = self.values - other.values
        return percentile_interval(float(difference[0]), difference[1:])


#: For each method and each score.
Results = Mapping[str, Mapping[Key, Drawn]]


def known(names: Sequence[str]) -> list[str]:
    """Those of some methods that exist."""

    def exists(name: str) -> bool:
        try:
            method_named(name)
        except MethodError:
            return False
        return True

    return [name for name in names if exists(name)]


def scored(
    config_name: str, seed: int, folder: Path, methods: Sequence[str], resamples: int
) -> Results:
    """Every method on one world; world and scores are made if they are not there."""
    world = folder / "worlds" / f"seed-{seed}"
    if not world.exists():
        synthesize(world, split="mini_val", seed=seed)
    config = load_config(config_name, [f"data.dataroot={world}", "threads=1"])
    into, progress = folder / f"{Path(config_name).stem}-{seed}", make_progress()
    try:
        summary = score(config, into, methods, resamples=1, progress=progress)
    finally:
        progress.close()
    return {
        name: {
            (s.name, s.modality): Drawn.of(s, seed, resamples) for s in listed if s.name in SCORES
        }
        for name, listed in summary.scores.items()
    }


def mean(worlds: Sequence[Results]) -> Results:
    """Over the worlds in which a score exists, the same ones for every method."""
    first, *_ = worlds
    return {
        name: {
            key: Drawn([w[name][key].values for w in there] or [first[name][key].values])
            for key in scores
            for there in [[w for w in worlds if not math.isnan(w[name][key].values[0])]]
        }
        for name, scores in first.items()
    }


def method_rows(results: Results, network: str) -> list[list[str]]:
    """A row for each score: every method's value and difference to the exact Shapley values."""
    rows = []
    for key in results[EXACT]:
        drawn = {name: scores[key] for name, scores in results.items()}
        if math.isnan(drawn[EXACT].values[0]):
            continue
        best = max(drawn.values(), key=lambda d: float(d.values[0]))
        cells = []
        for name, one in drawn.items():
            value = f"{one.values[0]:.3f}"
            level = one is best or not best.less(one).low > 0
            value = f"**{value}**" if level else value
            cells.append(value if name == EXACT else f"{value} {bounds(one.less(drawn[EXACT]))}")
        rows.append([network, " ".join(key), *cells])
    return rows


def world_rows(worlds: Mapping[int, Results], network: str, name: str) -> list[list[str]]:
    """A row for each score: a method less the exact Shapley values on each world."""
    first, *_ = worlds.values()
    return [
        [network, " ".join(key), *(_difference(w, name, key) for w in worlds.values())]
        for key in first[name]
    ]


def _difference(results: Results, name: str, key: Key) -> str:
    difference = results[name][key].less(results[EXACT][key])
    if math.isnan(difference.estimate):
        return ""
    return f"{difference.estimate:+.3f} {bounds(difference)}"


def bounds(interval: Interval) -> str:
    """An interval's ends in brackets."""
    return f"({interval.low:+.3f}, {interval.high:+.3f})"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """In Markdown."""
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main(argv: list[str] | None = None) -> int:
    """Scores and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--config", action="append")
    parser.add_argument("--seed", action="append", type=int, required=True)
    parser.add_argument("--method", action="append", help="beside the exact Shapley values")
    parser.add_argument("--each", default=DEFAULT, help="whose difference is shown by world")
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args(argv)
    methods = known(METHODS) if given.method is None else [*given.method, EXACT]
    methods = list(dict.fromkeys(methods))
    rows, apart = [], []
    for config in given.config or CONFIGS:
        worlds = {
            seed: scored(config, seed, given.output, methods, given.resamples)
            for seed in given.seed
        }
        rows += method_rows(mean(list(worlds.values())), Path(config).stem)
        apart += world_rows(worlds, Path(config).stem, given.each)
    print_table(["network", "score", *methods], rows)
    print_table(["network", "score", *map(str, given.seed)], apart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
