"""What slopes between coalitions cost beside eq. 9's, as ratios of CPU time within one run.

    PYTHONPATH=scripts:. python -m benchmarks.slopes [--small]

The network behind its fusion layer, one thread: the clean sample alone, and with its 12 partners
as in an evaluation.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch

from benchmarks.setting import OUTPUT, VARIANT, Bench
from lmd_cli.decomposition.variant import COALITION_RULES, COALITIONS, Variant
from lmd_cli.evaluation.variants import BehindFusion
from lmd_cli.evaluation.walk import Visit
from lmd_cli.runtime.allocator import keep_freed_memory


def seconds(bench: Bench, visit: Visit, variant: Variant) -> float:
    """CPU time of one decomposition and its partners'."""
    point, start = BehindFusion(bench.network, visit, OUTPUT), time.process_time()
    point.partners(variant)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with torch.no_grad():
        bench, usual = Bench(given.small), VARIANT
        rules = (*COALITION_RULES, COALITIONS)
        variants = [usual, *(replace(usual, activation=rule) for rule in rules)]
        clean = Visit(0, bench.visit.sample, [])
        for name, visit in (("clean", clean), ("12 partners", bench.visit)):
            times = [[seconds(bench, visit, v) for v in variants] for _ in range(given.repeats)]
            best = [min(column) for column in zip(*times, strict=True)]
            for v, least in zip(variants, best, strict=True):
                print(f"{name}: {v.name} {least:.2f} s, {least / best[0]:.3f} x", flush=True)


if __name__ == "__main__":
    main()
