"""Whole evaluations in processes of their own: throughput, and memory against N."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lmd_cli.data.synthetic import synthesize

ROOT = Path(__file__).resolve().parent.parent.parent
#: A network that is small, so that memory for samples would show.
TINY = (
    "model.image_size=[64, 112]",
    "model.grid=[48, 8, 48]",
    "model.widths={latent: 8, stem: 4, encoder_blocks: [1, 1, 1], upsampling: 8, decoder: 8, "
    "decoder_blocks: [1, 1, 1]}",
    "model.checkpoint=random",
    "variants=[identity-ratio]",
    "threads=1",
)
SIZES = (16, 32, 64)
#: VmHWM and not getrusage, whose peak a child inherits from the process that started it.
_PEAK = (
    "import re, sys; from lmd_cli.__main__ import main; sys.argv[0] = 'lmd'\n"
    "try: main()\n"
    "finally:\n"
    "    status = open('/proc/self/status').read()\n"
    "    print('peak', re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)"
)


@dataclass(frozen=True)
class Throughput:
    """Samples of the demo through ``lmd evaluate``.

    Attributes:
        processes: with one thread each.
        samples: evaluated in all.
        per_second: samples over the processes' mean time from their first sample to their last.
        ratio: over one process's.
    """

    processes: int
    samples: int
    per_second: float
    ratio: float = 1.0


def _run(command: list[str]) -> str:
    """Standard error of a command that must succeed."""
    there = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(ROOT), *([there] if there else [])])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stderr


def _arguments(folder: Path, limit: int, settings: tuple[str, ...]) -> list[str]:
    given = [word for setting in settings for word in ("--set", setting)]
    where = ["--config", "demo.yaml", "--output", str(folder), "--limit", str(limit)]
    return ["evaluate", *where, *given]


def throughput(samples: int) -> list[Throughput]:
    """One process and two, started by torchrun."""
    throughputs: list[Throughput] = []
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            settings = ("variants=[identity-ratio]", "threads=1")
            arguments = _arguments(Path(folder), samples, settings)
            _run([*_launcher(processes), "-m", "lmd_cli", *arguments])
            seconds = _timed_seconds(Path(folder))
        rate = processes * samples / seconds
        one = throughputs[0].per_second if throughputs else rate
        throughputs.append(Throughput(processes, samples, rate, rate / one))
    return throughputs


def _launcher(processes: int) -> list[str]:
    if processes == 1:
        return [sys.executable]
    here = ["--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, "-m", "torch.distributed.run", *here]


def _timed_seconds(folder: Path) -> float:
    """Reading and computing, summed over all samples."""
    with open(folder / "timings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return sum(float(row["read_s"]) + float(row["compute_s"]) for row in rows)


@dataclass(frozen=True)
class Peak:
    """Largest resident memory of an evaluation of N samples."""

    samples: int
    gigabytes: float


def memory() -> list[Peak]:
    """For N = 16, 32 and 64 samples of a tiny network."""
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        root = synthesize(
            Path(folder) / "root",
            split="mini_val",
            scenes=2,
            samples=max(SIZES) // 2,
            image_size=(112, 200),
        )
        for n in SIZES:
            settings = (*TINY, f"data.dataroot={json.dumps(str(root))}")
            arguments = _arguments(Path(folder) / str(n), n, settings)
            said = _run([sys.executable, "-c", _PEAK, *arguments])
            peaks.append(Peak(n, int(said.split()[-1]) / 2**20))
    return peaks
