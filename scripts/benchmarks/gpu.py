"""How long ``lmd evaluate`` computes at a sample on a GPU: in each precision, with CUDA graphs and
without.

    python scripts/benchmarks/gpu.py                       # SimpleBEV's published size
    python scripts/benchmarks/gpu.py --samples 40 --small  # a look
    python scripts/benchmarks/gpu.py --device cpu --small  # what it does, without a GPU

Every way evaluates the same samples of the same cycle (synthetic data, random weights, which do not
change the work). A sample's time is ``compute_s`` of ``timings.csv``: everything but waiting for
decoded inputs, copies to the GPU and rows on disk included. The first samples, which fill the ring,
are replayed, and record the graphs, do not count. Ways that differ in CUDA graphs alone must write
the same rows.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lmd_cli.config.loading import load_config
from lmd_cli.data.synthetic import cached_root
from lmd_cli.workflows.evaluate import evaluate

#: Samples of nuScenes' validation set.
VALIDATION = 6019
#: Visits that do not count.
FIRST = 4
SMALL = ("model.image_size=[64, 112]", "model.grid=[48, 8, 48]")


@dataclass(frozen=True)
class Way:
    """How it is computed.

    Attributes:
        precision: of the encoders; tf32: of the rest; graphs: whether CUDA graphs are used.
    """

    precision: str
    tf32: bool
    graphs: bool

    @property
    def settings(self) -> list[str]:
        """For the config."""
        return [
            f"compute.precision={self.precision}",
            f"compute.tf32={str(self.tf32).lower()}",
            f"compute.cuda_graphs={str(self.graphs).lower()}",
        ]

    @property
    def name(self) -> str:
        """For the table."""
        rest = "TF32" if self.tf32 else "float32"
        return f"{self.precision} encoders, {rest}, {'graphs' if self.graphs else 'no graphs'}"


@dataclass(frozen=True)
class Timed:
    """What was measured.

    Attributes:
        milliseconds: of a sample, median; slowest: of all that count.
        minutes: for :data:`VALIDATION` samples.
        gigabytes: most GPU memory that tensors took.
        same_rows: whether the rows are those of the same precision without graphs.
    """

    way: str
    milliseconds: float
    slowest: float
    minutes: float
    gigabytes: float
    same_rows: bool


def ways(precisions: list[str]) -> list[Way]:
    """Full precision, TF32, and half precision's encoders with TF32; without graphs first."""
    rest = [Way(precision, True, False) for precision in precisions]
    plain = [Way("float32", False, False), *rest]
    return [w for way in plain for w in (way, Way(way.precision, way.tf32, True))]


def run(way: Way, given: argparse.Namespace, folder: Path) -> tuple[list[float], bytes]:
    """Milliseconds of each sample that counts, and the rows."""
    root = cached_root("mini_val", 20)
    where = [f"data.dataroot={json.dumps(str(root))}", f"device={given.device}", "workers=4"]
    settings = [*way.settings, *where, *(SMALL if given.small else ())]
    evaluate(load_config("radar_cam_mini.yaml", settings), folder, limit=given.samples)
    with (folder / "timings.csv").open(newline="") as file:
        seconds = [float(row["compute_s"]) for row in csv.DictReader(file)]
    return [1e3 * s for s in seconds[FIRST:]], (folder / "pairs.csv").read_bytes()


def measure(given: argparse.Namespace) -> list[Timed]:
    """All ways in turn."""
    timings, rows = [], b""
    gpu = given.device.startswith("cuda")
    for way in ways(given.precisions):
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as folder:
            times, own = run(way, given, Path(folder))
        rows = rows if way.graphs else own
        median = statistics.median(times)
        peak = torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0
        minutes = median * VALIDATION / 60e3
        timings.append(Timed(way.name, median, max(times), minutes, peak, own == rows))
        if not given.json:
            print(line(timings[-1]), flush=True)
    return timings


def line(t: Timed) -> str:
    """One line of the table."""
    same = "" if t.same_rows else "; OTHER ROWS than without graphs"
    return (
        f"{t.way}: {t.milliseconds:.1f} ms a sample (slowest {t.slowest:.1f}), "
        f"{VALIDATION} samples in {t.minutes:.1f} min, {t.gigabytes:.1f} GB{same}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=40, help="of the cycle of 40")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--small", action="store_true", help="64x112 images, 48x8x48 grid")
    parser.add_argument("--json", action="store_true", help="one JSON list")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; --device cpu shows what is done")
    if given.samples <= FIRST:
        parser.error(f"the first {FIRST} samples do not count: give more --samples")
    timings = measure(given)
    if given.json:
        print(json.dumps([asdict(t) for t in timings], indent=2))
    if not all(t.same_rows for t in timings):
        raise SystemExit("CUDA graphs changed the rows")


if __name__ == "__main__":
    main()
