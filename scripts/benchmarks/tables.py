"""Count what tables and methods cost beside an evaluation of one variant.

    python scripts/benchmarks/tables.py                        # counts, demo.yaml: a minute
    python scripts/benchmarks/tables.py --config demo_crn.yaml
    python scripts/benchmarks/tables.py --published --variants-only --time   # the published size

A pass is one map that goes through the network behind the features (a plain one, or a part),
counted where it leaves the decoder; beside it the FLOPs of torch's counter over those of a plain
pass, which are fewer where a part is zero for a while. Counts are of a sample in the middle of a
run; the first samples cost more, because they are verified by replay.
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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.evaluation.measure import VERIFIED, measure
from lmd_cli.evaluation.walk import Encoder, Encoding, Skipped, Visit, explained_encoding, walk
from lmd_cli.report.tables.spec import TABLES
from lmd_cli.workflows.setup import Run, prepare
from lmd_cli.workflows.table import refusals, table_methods, table_numbers

#: Samples that are counted, after one that fills the memory; before it are the verified ones.
FIRST, LAST = VERIFIED + 1, VERIFIED + 3
COUNTED = LAST - FIRST


@dataclass(frozen=True)
class Counted:
    """What one way of evaluating costs for a sample.

    Attributes:
        name: what is evaluated.
        passes: maps through the last convolution; ``None`` if there is none.
        plain: FLOPs behind the features over those of a plain pass.
        gflops: of the whole sample: encoding and everything behind it.
        seconds: smallest time of a sample, if asked for.
    """

    name: str
    passes: float | None
    plain: float
    gflops: float
    seconds: float | None


class Counter(TorchDispatchMode):
    """FLOPs of everything that runs inside, and the maps that meet one weight.

    Args:
        weight: its address; nothing is counted if not given.

    Attributes:
        last: address of the weight of the convolution that ran last.
    """

    def __init__(self, weight: int | None = None):
        super().__init__()
        self._weight = weight
        self.last: int | None = None
        self.flops = self.maps = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        if func is torch.ops.aten.convolution.default:
            self.last = args[1].data_ptr()
            self.maps += len(args[0]) if self.last == self._weight else 0
        return out


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
        self._encode = Encoder(self.network, run.dataset, run.device)

    def plain(self) -> Counter:
        """Of a plain pass behind the features (and a linear fusion layer)."""
        encoding = self._encode(0, True)
        assert isinstance(encoding, Encoding)
        what = explained_encoding(self.network, self.run.config.model.output, encoding)
        with Counter() as counter, torch.no_grad():
            what.fuse(**what.features)
        return counter

    def counts(self, last: int | None) -> tuple[float, float, float]:
        """Of a sample: maps through the last weight, FLOPs behind the features and of encoding."""
        encoding, behind = Counter(), Counter(last)

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
        measure(self.run.task, visit)


def count(config: RunConfig, name: str, methods: Sequence[str], timed: bool = False) -> Counted:
    """Everything about one way of evaluating; a table replaces what the paper's do."""
    sampler = Sampler(prepare(config, methods=methods, table_only=name.startswith("table")))
    plain = sampler.plain()
    maps, behind, encoding = sampler.counts(plain.last)
    seconds = sampler.seconds() if timed else None
    return Counted(name, maps or None, behind / plain.flops, (behind + encoding) / 1e9, seconds)


def measure_all(config: RunConfig, timed: bool, all_tables: bool) -> list[Counted]:
    """One variant, the config's, table 2 (or the table of variants that fits the model), and all
    tables."""
    return [count(config, name, how, timed) for name, how in ways(config, all_tables).items()]


def ways(config: RunConfig, all_tables: bool = True) -> dict[str, Sequence[str]]:
    """Methods by the name of what is evaluated; one variant comes first."""
    variants = next((n for n in (2, 8, 9) if not refusals([n], config)), None)
    methods: dict[str, Sequence[str]] = {
        "one variant": ("lmd:identity-ratio",),
        "evaluate": [f"lmd:{variant}" for variant in config.variants],
    }
    if variants is not None:
        methods[f"table {variants}"] = table_methods([variants])
    if all_tables:
        fitting = [n for n in table_numbers("all") if n in TABLES and not refusals([n], config)]
        methods["table all"] = table_methods(fitting)
    return methods


def show(counted: list[Counted]) -> None:
    """Plain lines."""
    for c in counted:
        passes = "" if c.passes is None else f"{c.passes:.1f} passes, "
        seconds = "" if c.seconds is None else f", {c.seconds:.2f} s"
        flops = f"FLOPs of {c.plain:.1f} plain ones, {c.gflops:.1f} GFLOP a sample"
        print(f"{c.name}: {passes}{flops}{seconds}")
        for other in counted[:2]:
            if c not in counted[:2]:
                print(f"  against {other.name}: {against(c, other)}")


def against(c: Counted, other: Counted) -> str:
    """Ratios of two ways' costs."""
    ratios = {} if not c.passes or not other.passes else {"passes": c.passes / other.passes}
    ratios |= {
        "FLOPs": c.plain / other.plain,
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
    counted = measure_all(config, arguments.time, not arguments.variants_only)
    print(json.dumps([asdict(c) for c in counted], indent=2)) if arguments.json else show(counted)


if __name__ == "__main__":
    main()
