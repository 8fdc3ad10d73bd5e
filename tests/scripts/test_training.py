"""The demo's training script at a toy size: steps, resuming, scores, the card."""

from __future__ import annotations

import copy
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import train_demo
from torch import Tensor
from training import conditions, demos
from training import frames as demo_frames
from training import scoring as demo_scoring
from training import training as demo_training

from lmd_cli.assembly.build import untrained
from lmd_cli.config.loading import load_config
from lmd_cli.data import NuScenesSamples
from lmd_cli.data.synthetic import synthesize
from lmd_cli.geometry import Grid
from lmd_cli.networks import SimpleBEV
from lmd_cli.networks.crn import CRN, CRNSizes
from lmd_cli.networks.simplebev.unprojection import unproject
from tests.support.tiny_settings import simplebev_sizes

SIZE, GRID = (32, 56), Grid((16, 4, 16))
RECIPE = demo_training.MapRecipe(epochs=2, batch=2, sensor_dropout=0.5)


def tiny_network(modalities: tuple[str, ...] = ("camera", "radar")) -> SimpleBEV:
    return SimpleBEV(modalities, grid=GRID, encoder="res50", widths=simplebev_sizes())


def samples(root: Path, modalities: tuple[str, ...]) -> NuScenesSamples:
    return NuScenesSamples(
        root,
        "v1.0-mini",
        "mini_val",
        modalities=modalities,
        nsweeps=2,
        image_size=SIZE,
        grid=GRID,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "root"
    return synthesize(folder, split="mini_val", scenes=1, samples=3, image_size=(112, 200))


@pytest.fixture(scope="module")
def data(root: Path) -> NuScenesSamples:
    return samples(root, ("camera", "radar"))


@pytest.fixture(scope="module")
def loaded(data: NuScenesSamples) -> tuple[list[demo_frames.Frame], demo_frames.Calibration]:
    return demo_frames.load_frames([data])


def trainer(loaded, checkpoint: Path, recipe=RECIPE) -> demo_training.Trainer:
    return demo_training.Trainer(tiny_network(), *loaded, recipe, checkpoint, log=lambda line: None)


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_the_sparse_lift_is_the_unprojection(loaded) -> None:
    _, calibration = loaded
    features = torch.randn(2, 6, 3, 4, 7, generator=torch.Generator().manual_seed(0))
    for view in (calibration, calibration.mirrored()):
        lifted = demo_frames.Lift(view, GRID, (4, 7))(features)
        cameras = (view.pix_T_cams.expand(2, -1, -1, -1), view.cam0_T_camXs.expand(2, -1, -1, -1))
        expected = unproject(features, *cameras, GRID, SIZE)
        assert expected.abs().max() > 0.5
        torch.testing.assert_close(lifted, expected, atol=1e-5, rtol=0)


def test_the_lift_has_the_gradient_of_a_linear_map(loaded) -> None:
    lift = demo_frames.Lift(loaded[1], GRID, (4, 7))
    features = torch.randn(1, 6, 2, 4, 7, requires_grad=True)
    weights = torch.randn(1, 8, 16, 16)
    (lift(features) * weights).sum().backward()
    assert features.grad is not None
    other = torch.randn_like(features)
    torch.testing.assert_close(
        (features.grad * other).sum(), (lift(other) * weights).sum(), atol=1e-3, rtol=1e-4
    )


def test_the_mirror_image_mirrors_features_and_truth(loaded) -> None:
    """Mirrored calibration on mirrored feature maps gives the mirrored bird's-eye view."""
    frames, calibration = loaded
    features = torch.randn(1, 6, 3, 32, 56, generator=torch.Generator().manual_seed(0))
    plain = demo_frames.Lift(calibration, GRID, SIZE)(features)
    mirrored = demo_frames.Lift(calibration.mirrored(), GRID, SIZE)(features.flip(-1))
    # Voxels at the picture's edges aside, where the sampling of the published code is lopsided.
    same = (plain.flip(-1) - mirrored).abs() < 0.2 * plain.abs().max()
    assert same.float().mean() > 0.97
    first = demo_frames.make_batch(frames[:1], mirror=False)
    second = demo_frames.make_batch(frames[:1], mirror=True)
    assert torch.equal(first["images"].flip(-1), second["images"])  # type: ignore[union-attr]
    assert torch.equal(first["radar_xyz"][0][:, 0], -second["radar_xyz"][0][:, 0])
    a, b = first["segmentation"], second["segmentation"]
    assert isinstance(a, Tensor)
    assert isinstance(b, Tensor)
    overlap = torch.nn.functional.max_pool2d(a.flip(-1), 3, 1, 1) * b
    assert overlap.sum() == b.sum() > 0  # the rasteriser rounds to one side


def test_two_steps_change_every_weight(loaded, tmp_path: Path) -> None:
    run = trainer(loaded, tmp_path / "state")
    before = copy.deepcopy(run.network.state_dict())
    run.train(until=1)
    assert run.steps == 2
    moved = [n for n, v in run.network.named_parameters() if not torch.equal(v, before[n])]
    still = {n for n, _ in run.network.named_parameters()} - set(moved)
    # The two feature heads are no part of the loss; they only decay.
    assert all("feat_head" in name for name in still)


def test_training_reduces_the_loss(loaded, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = replace(RECIPE, epochs=8, sensor_dropout=0.0, peak_rate=1e-2)
    run = demo_training.Trainer(
        tiny_network(), *loaded, recipe, tmp_path / "state", log=lines.append
    )
    run.train()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.8 * losses[0]


def test_resuming_gives_the_same_weights(loaded, tmp_path: Path) -> None:
    whole = trainer(loaded, tmp_path / "whole")
    whole.train()
    trainer(loaded, tmp_path / "parts").train(until=1)
    second = trainer(loaded, tmp_path / "parts")
    second.resume()
    assert second.epoch == 1
    second.train()
    assert_same(second.network.state_dict(), whole.network.state_dict())


def test_another_recipe_does_not_resume(loaded, tmp_path: Path) -> None:
    trainer(loaded, tmp_path / "state").train(until=1)
    other = trainer(loaded, tmp_path / "state", replace(RECIPE, peak_rate=1e-4))
    with pytest.raises(ValueError, match="another run"):
        other.resume()


def test_seeds_decide_the_initial_weights() -> None:
    networks = [tiny_network() for _ in range(3)]
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        demo_training.initialise(network, seed)
    assert_same(networks[0].state_dict(), networks[1].state_dict())
    weights = [n.get_parameter("bev_compressor.0.weight") for n in networks]
    assert not torch.equal(weights[0], weights[2])


def test_scores_follow_their_definitions(data: NuScenesSamples) -> None:
    class Oracle(SimpleBEV):
        """Answers with the truth; without the radar, with nothing."""

        def encode(self, batch):  # type: ignore[no-untyped-def]
            truth = batch["segmentation"]
            return {"camera": torch.ones_like(truth), "radar": truth}

        def fuse(self, features, outputs=("segmentation",)):  # type: ignore[no-untyped-def]
            return {"segmentation": features["radar"] * 20 - 10}

    scores = demo_scoring.evaluate(Oracle(grid=GRID, encoder="res50"), data)
    assert scores[""].figure == scores["camera"].figure == 1.0
    assert scores["radar"].figure == 0.0
    for name, actual in scores[""].detected.items():
        assert actual
        assert all(actual), name
        assert not any(scores["radar"].detected[name])


def test_the_weights_and_card_are_written(loaded, data, tmp_path: Path, monkeypatch) -> None:
    run = trainer(loaded, tmp_path / "state")
    run.train(until=1)
    monkeypatch.setattr(train_demo, "demo_root", lambda *_: data.dataroot)
    monkeypatch.setattr(demos.MapDemo, "samples", lambda *_: data)
    arguments = Namespace(output=tmp_path / "models", cache=None)
    path = train_demo.write(demos.DEMOS["radar_cam"], run, arguments)
    text = path.with_suffix(".md").read_text()
    assert train_demo.file_sha256(path) in text
    assert f"parameters: {sum(p.numel() for p in run.network.parameters())}" in text
    assert "| radar zeroed |" in text
    again = tiny_network()
    assert train_demo.load_checkpoint(path, again) == train_demo.file_sha256(path)


@pytest.mark.parametrize("key", demos.DEMOS)
def test_a_demo_network_fits_its_file(key: str) -> None:
    network = demos.DEMOS[key].build()
    assert sum(v.numel() * v.element_size() for v in network.state_dict().values()) < 2_980_000


@pytest.mark.parametrize("key", demos.DEMOS)
def test_a_demo_network_has_every_layer_type(key: str) -> None:
    network = demos.DEMOS[key].build()
    published = (
        CRN(CRNSizes.published(18))
        if isinstance(network, CRN)
        else SimpleBEV(network.modalities, grid=network.grid, encoder="res50")
    )
    assert {type(m) for m in network.modules()} == {type(m) for m in published.modules()}


@pytest.mark.parametrize("modalities", [("camera", "lidar"), ("camera", "radar", "lidar")])
def test_any_sensor_set_trains(root: Path, modalities: tuple[str, ...], tmp_path: Path) -> None:
    """One epoch; every fusion weight of every sensor that has anything in the frames moves."""
    frames = demo_frames.load_frames([samples(root, modalities)])
    network = tiny_network(modalities)
    run = demo_training.Trainer(network, *frames, RECIPE, tmp_path / "state", log=lambda line: None)
    layer = network.get_parameter("bev_compressor.0.weight")
    before = layer.detach().clone()
    run.train(until=1)
    assert run.steps == 2
    sizes = list(network.channels().values())
    for part, old in zip(layer.split(sizes, dim=1), before.split(sizes, dim=1), strict=True):
        assert not torch.equal(part, old)


def test_lidar_voxels_are_those_of_the_network(root: Path) -> None:
    data = samples(root, ("camera", "lidar"))
    frames, _ = demo_frames.load_frames([data])
    network = tiny_network(("camera", "lidar"))
    plain, mirrored = (demo_frames.make_batch(frames, mirror)["lidar"] for mirror in (False, True))
    assert isinstance(plain, Tensor)
    assert isinstance(mirrored, Tensor)
    for i in range(len(data)):
        expected = network.encode_lidar({"lidar_xyz": [data[i].tensors["lidar_xyz"]]})
        assert torch.equal(plain[i], expected[0])
        flipped = data[i].tensors["lidar_xyz"] * torch.tensor([-1.0, 1.0, 1.0])
        assert torch.equal(mirrored[i], network.encode_lidar({"lidar_xyz": [flipped]})[0])
    assert 0 < plain.mean() < 0.5


@pytest.mark.parametrize(
    ("modalities", "seen", "name"),
    [
        (("camera", "radar"), ("camera", "radar", "lidar"), "both"),
        (("camera", "radar"), ("radar", "lidar"), "radar only"),
        (("camera", "radar"), ("lidar",), "neither (LiDAR only)"),
        (("camera", "lidar"), ("radar",), "neither (radar only)"),
        (("camera", "lidar"), ("radar", "lidar"), "LiDAR only"),
        (("camera", "radar", "lidar"), ("camera", "lidar"), "several"),
        (("camera", "radar", "lidar"), ("lidar",), "LiDAR only"),
    ],
)
def test_classes_go_by_the_sensors_of_the_network(
    modalities: tuple[str, ...], seen: tuple[str, ...], name: str
) -> None:
    evidence = {sensor: sensor in seen for sensor in ("camera", "radar", "lidar")}
    assert conditions.class_of(evidence, modalities) == name
    assert name in conditions.classes(modalities)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ("demo.yaml", "radar_cam"),
        ("demo_lidar.yaml", "lidar_cam"),
        ("demo_three.yaml", "radar_lidar_cam"),
        ("demo_crn.yaml", "crn"),
    ],
)
def test_a_config_describes_its_demo_network(config: str, key: str) -> None:
    parsed = load_config(config)
    demo = demos.DEMOS[key]
    assert parsed.model.checkpoint == f"models/{demo.name}.safetensors"
    network, built = demo.build(), untrained(parsed)
    assert built.modalities == network.modalities
    for name in ("grid", "sizes", "radar"):
        assert getattr(built, name, None) == getattr(network, name, None)
    shapes = [{n: v.shape for n, v in net.state_dict().items()} for net in (network, built)]
    assert shapes[0] == shapes[1]
