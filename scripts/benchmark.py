"""Measure how fast decomposition and evaluation are, as ratios within one run.

    python scripts/benchmark.py             # the published size, and scaling: some 15 minutes
    python scripts/benchmark.py --small     # a look, in seconds (--scaling adds the rest)
    python scripts/benchmark.py --json      # for machines

Each ratio compares two ways of getting the same numbers, run in turn with the same threads,
memory format and outputs; what both ways give is compared first. The smallest time of each way
counts. Weights are random: they do not change the work.

The limit is the counted FLOPs at the rate of this machine's fastest convolution, measured in the
same run. The straightforward way is what the paper describes: every partner encoded anew, all
(voxel, camera) pairs sampled, and one pass through the whole linearised network for each part; in
a process of its own, because lmd keeps freed memory, which is not part of it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import torch
from benchmarks.growth import convolution_peak, growth
from benchmarks.processes import memory, throughput
from benchmarks.ratios import decomposition, one_sample, unprojection
from benchmarks.setting import OUTPUT, VARIANT, Bench, Flops
from benchmarks.straightforward import straightforward
from benchmarks.timing import Comparison, compare, peak_gigabytes, relative

from lmd_cli.evaluation.variants import VariantPredictions
from lmd_cli.runtime.allocator import keep_freed_memory

__all__ = ["Comparison", "compare", "measure", "relative"]

#: Samples of the demo that are evaluated by one process and by two.
EVALUATED = 26


def measure(small: bool, repeats: int, slow: bool, scaling: bool) -> dict[str, Any]:
    """Everything; the peak is read before the ways that we compare with run."""
    with torch.no_grad():
        bench = Bench(small)
        VariantPredictions(bench.network, bench.visit, OUTPUT).under(VARIANT)
        peak = peak_gigabytes()
        comparisons = [
            unprojection(bench, repeats),
            decomposition(bench, repeats),
            one_sample(bench, repeats),
        ]
        if slow:
            comparisons += straightforward(bench, small, (repeats + 1) // 2)
        result = {
            "size": "small" if small else "published",
            "threads": torch.get_num_threads(),
            "peak_memory_gb": peak,
            "comparisons": [asdict(c) for c in comparisons],
            "limit": limit(bench, comparisons[2].ours, repeats),
        }
        del bench
        if scaling:
            result |= scaled(repeats)
    return result


def limit(bench: Bench, seconds: float, repeats: int) -> dict[str, float]:
    """A sample's time against its FLOPs at the machine's convolution peak."""
    flops = Flops(bench.grid, bench.image_size)
    peak = convolution_peak(repeats)
    return {
        "encoder_gflops": flops.encoder / 1e9,
        "fusion_gflops": flops.fusion / 1e9,
        "decoder_gflops": flops.decoder / 1e9,
        "sample_gflops": flops.ours / 1e9,
        "straightforward_flops_ratio": flops.straightforward / flops.ours,
        "convolution_peak_gflops_per_s": peak,
        "seconds_at_peak": flops.ours / 1e9 / peak,
        "time_over_limit": seconds * peak * 1e9 / flops.ours,
        "samples_per_s": 1 / seconds,
    }


def scaled(repeats: int) -> dict[str, Any]:
    """Processes, memory against N, and growth (on the small grid)."""
    return {
        "growth": [asdict(p) for p in growth(Bench(small=True), repeats)],
        "processes": [asdict(t) for t in throughput(EVALUATED)],
        "memory_against_samples": [asdict(p) for p in memory()],
    }


def show(result: dict[str, Any]) -> None:
    """Plain lines."""
    print(f"{result['size']} size, {result['threads']} threads, res101, random weights")
    for c in result["comparisons"]:
        verdict = "ok" if c["ratio"] <= c["bound"] else "MISSED"
        print(
            f"{c['name']}: {c['ours']:.2f} s / {c['other']:.2f} s = {c['ratio']:.3f} "
            f"(at most {c['bound']:.3g}: {verdict}; results differ by {c['difference']:.1e})"
        )
    print(f"peak memory of one sample: {result['peak_memory_gb']:.2f} GB")
    show_limit(result["limit"])
    if "growth" in result:
        show_scaling(result)


def show_limit(limits: dict[str, float]) -> None:
    """FLOPs and the limit."""
    print(
        f"FLOPs: encoder {limits['encoder_gflops']:.0f} G, fusion layer "
        f"{limits['fusion_gflops']:.0f} G, decoder {limits['decoder_gflops']:.1f} G; a sample "
        f"{limits['sample_gflops']:.0f} G, the straightforward way "
        f"{limits['straightforward_flops_ratio']:.2f} x as many"
    )
    print(
        f"limit: {limits['seconds_at_peak']:.2f} s at the convolution peak of "
        f"{limits['convolution_peak_gflops_per_s']:.0f} GFLOP/s; a sample takes "
        f"{limits['time_over_limit']:.2f} x that, {limits['samples_per_s']:.3f} samples per second"
    )


def show_scaling(result: dict[str, Any]) -> None:
    """Growth, processes and memory."""
    of = ""
    for p in result["growth"]:
        if p["of"] != of:
            of = p["of"]
            print(f"growth with {of}:")
        print(
            f"  {p['size']:4d}: {p['gflops']:8.1f} GFLOPs (x {p['flops_ratio']:.2f}), "
            f"{p['seconds']:.2f} s (x {p['time_ratio']:.2f})"
        )
    for t in result["processes"]:
        print(
            f"{t['processes']} process(es) of one thread, demo.yaml, {t['samples']} samples: "
            f"{t['per_second']:.2f} samples per second (x {t['ratio']:.2f})"
        )
    for m in result["memory_against_samples"]:
        print(f"peak memory of a tiny evaluation, N = {m['samples']}: {m['gigabytes']:.3f} GB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="128x224 images, 100x8x100 grid")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-straightforward", action="store_true", help="leave the slow way out")
    parser.add_argument(
        "--scaling",
        action=argparse.BooleanOptionalAction,
        help="processes, memory and growth (default: unless --small)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as lmd does
    scaling = not given.small if given.scaling is None else given.scaling
    result = measure(given.small, given.repeats, not given.no_straightforward, scaling)
    print(json.dumps(result, indent=2)) if given.json else show(result)


if __name__ == "__main__":
    main()
