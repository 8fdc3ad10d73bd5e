"""``lmd sanity``: do the parts depend on the weights? Rows, a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lmd_cli.assembly.build import BuiltNetwork, build_dataset, build_network
from lmd_cli.assembly.contract import FusionNetwork
from lmd_cli.assembly.forward import fuse_function
from lmd_cli.config.schema import RunConfig
from lmd_cli.evaluation.randomisation import SanityRow, mean_rows, sanity_rows
from lmd_cli.report.figures.sanity import sanity_png
from lmd_cli.results.finished import FinishedSamples
from lmd_cli.results.provenance import FINISHED
from lmd_cli.results.record import identity
from lmd_cli.runtime.files import csv_lines, write_atomically
from lmd_cli.runtime.stopwatch import Stopwatch
from lmd_cli.workflows.evaluate import Progress
from lmd_cli.workflows.ready import encode, start


@dataclass(frozen=True)
class Sanity:
    """The results of ``lmd sanity``: rows (means over samples), notes and files."""

    rows: list[SanityRow]
    notes: list[str]
    files: list[Path]


def run_sanity(
    config: RunConfig,
    folder: Path,
    limit: int,
    *,
    resume: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Sanity:
    """Runs the check with the config's first variant on its first samples.

    Every finished sample is kept: a run that was cut off goes on, and ends with the same bytes.

    Raises:
        ResultsError: the folder holds another run's results.
        LmdError: what the building of data and network raises.
    """
    device = start(config)
    built = build_network(config, device)
    dataset = build_dataset(config, progress)
    count, variant = min(limit, len(dataset)), config.variants[0]
    threads = torch.get_num_threads()
    record = {
        **identity(config, built, dataset, threads, device),
        "rows": [variant],
        "command": {"name": "sanity", "limit": limit},
    }
    finished, stopwatch = FinishedSamples(folder), Stopwatch()
    with finished.claimed(record, overwrite, dataset, resume=resume) as entries:
        if progress is not None:
            progress.start(max(count - len(entries), 0), "sanity")
        for index in range(len(entries), count):
            with stopwatch.reading():
                sample = dataset[index]
            entries.append({"sample": sample.token, "rows": _rows(config, built, sample, device)})
            finished.append(entries[-1])
            if progress is not None:
                progress.advance(note=f"sample {sample.token}", waiting=stopwatch.waiting_share)
        rows = mean_rows([[SanityRow(*row) for row in e["rows"]] for e in entries[:count]])
        files = _write(rows, folder, count)
        names = [path.name for path in files if path.suffix != ".json"]
        finished.finish({**record, "checked": count}, count, names)
    notes = [*_notes(variant, count, built), *([] if finished.computed else [FINISHED])]
    return Sanity(rows, notes, files)


def _rows(
    config: RunConfig, built: BuiltNetwork, sample: Any, device: torch.device
) -> list[tuple[Any, ...]]:
    """One sample's rows, as its line holds them."""
    features, constants = encode(built.network, [sample], device)

    def fuse_of(network: nn.Module) -> Callable[..., Tensor]:
        return fuse_function(cast(FusionNetwork, network), config.model.output, constants)

    variant = config.variants[0]
    rows = sanity_rows(built.network, fuse_of, features, variant, seed=config.seed)
    return [astuple(row) for row in rows]


def _notes(variant: str, count: int, built: BuiltNetwork) -> list[str]:
    notes = [
        f"{variant}, means over {count} samples; each layer's parameters are shuffled, "
        "from the output on, and stay so.",
        "A map that still resembles the trained network's with its weights random does not "
        "depend on them (Adebayo et al., 2018).",
    ]
    if built.random:
        notes.append("Random weights: the numbers say nothing about a trained network.")
    return notes


def _write(rows: Sequence[SanityRow], folder: Path, samples: int) -> list[Path]:
    header = tuple(f.name for f in fields(SanityRow))
    write_atomically(folder / "sanity.csv", csv_lines([header, *map(astuple, rows)]))
    write_atomically(folder / "sanity.png", sanity_png(rows, samples))
    return [folder / name for name in ("sanity.csv", "sanity.png", "run.json")]
