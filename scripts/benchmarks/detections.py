"""What ``lmd detect`` costs: decoding a sample's maps, and a sample against the survey's.

python scripts/benchmarks/detections.py          # CRN's published R50 maps, SimpleBEV's
python scripts/benchmarks/detections.py --demo demo_crn.yaml
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from lmd_cli.config.loading import load_config
from lmd_cli.config.sizes import CRNSizes
from lmd_cli.evaluation.ground.plane import plane_of
from lmd_cli.geometry import Grid
from lmd_cli.networks.crn.decoding import decode
from lmd_cli.networks.crn.head import BRANCHES, HEATMAP
from lmd_cli.networks.simplebev.instances import instances
from lmd_cli.results.survey import Draft
from lmd_cli.runtime.progress import Silent
from lmd_cli.workflows.detect import WhoseParts, prepare
from lmd_cli.workflows.detect_sample import sample_entry
from lmd_cli.workflows.ready import make_ready


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """The smallest of the process's own time, which neighbours on the machine do not change."""
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1000 * min(times)


def crn_maps(sizes: CRNSizes) -> dict[str, torch.Tensor]:
    """Maps of every head as trained ones are: a few dozen peaks above a low background."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    maps = {}
    for number, task in enumerate(sizes.tasks):
        for name, channels in {**BRANCHES, HEATMAP: len(task)}.items():
            maps[f"task{number}.{name}"] = 0.5 * normal(1, channels, sizes.cells, sizes.cells)
        maps[f"task{number}.{HEATMAP}"] += 4 * (normal(1, len(task), *(sizes.cells,) * 2) > 2.5) - 5
    return maps


def decoding(repeats: int) -> None:
    """Prints what decoding takes at the published sizes."""
    sizes, grid = CRNSizes(), Grid((200, 8, 200))
    maps = crn_maps(sizes)
    print(
        f"CRN R50, 6 tasks, 128 x 128: {milliseconds(lambda: decode(maps, sizes), repeats):.1f} ms"
    )
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 1, 25, 25, generator=generator)
    segmentation = torch.nn.functional.interpolate(coarse, size=(200, 200), mode="bicubic") * 4 - 6
    made = {
        "segmentation": segmentation,
        "instance_center": (segmentation / 8).sigmoid(),
        "instance_offset": torch.randn(1, 2, 200, 200, generator=generator),
    }
    taken = milliseconds(lambda: instances(made, grid, "offsets"), repeats)
    count = len(instances(made, grid, "offsets")[0].names)
    print(f"SimpleBEV, 200 x 200, {count} instances: {taken:.1f} ms")


def against_survey(name: str, repeats: int) -> None:
    """Prints what a sample costs beside a survey's, the rules the same."""
    config = load_config(name, ["threads=1"])
    setting = prepare(config, WhoseParts([config.explain]), None, Silent(), None)
    ready, plane = make_ready(config), plane_of(config)
    detected = milliseconds(lambda: sample_entry(setting, 0), repeats)
    surveyed = milliseconds(lambda: Draft(0).add(ready.decompose(0), 0, plane), repeats)
    print(
        f"{name}: detect {detected:.0f} ms, survey {surveyed:.0f} ms, {detected / surveyed:.2f} x"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", metavar="YAML", help="also a sample of this config")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    decoding(given.repeats)
    if given.demo:
        against_survey(given.demo, given.repeats)
