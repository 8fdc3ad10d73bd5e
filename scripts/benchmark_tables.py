"""Count what tables and methods cost beside an evaluation of one variant.

    python scripts/benchmark_tables.py                        # counts, demo.yaml: a minute
    python scripts/benchmark_tables.py --config demo_crn.yaml
    python scripts/benchmark_tables.py --published --variants-only --time   # the published size

A pass is one map that goes through the network behind the features (a plain one, or a part), in
FLOPs of torch's counter over those of a plain pass. Maps are also counted where the decoder (CRN's
head) begins; they are fewer where the bias part begins behind that layer. Counts are of a sample in
the middle of a run; the first samples cost more, because they are verified by replay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lmd_cli.config import RunConfig
from lmd_cli.config_file import load_config
from lmd_cli.data import collate
from lmd_cli.evaluation.explained import explained_encoding
from lmd_cli.evaluation.measure import VERIFIED, measure
from lmd_cli.evaluation.runner import Run, prepare
from lmd_cli.evaluation.stopwatch import Stopwatch
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit, make_encoder, walk
from lmd_cli.report.reproduce import refusals, table_methods, table_numbers
from lmd_cli.report.tables import TABLES

#: Samples that are counted, after one that fills the memory; before it are the verified ones.
FIRST, LAST = VERIFIED + 1, VERIFIED + 3
COUNTED = LAST - FIRST


@dataclass(frozen=True)
class Counted:
    """What one way of evaluating costs for a sample.

    Attributes:
        name: what is evaluated.
        decoder: maps through the decoder's first convolution, ``None`` if there is none.
        passes: FLOPs behind the features over those of a plain pass.
        gflops: of the whole sample: encoding and everything behind it.
        seconds: smallest time of a sample, if asked for.
    """

    name: str
    decoder: float | None
    passes: float
    gflops: float
    seconds: float | None


class Counter(TorchDispatchMode):
    """FLOPs of everything that runs inside, and the maps that meet one weight."""

    def __init__(self, weight: Tensor | None):
        super().__init__()
        self._address = None if weight is None else weight.data_ptr()
        self.flops = self.maps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        convolves = func is torch.ops.aten.convolution.default
        if convolves and args[1].data_ptr() == self._address:
            self.maps += len(args[0])
        return out


def first_weight(network: Any) -> Tensor | None:
    """Of the first convolution of the decoder, or of CRN's head."""
    decoder = getattr(network, "decoder", None) or getattr(network, "head", None)
    layers = decoder.modules() if isinstance(decoder, nn.Module) else ()
    return next((layer.weight for layer in layers if isinstance(layer, nn.Conv2d)), None)


def published(config: RunConfig) -> RunConfig:
    """The config with the published network's size and random weights."""
    size = {"encoder": "res101", "image_size": [224, 400], "grid": [200, 8, 200], "widths": {}}
    model = {**config.model.model_dump(), **size, "checkpoint": "random"}
    return type(config).model_validate({**config.model_dump(), "model": model})


class Sampler:
    """Walks a few samples of a run and looks at those in the middle.

    Args:
        run: network, data, and what is evaluated.
    """

    def __init__(self, run: Run):
        self.run, self.network = run, run.built.network
        self._encode = make_encoder(
            self.network, run.dataset, collate, run.device, False, Stopwatch()
        )

    def plain_flops(self) -> int:
        """Of a plain pass behind the features (and a linear fusion layer)."""
        found = self._encode(0, True)
        assert isinstance(found, Encoding)
        what = explained_encoding(self.network, self.run.config.model.output, found)
        with Counter(None) as counter, torch.no_grad():
            what.fuse(**what.features)
        return counter.flops

    def counts(self) -> tuple[float, float, float]:
        """Of a sample: maps through the decoder, FLOPs behind the features, FLOPs of encoding."""
        encoding, behind = Counter(None), Counter(first_weight(self.network))

        def encode(index: int, keep: bool) -> Encoding | Skipped:
            with encoding:
                return self._encode(index, keep)

        encoded = 0
        for visit in walk(self.run.schedule, encode, VERIFIED, LAST):
            with behind if visit.position >= FIRST else nullcontext():
                self._measure(visit)
            encoded = self.run.schedule.count + 1 + visit.position - VERIFIED
        return behind.maps / COUNTED, behind.flops / COUNTED, encoding.flops / encoded

    def seconds(self) -> float:
        """Smallest time of a sample, with its encoding."""
        times: list[float] = []
        visits = walk(self.run.schedule, self._encode, VERIFIED, LAST)
        while True:
            started = time.perf_counter()
            visit = next(visits, None)
            if visit is None:
                return min(times)
            self._measure(visit)
            if visit.position >= FIRST:
                times.append(time.perf_counter() - started)

    def _measure(self, visit: Visit) -> None:
        run = self.run
        output = run.config.model.output
        measure(self.network, visit, run.variants, run.cells, output, run.rivals)


def count(config: RunConfig, name: str, methods: Sequence[str], timed: bool = False) -> Counted:
    """Everything about one way of evaluating; a table replaces what the paper's do."""
    sampler = Sampler(prepare(config, methods=methods, table_only=name.startswith("table")))
    plain = sampler.plain_flops()
    maps, behind, encoding = sampler.counts()
    seconds = sampler.seconds() if timed else None
    return Counted(name, maps or None, behind / plain, (behind + encoding) / 1e9, seconds)


def measure_all(config: RunConfig, timed: bool, all_tables: bool) -> list[Counted]:
    """One variant, the config's, table 2 (or the table of variants that fits the model), and all
    tables."""
    return [count(config, name, how, timed) for name, how in ways(config, all_tables).items()]


def ways(config: RunConfig, all_tables: bool = True) -> dict[str, Sequence[str]]:
    """Methods by the name of what is evaluated; one variant comes first."""
    variants = next((n for n in (2, 8, 9) if not refusals([n], config)), None)
    found: dict[str, Sequence[str]] = {
        "one variant": ("lmd:identity-ratio",),
        "evaluate": [f"lmd:{variant}" for variant in config.variants],
    }
    if variants is not None:
        found[f"table {variants}"] = table_methods([variants])
    if all_tables:
        fitting = [n for n in table_numbers("all") if n in TABLES and not refusals([n], config)]
        found["table all"] = table_methods(fitting)
    return found


def show(found: list[Counted]) -> None:
    """Plain lines."""
    for c in found:
        maps = "" if c.decoder is None else f"{c.decoder:.1f} maps through the decoder, "
        seconds = "" if c.seconds is None else f", {c.seconds:.2f} s"
        print(
            f"{c.name}: {maps}{c.passes:.1f} plain passes, {c.gflops:.1f} GFLOP a sample{seconds}"
        )
        for other in found[:2]:
            if c not in found[:2]:
                print(f"  against {other.name}: {against(c, other)}")


def against(c: Counted, other: Counted) -> str:
    """Ratios of two ways' costs."""
    ratios = {
        "passes": c.passes / other.passes,
        "FLOPs of the whole sample": c.gflops / other.gflops,
    }
    if c.seconds is not None and other.seconds is not None:
        ratios["time"] = c.seconds / other.seconds
    return ", ".join(f"{name} x {value:.2f}" for name, value in ratios.items())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", default="demo.yaml")
    parser.add_argument("--published", action="store_true", help="the published size, res101")
    parser.add_argument("--variants-only", action="store_true", help="leave table all out")
    parser.add_argument("--time", action="store_true", help="seconds too (on an idle machine)")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    config = published(config) if arguments.published else config
    config = config.model_copy(update={"threads": arguments.threads or config.threads})
    found = measure_all(config, arguments.time, not arguments.variants_only)
    print(json.dumps([asdict(c) for c in found], indent=2)) if arguments.json else show(found)


if __name__ == "__main__":
    main()
