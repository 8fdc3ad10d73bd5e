"""A sample of the evaluation against what the paper describes.

For every offset the partner is encoded anew, all (voxel, camera) pairs are sampled, and each part
is a pass of its own through the whole linearised network.

That way runs in a process of its own, which hands freed memory back as any process does; ``lmd``
keeps it (see :mod:`lmd_cli.runtime.allocator`). It also runs in this process, with memory kept as
for ours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from benchmarks.setting import OFFSETS, OUTPUT, VARIANT, Bench
from benchmarks.timing import Comparison, compare, relative, timed
from lmd_cli.decomposition import decompose
from lmd_cli.decomposition.linearised.streams import Stream
from lmd_cli.evaluation.variants import VariantPredictions
from lmd_cli.evaluation.walk import Encoder, Visit
from lmd_cli.networks import SimpleBEV
from lmd_cli.networks.simplebev.unprojection import unproject

SCRIPTS = Path(__file__).resolve().parent.parent
#: At most: the straightforward way has seven times the FLOPs; the rest of its time is memory.
BOUND, BOUND_KEPT = 1 / 10, 1 / 6

Parts: TypeAlias = dict[str, Tensor]


def straightforward(bench: Bench, small: bool, repeats: int) -> list[Comparison]:
    """Both comparisons."""

    def alone() -> tuple[float, Parts]:
        return _in_its_own_process(small)

    ours, name = scheduled(bench), "a sample the scheduled way / the straightforward way"
    kept = compare(
        f"{name}, with memory kept as well",
        ours,
        lambda: one_pass_for_each_part(bench),
        _difference,
        BOUND_KEPT,
        repeats,
    )
    runs = [(timed(ours), alone()) for _ in range(repeats)]
    seconds = min(time for (time, _), _ in runs)
    other = min(time for _, (time, _) in runs)
    (_, parts), (_, reference) = runs[-1]
    difference = _difference(parts, reference)
    return [Comparison(name, seconds, other, seconds / other, BOUND, difference), kept]


def scheduled(bench: Bench) -> Callable[[], Parts]:
    """A sample as ``lmd evaluate`` does it."""
    encode = Encoder(bench.network, [bench.data[0]], torch.device("cpu"))

    def ours() -> Parts:
        visit = Visit(0, encode(0, False), bench.visit.partners)
        prediction = VariantPredictions(bench.network, visit, OUTPUT).under(VARIANT)
        moved = {f"{m} perturbed": maps[-1] for m, maps in prediction.perturbed.items()}
        return {**prediction.parts, **{k: v for k, v in moved.items() if v is not None}}

    return ours


def one_pass_for_each_part(bench: Bench) -> Parts:
    """A sample as the paper describes it."""
    clean = _encode_densely(bench.network, bench.batch)
    kept = decompose(bench.fuse, clean, VARIANT, root=bench.network, keep_maps=True)
    zeros = {m: torch.zeros_like(x) for m, x in clean.items()}
    assert kept.program is not None
    program, layout = kept.program, kept.layout

    def one_pass(features: Parts, modality: str) -> Tensor:
        stream = Stream(layout.modalities.index(modality), layout.uniform_share)
        starts = program.start({**zeros, modality: features[modality]})
        part: Tensor = program.collect(program.run(starts, stream), False)
        return part

    parts = {m: one_pass(clean, m) for m in bench.network.modalities}
    one_pass(zeros, "camera")  # the bias
    for _ in range(OFFSETS):
        partner = _encode_densely(bench.network, bench.partner)
        for m in bench.network.modalities:
            parts[f"{m} perturbed"] = one_pass(partner, m)
    return parts


def _encode_densely(network: SimpleBEV, batch: Any) -> Parts:
    features = network.image_features(batch["images"])
    size = (batch["images"].shape[-2], batch["images"].shape[-1])
    cameras = (batch["pix_T_cams"], batch["cam0_T_camXs"])
    lifted = unproject(features, *cameras, network.grid, size, dense=True)
    return {"camera": lifted, "radar": network.encode_radar(batch)}


def _difference(a: Parts, b: Parts) -> float:
    return max(relative(a[name], b[name]) for name in b)


def _in_its_own_process(small: bool) -> tuple[float, Parts]:
    """Seconds and result of one run there."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "found.pt"
        command = [sys.executable, "-m", "benchmarks.straightforward", str(there)]
        command += ["--threads", str(torch.get_num_threads()), *(["--small"] if small else [])]
        path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])
        subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)
        stored = torch.load(there, weights_only=True)
    return stored["seconds"], stored["parts"]


def main() -> None:
    """What :func:`_in_its_own_process` starts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with torch.no_grad():
        bench = Bench(given.small)
        bench.tail(bench.fused.total)  # what torch sets up at its first convolutions
        seconds, parts = timed(lambda: one_pass_for_each_part(bench))
    torch.save({"seconds": seconds, "parts": parts}, given.output)


if __name__ == "__main__":
    main()
