"""Variants that share their partners' passes give what each gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.assembly.forward import fused_parts
from lmd_cli.config.loading import load_config
from lmd_cli.data import collate
from lmd_cli.decomposition import Variant, set_module_rules, variant_names
from lmd_cli.decomposition.linearised.program import Program
from lmd_cli.evaluation.variants import Prediction, VariantPredictions, base_variant
from lmd_cli.evaluation.walk import Encoding, Skipped, Visit
from tests.support.predict_alone import predict_alone


@pytest.fixture(scope="module")
def setting(tiny_config: Path) -> tuple[Any, Visit]:
    """A network in float64 and a visit with two partners and one that could not be read."""
    config = load_config(str(tiny_config))
    network: Any = build_network(config, torch.device("cpu")).network.double()
    dataset = build_dataset(config)

    def encoding(index: int) -> Encoding:
        batch = collate([dataset[index]])
        wide = {**batch, "images": batch["images"].double()}  # type: ignore[union-attr]
        wide["radar_features"] = [f.double() for f in batch["radar_features"]]
        with torch.no_grad():
            features = network.encode(wide)
        return Encoding(index, dataset.tokens[index], fused_parts(network, features), features)

    partners = [encoding(1), Skipped(2, "gone", "unreadable"), encoding(3)]
    return network, Visit(0, encoding(0), partners)


def predictions(network: Any, visit: Visit, names: list[str]) -> dict[str, Prediction]:
    """By the variants' names."""
    together = VariantPredictions(network, visit, "segmentation")
    return {name: together.under(Variant.parse(name)) for name in names}


def close(actual: Tensor, wanted: Tensor, scale: float) -> None:
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-11 * scale)


def same(actual: Prediction, wanted: Prediction) -> None:
    scale = max(float(part.abs().max()) for part in wanted.parts.values())
    assert torch.equal(actual.total, wanted.total)
    for name, part in wanted.parts.items():
        close(actual.parts[name], part, scale)
        assert actual.perturbed[name][1] is None
        for a, b in zip(actual.perturbed[name], wanted.perturbed[name], strict=True):
            if a is not None and b is not None:
                close(a, b, scale)


def test_every_variant_is_as_by_itself(setting: tuple[Any, Visit]) -> None:
    network, visit = setting
    actual = predictions(network, visit, variant_names())
    assert list(actual) == variant_names()
    for variant, prediction in actual.items():
        same(prediction, predict_alone(network, visit, Variant.parse(variant), "segmentation"))


def test_a_variant_does_not_depend_on_the_company_it_keeps(setting: tuple[Any, Visit]) -> None:
    network, visit = setting
    names = ["uniform-identity", "identity-uniform", "identity-identity"]
    together = predictions(network, visit, names)
    for name in names:
        (alone,) = predictions(network, visit, [name]).values()
        for part, maps in alone.perturbed.items():
            for a, b in zip(maps, together[name].perturbed[part], strict=True):
                assert (a is None) == (b is None)
                assert a is None or torch.equal(a, b)


def test_rules_of_some_modules_hold_under_every_variant(setting: tuple[Any, Visit]) -> None:
    network, visit = setting
    names = ["identity-identity", "uniform-identity", "identity-uniform"]
    without = predictions(network, visit, names)
    set_module_rules(network, {"decoder.*": {"batch_norm": "uniform", "norm": "ratio"}})
    try:
        actual = predictions(network, visit, names)
        for name in names:
            same(actual[name], predict_alone(network, visit, Variant.parse(name), "segmentation"))
            assert not torch.equal(actual[name].parts["camera"], without[name].parts["camera"])
    finally:
        set_module_rules(network, {})


def counted_passes(network: Any, visit: Visit, names: list[str]) -> tuple[int, list[Any]]:
    """How often the tail was decomposed, and what went through its linear maps: how many partners
    at a time, or the origin of the constants."""
    calls, streams, tail, run = [0], [], network.tail, Program.run

    def counted(fused: Tensor, outputs: Any) -> Any:
        calls[0] += 1
        return tail(fused, outputs)

    def noted(self: Program, starts: Any, stream: Any) -> Any:
        rows = {len(buffer.rows) for buffer in starts.values()}
        streams.extend(rows or {stream.origin or stream.rows})
        return run(self, starts, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "tail", counted)
        patch.setattr(Program, "run", noted)
        predictions(network, visit, names)
    return calls[0], streams


def test_partners_go_through_once_for_a_base_variant(setting: tuple[Any, Visit]) -> None:
    network, visit = setting
    four = ["uniform-identity", "identity-identity", "identity-uniform", "identity-ratio"]
    calls, streams = counted_passes(network, visit, four)
    assert calls == 2  # a decomposition for each base_variant
    assert sorted(streams, key=str) == [2] * 4 + ["batch_norm", "norm"]  # two modalities for each


def test_constants_go_through_only_if_shared_out(setting: tuple[Any, Visit]) -> None:
    network, visit = setting
    for names in (["identity-ratio"], ["identity-identity"]):
        assert counted_passes(network, visit, names) == (1, [2, 2])
    assert counted_passes(network, visit, ["uniform-ratio"]) == (1, [2, 2, "batch_norm"])


def test_the_derivative_is_a_base_of_its_own(setting: tuple[Any, Visit]) -> None:
    """Its slopes are not the secant's (of GELU, here)."""
    network, visit = setting
    names = ["identity-ratio", "uniform-identity-taylor-frozen"]
    actual = predictions(network, visit, names)
    same(actual[names[1]], predict_alone(network, visit, Variant.parse(names[1]), "segmentation"))


def test_base_variants() -> None:
    def base(name: str) -> str:
        return base_variant(Variant.parse(name)).name

    assert {base(name) for name in variant_names()} == {"identity-ratio", "identity-identity"}
    assert base("uniform-uniform-sum-taylor") == "identity-identity-identity-taylor"
    assert base("uniform-ratio-taylor-frozen") == "identity-ratio-taylor-frozen"


def test_coalitions_behind_the_fusion_layer(setting: tuple[Any, Visit]) -> None:
    """Partners through the program, along every edge, as those that ride along."""
    network, visit = setting
    (prediction,) = predictions(network, visit, ["coalitions"]).values()
    same(prediction, predict_alone(network, visit, Variant.parse("coalitions"), "segmentation"))
    assert float(prediction.residual) < 1e-12
