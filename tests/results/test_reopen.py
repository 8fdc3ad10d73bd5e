"""Samples that were skipped are done when their data is back; all else stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lmd_cli.data import Sample
from lmd_cli.errors import DataError, ResultsError
from lmd_cli.evaluation.comparisons import table_comparisons
from lmd_cli.results.digits import figure_text, largest
from lmd_cli.results.pair_rows import Stretch, merge, missing
from lmd_cli.results.record import require_own
from lmd_cli.results.reopen import reopen
from lmd_cli.results.run_folder import RunFolder
from lmd_cli.results.summary import METRIC_FIELDS, paper_table
from lmd_cli.workflows.finish import _require_any

SAMPLES = 7


class Some:
    """Samples, some of which cannot be read."""

    tokens = [f"s{i}" for i in range(SAMPLES)]  # noqa: RUF012

    def __init__(self, lost: set[str]) -> None:
        self.lost = lost

    def __getitem__(self, index: int) -> Sample:
        if self.tokens[index] in self.lost:
            raise DataError("lost", token=self.tokens[index])
        return Sample(self.tokens[index], "scene", {"x": torch.zeros(1)})


def add(stretch: Stretch, position: int, lost: set[str]) -> None:
    """A sample whose partner is the next one."""
    token, partner = f"s{position}", f"s{(position + 1) % SAMPLES}"
    if token in lost:
        stretch.append([], (position, token, "skipped: lost", 0, "", None, None, None, None))
        return
    absent = partner if partner in lost else ""
    pairs = [(token, partner, 1, "identity-ratio", "radar", "radar", 0.5, position / 3)]
    row = (position, token, "ok", 0 if absent else 1, absent, 1, 2, 1e-7, None)
    stretch.append([] if absent else pairs, row)


def run(folder: Path, lost: set[str]) -> RunFolder:
    made = RunFolder(folder)
    made.rows().trim()
    for position in range(SAMPLES):
        add(made.rows(), position, lost)
    return made


def contents(made: RunFolder) -> tuple[bytes, bytes]:
    return made.file("pairs.csv").read_bytes(), made.file("samples.csv").read_bytes()


@pytest.mark.parametrize("lost", [{"s0"}, {"s3"}, {"s6"}, {"s2", "s4"}, {"s2", "s3"}, set("s0")])
def test_ends_as_if_nothing_had_been_skipped(tmp_path: Path, lost: set[str]) -> None:
    made = run(tmp_path / "run", lost)
    assert set(reopen(made.path, Some(set()))) == lost & set(Some.tokens)
    done = merge(made.path)
    todo = missing(made.path, done, SAMPLES)
    again = {position for part in todo for position in part}
    own = {int(token[1:]) for token in lost & set(Some.tokens)}
    assert again == own | {(i - 1) % SAMPLES for i in own}  # and those whose partner they are
    for part in todo:
        stretch = made.rows() if part.start == done else Stretch(made.path, part.start)
        stretch.trim()
        for position in part:
            add(stretch, position, set())
    assert merge(made.path) == SAMPLES
    assert contents(made) == contents(run(tmp_path / "clean", set()))


def test_what_is_still_lost_stays_skipped(tmp_path: Path) -> None:
    made = run(tmp_path / "run", {"s2", "s5"})
    before = contents(made)
    assert reopen(made.path, Some({"s2", "s5"})) == []
    assert contents(made) == before
    assert reopen(made.path, Some({"s5"})) == ["s2"]
    assert b"s5" in contents(made)[1] or (made.path / "rows").is_dir()
    assert missing(made.path, merge(made.path), SAMPLES) == [range(1, 3)]


def test_nothing_readable_is_no_success() -> None:
    _require_any([{"status": "ok"}, {"status": "skipped: lost"}])
    with pytest.raises(DataError, match="none of the 2 samples could be read; the first: lost"):
        _require_any([{"status": "skipped: lost"}, {"status": "skipped: gone"}])


def test_the_same_root_has_many_names() -> None:
    def record(dataroot: str, split: str = "val") -> dict[str, Any]:
        return {"config": {"data": {"dataroot": dataroot, "split": split}}, "samples": {"count": 3}}

    require_own(record("data/nuscenes"), record("/mnt/disk/nuscenes"), Path("run"), None)
    with pytest.raises(ResultsError, match=r"config\.data\.split"):
        require_own(record("a", "val"), record("a", "train"), Path("run"), None)


# -- digits -------------------------------------------------------------------------------------


def metrics(scale: float) -> pd.DataFrame:
    rows = [
        ("identity-ratio", perturbed, target, "", 0.004, 0.1, scale * mse, scale / 7, 9, 0)
        for perturbed, target, mse in (
            *(("radar", "radar", 1.0), ("radar", "camera", 0.0)),
            *(("camera", "radar", 1e-9), ("camera", "camera", 0.5)),
        )
    ]
    return pd.DataFrame(rows, columns=list(METRIC_FIELDS))


def test_errors_of_small_outputs_show_digits() -> None:
    cells = table_comparisons(("camera", "radar"))
    usual, small = (paper_table(metrics(s), cells).iloc[0] for s in (3.0, 3e-5))
    assert (usual["MSE R_p/R"], usual["MSE C_p/C"]) == ("3.00 ± 0.43", "1.50 ± 0.43")
    assert (small["MSE R_p/R"], small["MSE C_p/C"]) == ("3e-05 ± 4.3e-06", "1.5e-05 ± 4.3e-06")
    assert small["MSE R_p/C"].startswith("0.00 ± ")  # exactly
    assert small["MSE C_p/R"].startswith("0.00 ± ")  # rounding of the largest
    assert small["PCC R_p/R"] == usual["PCC R_p/R"] == "0.00 ± 0.10"


def test_small_figures_beside_large_ones_show_digits() -> None:
    assert largest([-0.09, float("nan"), 1e-9]) == 0.09
    assert largest([]) == 0.0
    assert figure_text(0.0149, 0.0, scale=3.0) == "0.015 ± 0.00"
    assert figure_text(3.0, 0.0004, scale=3.0) == "3.00 ± 0.0004"
    assert figure_text(-2.9e-6, 0.5, scale=3.0) == "0.00 ± 0.50"  # rounding of the largest
    assert figure_text(-0.004, 0.0149) == "0.00 ± 0.01"  # a correlation
