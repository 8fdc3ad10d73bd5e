"""Measure how fast decomposition and evaluation are, as ratios within one run.

    python scripts/benchmark.py             # the published size: about five minutes on two cores
    python scripts/benchmark.py --small     # a look, in seconds
    python scripts/benchmark.py --json      # for machines

Each ratio compares two ways of getting the same numbers, run in turn with the same threads,
memory format and outputs; what both ways give is compared first. The smallest time of each way
counts. Weights are random: they do not change the work.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lmd_cli.data import NuScenesSamples, collate
from lmd_cli.data.synthetic import demo_root
from lmd_cli.decomposition import decompose, decompose_onward
from lmd_cli.decomposition.replay import Linearised
from lmd_cli.evaluation.predict import predict
from lmd_cli.evaluation.schedule import Schedule
from lmd_cli.evaluation.stopwatch import Stopwatch
from lmd_cli.evaluation.walk import Encoding, Visit, make_encoder
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV, random_weights
from lmd_cli.networks.unprojection import unproject

OUTPUT = "segmentation"
VARIANT = "identity-ratio"
OFFSETS = 12


@dataclass(frozen=True)
class Comparison:
    """Two ways of getting the same numbers.

    Attributes:
        name: what is compared.
        ours, other: seconds, the smallest of the repeats.
        ratio: ours / other.
        bound: what the ratio must not exceed.
        difference: largest difference of the results, over the largest value.
    """

    name: str
    ours: float
    other: float
    ratio: float
    bound: float
    difference: float


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def compare(
    name: str,
    ours: Callable[[], Any],
    other: Callable[[], Any],
    difference: Callable[[Any, Any], float],
    bound: float,
    repeats: int,
) -> Comparison:
    """Runs both in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        (seconds, a), (seconds_other, b) = timed(ours), timed(other)
        times[0].append(seconds)
        times[1].append(seconds_other)
    best, best_other = min(times[0]), min(times[1])
    return Comparison(name, best, best_other, best / best_other, bound, difference(a, b))


def relative(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|."""
    return float((a - b).abs().max() / b.abs().max())


class Bench:
    """The network and samples that everything is measured on."""

    def __init__(self, small: bool):
        grid = Grid((100, 8, 100) if small else (200, 8, 200))
        size = (128, 224) if small else (224, 400)
        self.network = SimpleBEV(("camera", "radar"), grid=grid, encoder="res101")
        random_weights(self.network, seed=0)
        self.network.eval().requires_grad_(False)
        self.data = NuScenesSamples(
            demo_root(),
            "v1.0-mini",
            "mini_val",
            modalities=("camera", "radar"),
            nsweeps=5,
            image_size=size,
            grid=grid,
        )
        self.schedule = Schedule.resolve(len(self.data), "auto", OFFSETS)
        encode = make_encoder(
            self.network, self.data, collate, torch.device("cpu"), False, Stopwatch()
        )
        self.batch = collate([self.data[0]])
        self.partner = collate([self.data[1]])
        clean, other = encode(0, False), encode(1, False)
        assert isinstance(clean, Encoding)
        self.visit = Visit(0, clean, [other] * OFFSETS)

    def tail(self, fused: Tensor) -> Tensor:
        """The decoder down to the logits."""
        return self.network.tail(fused, [OUTPUT])[OUTPUT]

    def fuse(self, **features: Tensor) -> Tensor:
        """Features to logits."""
        return self.network.fuse(features, [OUTPUT])[OUTPUT]

    def fuse_joined(self, features: Tensor) -> Tensor:
        """The same from the concatenated features, for one pass through the whole of it."""
        return self.tail(self.network.bev_compressor[0](features))


def unprojection(bench: Bench, repeats: int) -> Comparison:
    """Visible (voxel, camera) pairs against all pairs."""
    images = bench.batch["images"]
    assert isinstance(images, Tensor)
    features = bench.network.image_features(images)
    cameras = (bench.batch["pix_T_cams"], bench.batch["cam0_T_camXs"])
    size = (images.shape[-2], images.shape[-1])

    def run(dense: bool) -> Tensor:
        return unproject(features, *cameras, bench.network.grid, size, dense=dense)  # type: ignore[arg-type]

    return compare(
        "unprojection / the dense way",
        lambda: run(False),
        lambda: run(True),
        relative,
        1 / 4,
        repeats,
    )


def decomposition(bench: Bench, repeats: int) -> Comparison:
    """The decoder with 2 + 24 parts and the bias against a plain batch of 28."""
    encoding = bench.visit.sample
    assert isinstance(encoding, Encoding)
    assert encoding.fused is not None
    sample = encoding.fused
    extras = {name: [part] * OFFSETS for name, part in sample.parts.items()}
    parts = len(sample.parts) * (1 + OFFSETS) + 1
    batch = sample.total.repeat(parts + 1, 1, 1, 1)

    def ours() -> Tensor:
        result = decompose_onward(
            bench.tail, sample.total, sample.parts, VARIANT, extras=extras, root=bench.network
        )
        return result.total

    return compare(
        f"decomposing with {parts} parts / a plain batch of {parts + 1}",
        ours,
        lambda: bench.tail(batch)[:1],
        relative,
        1.15,
        repeats,
    )


def one_sample(bench: Bench, repeats: int) -> Comparison:
    """A sample of the evaluation against the plain parts that it consists of."""
    encode = make_encoder(
        bench.network, [bench.data[0]], collate, torch.device("cpu"), False, Stopwatch()
    )
    passes = len(bench.network.modalities) * (1 + OFFSETS) + 2

    def ours() -> Tensor:
        sample = encode(0, False)
        visit = Visit(0, sample, bench.visit.partners)
        return predict(bench.network, visit, VARIANT, OUTPUT).total

    def plain() -> Tensor:
        features = bench.network.encode(bench.batch)
        fused = bench.network.fusion_layer(features)
        return [bench.tail(fused) for _ in range(passes)][-1]

    return compare(
        f"a sample with {OFFSETS} offsets / encoding + fusion layer + {passes} decoder passes",
        ours,
        plain,
        relative,
        1.4,
        repeats,
    )


def straightforward(bench: Bench) -> Comparison:
    """A sample of the evaluation against encoding everything and one pass for every part."""
    encode = make_encoder(
        bench.network, [bench.data[0]], collate, torch.device("cpu"), False, Stopwatch()
    )

    def ours() -> dict[str, Tensor]:
        visit = Visit(0, encode(0, False), bench.visit.partners)
        prediction = predict(bench.network, visit, VARIANT, OUTPUT)
        moved = {f"{m} perturbed": maps[-1] for m, maps in prediction.perturbed.items()}
        return {**prediction.parts, **{k: v for k, v in moved.items() if v is not None}}

    def other() -> dict[str, Tensor]:
        clean = _encode_densely(bench.network, bench.batch)
        kept = decompose(bench.fuse, clean, VARIANT, root=bench.network, keep_frozen=True)
        zeros = {m: torch.zeros_like(x) for m, x in clean.items()}
        linear = Linearised(bench.fuse_joined, kept)

        def one_pass(features: dict[str, Tensor], modality: str) -> Tensor:
            alone = {**zeros, modality: features[modality]}
            return linear.part(modality, torch.cat(list(alone.values()), dim=1))

        found = {m: one_pass(clean, m) for m in bench.network.modalities}
        one_pass(zeros, "camera")  # the bias
        for _ in range(OFFSETS):
            partner = _encode_densely(bench.network, bench.partner)
            for m in bench.network.modalities:
                found[f"{m} perturbed"] = one_pass(partner, m)
        return found

    def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        return max(relative(a[name], b[name]) for name in b)

    name = "a sample the scheduled way / the straightforward way"
    return compare(name, ours, other, difference, 1 / 8, 1)


def _encode_densely(network: SimpleBEV, batch: Any) -> dict[str, Tensor]:
    features = network.image_features(batch["images"])
    size = (batch["images"].shape[-2], batch["images"].shape[-1])
    cameras = (batch["pix_T_cams"], batch["cam0_T_camXs"])
    lifted = unproject(features, *cameras, network.grid, size, dense=True)
    return {"camera": lifted, "radar": network.encode_radar(batch)}


def peak_gigabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(small: bool, repeats: int, slow: bool) -> dict[str, Any]:
    """All comparisons; the peak is read before the ways that we compare with run."""
    with torch.no_grad():
        bench = Bench(small)
        predict(bench.network, bench.visit, VARIANT, OUTPUT)
        peak = peak_gigabytes()
        found = [
            unprojection(bench, repeats),
            decomposition(bench, repeats),
            one_sample(bench, repeats),
        ]
        if slow:
            found.append(straightforward(bench))
    return {
        "size": "small" if small else "published",
        "threads": torch.get_num_threads(),
        "peak_memory_gb": peak,
        "comparisons": [asdict(c) for c in found],
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="128x224 images, 100x8x100 grid")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-straightforward", action="store_true", help="leave the slow way out")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(arguments.small, arguments.repeats, not arguments.no_straightforward)
    print(json.dumps(result, indent=2)) if arguments.json else show(result)


if __name__ == "__main__":
    main()
