"""How often the 95 % interval of an AUROC holds the truth, by the objects in each class.

    python scripts/studies/few_objects.py

Objects of both classes are seen four times each; a score is a shift of the class, noise of the
object and noise of the observation. Prints a table in Markdown: for each AUROC of the population,
the share of intervals that hold it.
"""

from __future__ import annotations

import argparse
import sys
from statistics import NormalDist, fmean

import numpy as np

from lmd_cli.evaluation.statistics import Interval, auroc, bootstrap

COUNTS = (1, 2, 3, 4, 6, 8, 10, 15, 20)
AUROCS = (0.7, 0.9)
SEEN = 4
#: Standard deviations of an object's noise and of an observation's.
OBJECT, OBSERVATION = 1.0, 0.5


def interval(rng: np.random.Generator, objects: int, truth: float, resamples: int) -> Interval:
    """Of one draw of objects from a population of an AUROC."""
    spread = float(np.hypot(OBJECT, OBSERVATION)) * 2**0.5
    labels = np.repeat([1.0, 0.0], objects * SEEN)
    groups = np.repeat(np.arange(2 * objects), SEEN)
    noise = np.repeat(rng.normal(size=2 * objects), SEEN) * OBJECT
    values = NormalDist().inv_cdf(truth) * spread * labels + noise
    values += rng.normal(size=len(labels)) * OBSERVATION
    seed = int(rng.integers(2**31))
    return bootstrap(
        lambda rows: auroc(values[rows], labels[rows]),
        len(labels),
        seed=seed,
        resamples=resamples,
        groups=groups.tolist(),
    )


def coverage(objects: int, truth: float, repeats: int, resamples: int, seed: int = 0) -> float:
    """The share of intervals that hold the truth."""
    rng = np.random.default_rng(seed)
    made = (interval(rng, objects, truth, resamples) for _ in range(repeats))
    return fmean(one.low <= truth <= one.high for one in made)


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--objects", action="append", type=int)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=300)
    given = parser.parse_args(argv)
    counts = given.objects or COUNTS
    print(f"| AUROC | {' | '.join(map(str, counts))} |\n|{'---|' * (len(counts) + 1)}")
    for truth in AUROCS:
        held = [coverage(n, truth, given.repeats, given.resamples) for n in counts]
        print(f"| {truth} | {' | '.join(f'{share:.2f}' for share in held)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
