"""``lmd_cli.evaluate`` and the callback of a training loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import lmd_cli
from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.config.loading import load_config
from lmd_cli.errors import ConfigError, ContractError, MethodError
from lmd_cli.results.summary import read_pairs
from lmd_cli.workflows.evaluate import evaluate as evaluate_run


class Scans(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        noise = torch.Generator().manual_seed(index)
        torch.rand(1)  # as an augmentation would
        return {name: torch.randn(2, 6, 6, generator=noise) for name in ("camera", "radar")}


class Fusion(nn.Module):
    modalities = ("camera", "radar")

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Conv2d(4, 1, 1)

    def encode(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: batch[name] for name in self.modalities}

    def fuse(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"map": self.head(self.mix(torch.cat(list(features.values()), 1)))}


def test_figures_are_those_of_the_command(tiny_config: Path, tmp_path: Path) -> None:
    config = load_config(str(tiny_config))
    methods = ["shapley", "lmd", "lmd-shapley"]
    evaluate_run(config, tmp_path / "run", methods=methods)
    rows = read_pairs(tmp_path / "run" / "pairs.csv")
    network = build_network(config, torch.device("cpu")).network
    done = lmd_cli.evaluate(
        network,
        build_dataset(config),
        output="segmentation",
        variants=config.variants,
        methods=methods,
        count=2,
    )
    keys = ["sample_token", "offset", "variant", "perturbed", "target"]
    ours, theirs = (frame.set_index(keys).sort_index() for frame in (done.pairs, rows))
    assert list(ours.index) == list(theirs.index)
    assert list(ours["perturbed_token"]) == list(theirs["perturbed_token"])
    for name in ("pcc", "mse"):
        assert ours[name].tolist() == pytest.approx(theirs[name].tolist(), rel=1e-6, abs=1e-12)


def test_methods_have_shares_and_no_residual() -> None:
    done = lmd_cli.evaluate(Fusion(), Scans(), "pcc", methods="leave-one-out", count=2, limit=1)
    assert set(done.pairs["variant"]) == {"leave-one-out"}
    assert list(done.pairs["offset"]) == [1] * 4 + [2] * 4
    assert list(done.pairs["comparison"][:4]) == ["R_p/R", "R_p/C", "C_p/R", "C_p/C"]
    assert done.samples.filter(like="share_").sum(axis=1).tolist() == pytest.approx([1.0])
    assert "residual" not in done.scalars()
    assert -1 <= done.scalars()["R_p/C/pcc"] < 1  # nothing holds by construction
    with pytest.raises(MethodError, match="no method 'shaply'; did you mean 'shapley'"):
        lmd_cli.evaluate(Fusion(), Scans(), methods="shaply")
    with pytest.raises(MethodError, match="gives no map of the output"):
        lmd_cli.evaluate(Fusion(), Scans(), methods=["lrp"])


def furthest(after: Tensor, before: Tensor) -> Tensor:
    return (after - before).abs().max()


def test_metrics_of_ones_own_stand_beside_the_papers() -> None:
    done = lmd_cli.evaluate(Fusion(), Scans(), metrics=["pcc", furthest], count=2, limit=3)
    assert done.metrics == ("pcc", "furthest")
    assert len(done.pairs) == 3 * 2 * 4
    keep = done.summary["expected"] == "keep"
    assert (done.summary[keep]["furthest_mean"] == 0).all()
    assert (done.summary[~keep]["furthest_mean"] > 0).all()
    assert list(done.summary["pairs"]) == [6] * 4
    shares = done.samples.filter(like="share_")
    assert shares.sum(axis=1).tolist() == pytest.approx([1.0] * 3)
    scalars = done.scalars()
    assert scalars["share/radar"] == pytest.approx(shares["share_radar"].mean())
    assert scalars["R_p/C/furthest"] == 0.0
    assert "R_p/C" in done._repr_html_()
    named = lmd_cli.evaluate(Fusion(), Scans(), {"far": furthest}, limit=1)
    assert named.metrics == ("far",)


def test_a_loader_gives_its_samples_whatever_its_order() -> None:
    network = Fusion()
    plain = lmd_cli.evaluate(network, Scans(), count=1)
    loaded = lmd_cli.evaluate(network, DataLoader(Scans(), batch_size=3, shuffle=True), count=1)
    assert loaded.pairs.equals(plain.pairs)


def test_several_variants_are_named() -> None:
    rules = ("identity-ratio", "uniform-identity")
    scalars = lmd_cli.evaluate(Fusion(), Scans(), variants=rules, limit=1).scalars()
    assert {"identity-ratio/share/bias", "uniform-identity/R_p/R/mse"} < set(scalars)


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Two(Fusion):
    def fuse(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"map": features["camera"], "other": features["radar"]}


@pytest.mark.parametrize(
    ("network", "data", "options", "kind", "message"),
    [
        (nn.ReLU(), Scans(), {}, ContractError, "a ReLU without modalities and encode and fuse"),
        (Fusion(), DataLoader(Stream()), {}, ContractError, "iterable; partners are looked up"),
        (Fusion(), 3, {}, ContractError, "the second argument gave a int without __len__"),
        (Fusion(), Scans(), {"metrics": ["iou"]}, MethodError, "'iou' is not one of pcc, mse"),
        (Fusion(), Scans(), {"metrics": ["pcc", "pcc"]}, ConfigError, "two metrics are called"),
        (Fusion(), Scans(), {"metrics": [lambda a, b: "x"]}, ContractError, "metric <lambda>"),
        (Fusion(), Scans(), {"variants": ["ratio"]}, MethodError, "ratio"),
        (Fusion(), Scans(), {"count": 9}, ConfigError, "count is 9, but the data set has 5"),
        (Fusion(), [Scans()[0]], {}, ConfigError, "has 1 sample: at least 2 are needed, as each"),
        (Two(), Scans(), {}, ContractError, "gave map, other; say which output with output="),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    network: nn.Module, data: Any, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    network.train()
    with pytest.raises(kind, match=message):
        lmd_cli.evaluate(network, data, **options)
    assert network.training


def trained(callback: Any) -> tuple[Tensor, list[bool]]:
    """Three steps, with dropout and running statistics, from one seed."""
    torch.manual_seed(0)
    network = Fusion()
    network.mix[1].eval()  # a frozen norm stays frozen
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(3):
        batch = {name: torch.randn(2, 2, 6, 6) for name in network.modalities}
        network.fuse(network.encode(batch))["map"].square().mean().backward()
        optimiser.step()
        callback(network, step)
    state = [value.double().flatten() for value in network.state_dict().values()]
    return torch.cat(state), [module.training for module in network.modules()]


def test_training_is_not_disturbed_by_the_callback() -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    callback = lmd_cli.TrainingCallback(
        Scans(), every=2, log=lambda values, step: logged.append((step, values)), count=1, limit=2
    )
    (with_it, modes), (without, plain) = trained(callback), trained(lambda network, step: None)
    assert torch.equal(with_it, without)
    assert modes == plain
    assert [step for step, _ in logged] == [0, 2] == list(callback.evaluations)
    assert list(callback.history.index) == [0, 2]
    assert callback.history["share/camera"].tolist() == [v["share/camera"] for _, v in logged]
