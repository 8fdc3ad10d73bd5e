"""What an index costs, on a root with tables of trainval's size (scripts/benchmarks/big_root.py).

    python scripts/benchmarks/index.py /tmp/bigroot --split val

Every figure is of a process of its own: making the index (time, peak memory), opening it (time
beyond imports), and worker processes that go through every record of their share of the samples
(private memory, from /proc). ``--workers`` says how many of them.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = ("make", "open", "workers")


def private_memory(pid: int | str = "self") -> dict[str, float]:
    """MB that only this process has: written to, and mapped from a file (may be dropped)."""
    sizes = {"Private_Dirty": 0.0, "Private_Clean": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] = int(rest.split()[0]) / 1024
    return sizes


def samples(root: Path, split: str) -> Any:
    """The split as the evaluation opens it: camera, radar and LiDAR, five sweeps."""
    from lmd_cli.data import NuScenesSamples
    from lmd_cli.geometry import Grid

    options = {"nsweeps": 5, "image_size": (224, 400), "grid": Grid((200, 8, 200))}
    version = sorted(path.parent.name for path in root.glob("*/scene.json"))[0]
    modalities = ("camera", "radar", "lidar")
    return NuScenesSamples(root, version, split, modalities=modalities, **options)  # type: ignore[arg-type]


def make(root: Path, split: str, _: int) -> dict[str, float]:
    """Makes the index, devkit and all."""
    begin = time.perf_counter()
    dataset = samples(root, split)
    seconds = time.perf_counter() - begin
    path = dataset._records.split.path
    return {
        "samples": len(dataset),
        "seconds to make": seconds,
        "peak memory MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "size of the file MB": path.stat().st_size / 2**20,
    }


def open_it(root: Path, split: str, _: int) -> dict[str, float]:
    """Opens it once everything is imported."""
    import lmd_cli.data  # noqa: F401

    before = private_memory()["Private_Dirty"]
    begin = time.perf_counter()
    dataset = samples(root, split)
    first = dataset._records[0]
    seconds = time.perf_counter() - begin
    assert first.cameras
    assert "nuscenes" not in sys.modules
    begin = time.perf_counter()
    for index in range(0, len(dataset), max(len(dataset) // 500, 1)):
        dataset._records[index]
    per_record = (time.perf_counter() - begin) / 500
    return {
        "seconds to open and make one record": seconds,
        "milliseconds a record": 1e3 * per_record,
        "private memory it adds MB": private_memory()["Private_Dirty"] - before,
        "kB to pickle for a worker": len(pickle.dumps(dataset)) / 1024,
    }


def workers(root: Path, split: str, count: int) -> dict[str, float]:
    """Loader workers that make every record of their share."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    dataset = samples(root, split)

    class Touched(Dataset[torch.Tensor]):
        """A sample's private memory after its record was made, in a worker."""

        def __getitem__(self, index: int) -> torch.Tensor:
            assert "nuscenes" not in sys.modules
            assert dataset._records[index].cameras
            sizes = private_memory() if index % 100 > 90 else {}
            return torch.tensor([os.getpid(), *(sizes.values() or (0.0, 0.0))], dtype=torch.float64)

    order = list(range(len(dataset)))
    loader = DataLoader(Touched(), batch_size=None, sampler=order, num_workers=count)
    # Plain numbers: a tensor that came from a worker holds a file open.
    memory = torch.tensor([row.tolist() for row in loader], dtype=torch.float64)
    return {
        "worker processes": len(memory[:, 0].unique()),
        "most private memory of one, written MB": memory[:, 1].max().item(),
        "most private memory of one, file pages MB": memory[:, 2].max().item(),
    }


def main() -> None:
    """Runs each step in a process of its own and prints its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        measure = dict(zip(STEPS, (make, open_it, workers), strict=True))[arguments.step]
        print(json.dumps(measure(arguments.root, arguments.split, arguments.workers)))
        return
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache:
        for step in STEPS:
            command = [sys.executable, *sys.argv, "--step", step]
            environment = {**os.environ, "LMD_CACHE": cache}
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            figures |= json.loads(done.stdout)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<44} {value:10.3f}")


if __name__ == "__main__":
    main()
