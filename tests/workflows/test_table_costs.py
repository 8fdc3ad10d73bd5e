"""What tables cost beside an evaluation of one variant: maps that leave the decoder, with the
protocol's 12 offsets, of a sample in the middle of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from benchmarks.crn import random_constants, random_features
from benchmarks.tables import Counter
from torch.utils import _pytree as pytree

from lmd_cli.assembly.forward import fused_parts
from lmd_cli.attribution.linearised import LmdShapley
from lmd_cli.attribution.removal import Shapley
from lmd_cli.evaluation.comparisons import table_comparisons
from lmd_cli.evaluation.measure import VERIFIED, Task, measure
from lmd_cli.evaluation.walk import Encoding, Visit, explained_encoding
from lmd_cli.geometry import Grid
from lmd_cli.networks import random_weights
from lmd_cli.networks.crn.network import CRN
from lmd_cli.networks.simplebev.network import SimpleBEV
from lmd_cli.workflows.setup import resolve_methods
from lmd_cli.workflows.table import table_methods
from tests.support.tiny_settings import crn_sizes, simplebev_sizes

OFFSETS = 12
SAMPLES = 3
#: As the demos' configs have them.
EVALUATED = ["lmd:identity-ratio", "lmd:identity-identity", "lmd:uniform-identity"]
#: For each kind of demo the table of variants, and all tables that apply.
TABLES = {"two": (2, (1, 2, 4, 6)), "three": (8, (4, 7, 8)), "crn": (2, (1, 2, 4, 6, 9, 10))}


@cache
def network(kind: str) -> tuple[Any, list[Encoding], str]:
    """A small one with every layer of the demo's, samples of random features, and the output."""
    if kind == "crn":
        return _crn()
    sensors = ("camera", "radar", "lidar")[: 2 if kind == "two" else 3]
    sizes, grid = simplebev_sizes(), Grid((8, 2, 8))
    made = SimpleBEV(sensors, grid=grid, encoder="res50", widths=sizes).eval()
    random_weights(made)
    samples = []
    for index in range(SAMPLES):
        features = {name: torch.randn(1, c, 8, 8) for name, c in made.channels().items()}
        samples.append(Encoding(index, str(index), fused_parts(made, features), None))
    return made, samples, "segmentation"


def _crn() -> tuple[Any, list[Encoding], str]:
    chosen = crn_sizes(backbone=50, cells=8, points=1, heads=1, image_size=(32, 64), key_frames=1)
    made = CRN(chosen).eval()
    random_weights(made)
    features, constants = random_features(chosen, 1), random_constants(chosen, 1)
    samples = [
        Encoding(index, str(index), None, scaled(features, 1 + index / 4), constants)
        for index in range(SAMPLES)
    ]
    return made, samples, "heatmap.car"


def scaled(tree: Any, factor: float) -> Any:
    return pytree.tree_map(lambda x: factor * x, tree)


def passes(kind: str, methods: Sequence[str]) -> int:
    """They grow by the offset, so two numbers of offsets tell."""
    none, one = (_counted(kind, methods, offsets) for offsets in (0, 1))
    return none + OFFSETS * (one - none)


def _counted(kind: str, methods: Sequence[str], offsets: int) -> int:
    made, samples, output = network(kind)
    clean = [replace(sample, known={}) for sample in samples]
    visits = [Visit(VERIFIED + k, clean[k], clean[k + 1 : k + 1 + offsets]) for k in (0, 1)]
    comparisons = table_comparisons(made.modalities)
    variants, baselines = resolve_methods(methods, [])
    # The sample before has worked out what is its partners' own.
    before = [method for method in baselines if isinstance(method, Shapley | LmdShapley)]
    if before:
        measure(Task(made, output, comparisons, (), before), visits[0])
    what = explained_encoding(made, output, samples[0])
    with Counter() as plain, torch.no_grad():
        what.fuse(**what.features)
    with Counter(plain.last) as counter:
        measure(Task(made, output, comparisons, variants, baselines), visits[1])
    return counter.maps


@cache
def evaluated(kind: str) -> int:
    return passes(kind, EVALUATED[:1])


@pytest.mark.parametrize("kind", TABLES)
def test_one_variant(kind: str) -> None:
    """The total, the clean parts with the bias, and each sensor of each partner."""
    sensors = len(network(kind)[0].modalities)
    interaction = kind == "crn"
    assert evaluated(kind) == 1 + sensors + 1 + interaction + sensors * OFFSETS


@pytest.mark.parametrize("kind", TABLES)
def test_four_variants(kind: str) -> None:
    """Two families, and two kinds of constants; with the encoder it is less than 2.0 times one."""
    assert passes(kind, table_methods([TABLES[kind][0]])) == 2 * evaluated(kind) + 2


@pytest.mark.parametrize(("kind", "bound"), [("two", 9), ("crn", 10)])
def test_all_tables(kind: str, bound: int) -> None:
    assert passes(kind, table_methods(TABLES[kind][1])) <= bound * evaluated(kind)


def test_all_tables_of_three_sensors_take_what_they_must() -> None:
    """Of each partner: 9 coalitions with a sensor of the clean sample, for Shapley values and for
    the bias part; 12 for each of two baselines. They are at most 10 times what the demo's config
    evaluates, and more than 10 times one variant."""
    shapley = 2**3 + 9 * OFFSETS
    baseline = 4 + 12 * OFFSETS
    variants = passes("three", table_methods([8]))
    all_tables = passes("three", table_methods(TABLES["three"][1]))
    assert all_tables == variants + 5 + 2 * shapley + 2 * baseline
    assert all_tables <= 10 * passes("three", EVALUATED)


def test_shapley_costs_its_coalitions() -> None:
    """2^M of the sample; of a partner those with a sensor of the sample's, its own just once."""
    assert passes("two", ["shapley"]) == 4 + 2 * OFFSETS
    assert passes("three", ["shapley"]) == 8 + 9 * OFFSETS
    assert passes("crn", ["shapley"]) == 4 + 4 * OFFSETS  # features alone do not tell a sample's
