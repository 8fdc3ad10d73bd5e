"""``lmd table`` on the tiny root, with random weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from lmd_cli.report.tables.spec import TABLES
from tests.support.calling import Lmd


@pytest.fixture(scope="module")
def made(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from lmd_cli.cli.app import app

    folder = tmp_path_factory.mktemp("tables")
    arguments = ["table", "all", "-c", str(tiny_config), "--output", str(folder), "--limit", "3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "not made: table 7 compares 3 modalities" in result.stdout
    assert "not made: table 9 is about attention" in result.stdout
    assert "Table 4 for tiny" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last == f"results: {folder}; next: lmd report {folder / 'run'}"
    return folder


def test_every_table_in_every_format(made: Path) -> None:
    for number in (1, 2, 3, 4, 6, 11):
        for kind in ("csv", "md", "tex"):
            text = (made / f"table{number}.{kind}").read_text()
            paper = (made / f"table{number}_paper.{kind}").read_text()
            if number not in (3, 11):
                assert "±" in paper or r"\pm" in paper
                assert kind == "csv" or "Random weights" in text
            assert kind == "csv" or "of the paper" in paper
    assert not (made / "table7.csv").exists()


def test_the_figures_are_the_runs(made: Path) -> None:
    metrics = pd.read_csv(made / "run" / "metrics.csv")
    lines = list(csv.reader((made / "table2.csv").open()))
    column = lines[1].index("C_p/C (↓)")
    for line, row in zip(lines[2:], TABLES[2].rows, strict=True):
        chosen = metrics[
            (metrics.variant == row.name)
            & (metrics.perturbed == "camera")
            & (metrics.target == "camera")
        ]
        mean, std = chosen.pcc_mean.item(), chosen.pcc_std.item()
        assert line[column].rstrip("*") == f"{mean:.2f} ± {std:.2f}"


def test_one_pass_serves_all_rows(made: Path) -> None:
    metrics = pd.read_csv(made / "run" / "metrics.csv")
    rows = {row.name for number in (1, 2, 4, 6) for row in TABLES[number].rows}
    assert set(metrics.variant) == rows
    assert len(pd.read_csv(made / "run" / "samples.csv")) == 3


def test_one_table_by_number(lmd: Lmd, tiny_config: Path, made: Path) -> None:
    result = lmd("table", 2, "-c", tiny_config, "--limit", 3)
    assert result.exit_code == 0, result.output
    folder = Path("results/tiny/table2")
    assert (folder / "table2.csv").read_bytes() == (made / "table2.csv").read_bytes()
    again = lmd("table", 2, "-c", tiny_config, "--limit", 3)  # from the rows that are there
    assert again.stdout == result.stdout


NEW = ["identity-ratio-shapley", "identity-ratio-reveal", "identity-ratio-rescale", "coalitions"]


def test_variants_that_the_paper_has_not_are_further_rows(
    lmd: Lmd, tiny_config: Path, made: Path
) -> None:
    chosen = f"variants=[identity-ratio,{','.join(NEW)}]"
    result = lmd("table", 2, "-c", tiny_config, "--limit", 3, "--set", chosen)
    assert result.exit_code == 0, result.output
    assert "Rows below the paper's are those of the config's variants" in " ".join(
        result.stdout.split()
    )
    folder = Path("results/tiny/table2")
    assert set(pd.read_csv(folder / "run" / "metrics.csv").variant) >= set(NEW)
    own, papers = (list(csv.reader((f / "table2.csv").open())) for f in (folder, made))
    assert [row[1] for row in own[2:]] == [row[1] for row in papers[2:]] + NEW
    plain = [[cell.rstrip("*") for cell in row] for row in own]
    assert plain[:6] == [[cell.rstrip("*") for cell in row] for row in papers]
    kept = [i for i, title in enumerate(own[1]) if title.startswith(("R_p/C", "C_p/R"))]
    for row in plain[6:]:
        assert {row[i].split(" ")[0] for i in kept} == {"1.00", "0.00"}
        assert all(row)


def test_a_variant_that_is_none_is_refused(lmd: Lmd, tiny_config: Path) -> None:
    for name in ("identity-coalitions", "identity-ratio-shapely"):
        result = lmd("table", 2, "-c", tiny_config, "--set", f"variants=[{name}]")
        assert result.exit_code == 2
        assert f"'{name}'" in result.output


def test_what_does_not_apply_is_refused(lmd: Lmd, tiny_config: Path) -> None:
    for number, why in ((8, "compares 3 modalities, and the model has 2"), (9, "about attention")):
        result = lmd("table", number, "-c", tiny_config)
        assert result.exit_code == 2
        said = " ".join(result.output.split())
        assert why in said
        assert "Tables for this model: 1, 2, 3, 4, 6, 11" in said
    result = lmd("table", 5, "-c", tiny_config)
    assert result.exit_code == 2
    assert "there is no table '5' to make" in result.output
    assert not Path("results").exists()


def test_costs_are_measured(made: Path) -> None:
    lines = list(csv.reader((made / "table3.csv").open()))[2:]
    actual = {(line[0], line[1]): line for line in lines}
    assert {name: line[2] for name, line in actual.items()} == {
        ("plain pass", ""): "1 FWD",
        ("LRP", "1"): "1 FWD + 1 BWD",
        ("LRP", "2"): "1 FWD + 1 BWD",
        ("Shapley-based", "1"): "2 FWD",
        ("Shapley-based", "2"): "4 FWD",
        ("LMD", "1"): "1 FWD",
        ("LMD", "2"): "1 FWD",
    }
    ratios = {name: float(line[4]) for name, line in actual.items()}
    assert ratios["Shapley-based", "2"] == 4.0
    assert ratios["LRP", "2"] == 3.0  # the network, its linear maps, and back through these
    assert 3.0 < ratios["LMD", "2"] <= 4.0  # the total, two parts and a bias that starts late
    assert all(float(line[5]) > 0 and float(line[7]) > 0 for line in lines)


def test_lrp_beside_lmd_is_measured(made: Path) -> None:
    text = (made / "table11.md").read_text()
    distance = float(text.split("differ by ")[1].split(" of")[0])
    residual = float(text.split("residual ")[1].split(" ")[0])
    assert distance < 0.05
    assert residual < 1e-4
