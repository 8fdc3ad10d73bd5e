"""SimpleBEV's interface: sensors, widths, splitting, and outputs on request."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lmd_cli.errors import ConfigError
from lmd_cli.geometry import Grid
from lmd_cli.networks import OUTPUTS, SimpleBEV, SimpleBEVSizes, random_weights
from lmd_cli.networks.simplebev.blocks import crop_to
from tests.support.reference_inputs import Size, reference_batch
from tests.support.tiny_settings import simplebev_sizes

SIZE = Size((64, 112), Grid((24, 4, 32)))
TINY = simplebev_sizes(latent=6, encoder_blocks=(1, 2, 1), upsampling=8, decoder_blocks=(1, 1, 2))
DEMO = simplebev_sizes(latent=32, stem=16, upsampling=48, decoder=16)


def network(modalities: tuple[str, ...] = ("camera", "radar"), **options) -> SimpleBEV:
    """A small network with seeded weights, in evaluation mode."""
    options = {"grid": SIZE.grid, "encoder": "res50", "widths": TINY} | options
    module = SimpleBEV(modalities, **options)
    random_weights(module)
    return module.eval()


def encoded(module: SimpleBEV, suffix: str = "") -> dict[str, Tensor]:
    """Features of the reference inputs."""
    with torch.no_grad():
        return module.encode(reference_batch(SIZE, suffix))


@pytest.mark.parametrize(
    ("modalities", "radar", "channels"),
    [
        (("camera",), "metaradar", {"camera": 24}),
        (("camera", "radar"), "metaradar", {"camera": 24, "radar": 64}),
        (("camera", "radar"), "occupancy", {"camera": 24, "radar": 1}),
        (("camera", "lidar"), "metaradar", {"camera": 24, "lidar": 4}),
        (("camera", "radar", "lidar"), "metaradar", {"camera": 24, "radar": 64, "lidar": 4}),
    ],
)
def test_every_set_of_sensors(
    modalities: tuple[str, ...], radar: str, channels: dict[str, int]
) -> None:
    module = network(modalities, radar=radar)
    features = encoded(module)
    assert {n: tuple(f.shape) for n, f in features.items()} == {
        name: (1, count, 24, 32) for name, count in channels.items()
    }
    assert all(f.count_nonzero() for f in features.values())
    assert module.bev_compressor[0].in_channels == sum(channels.values())
    logits = module.fuse(features)["segmentation"]
    assert logits.shape == (1, 1, 24, 32)
    assert logits.std() > 1e-3


def test_sensors_are_concatenated_in_the_published_order() -> None:
    module = network(("camera", "radar", "lidar"))
    features = encoded(module)
    together = torch.cat([features["camera"], features["radar"], features["lidar"]], dim=1)
    shuffled = {name: features[name] for name in ("lidar", "camera", "radar")}
    assert torch.equal(module.fusion_layer(shuffled), module.bev_compressor[0](together))


def test_radar_occupancy_is_one_bit_for_each_column() -> None:
    occupancy = encoded(network(radar="occupancy"))["radar"]
    columns = encoded(network(("camera", "lidar")))["lidar"]  # the rule is the same for LiDAR
    assert set(occupancy.unique().tolist()) == {0.0, 1.0}
    batch = reference_batch(SIZE)
    batch["radar_xyz"] = batch["lidar_xyz"]
    from_lidar = network(radar="occupancy").encode_radar(batch)
    assert torch.equal(from_lidar[:, 0], columns.amax(dim=1))


def test_outputs_have_the_documented_shapes() -> None:
    module = network()
    maps = module.fuse(encoded(module), OUTPUTS)
    shapes = {name: value.shape[1] for name, value in maps.items()}
    latent = {"feat": 6, "raw_feat": 6, "bev": 6}
    assert shapes == {"segmentation": 1, "instance_center": 1, "instance_offset": 2} | latent
    assert 0 < maps["instance_center"].min() < maps["instance_center"].max() < 1


@pytest.mark.parametrize("outputs", [("segmentation",), ("instance_center", "feat"), ("bev",), ()])
def test_only_the_heads_asked_for_are_run(outputs: tuple[str, ...]) -> None:
    module, ran = network(), []
    features = encoded(module)
    whole = module.fuse(features, OUTPUTS)
    for name, child in module.decoder.named_children():
        child.register_forward_hook(lambda *_, name=name: ran.append(name))
    asked = module.fuse(features, outputs)
    assert tuple(asked) == outputs
    assert all(torch.equal(asked[name], whole[name]) for name in outputs)
    heads = {name.removesuffix("_head") for name in ran if name.endswith("_head")}
    assert heads == set(outputs) - {"bev"}
    assert ("layer1" in ran) == bool(heads)


def test_forward_is_fuse_after_encode_and_fuse_is_tail_after_the_fusion_layer() -> None:
    module, batch = network(), reference_batch(SIZE)
    with torch.no_grad():
        features = module.encode(batch)
        logits = module(batch)["segmentation"]
        assert torch.equal(logits, module.fuse(features)["segmentation"])
        assert torch.equal(logits, module.tail(module.fusion_layer(features))["segmentation"])


def test_the_fusion_layer_is_linear_without_a_constant() -> None:
    module = network().double()
    first, second = encoded_double(module, ""), encoded_double(module, "/b")
    mixed = {name: 2 * first[name] - 3 * second[name] for name in first}
    expected = 2 * module.fusion_layer(first) - 3 * module.fusion_layer(second)
    torch.testing.assert_close(module.fusion_layer(mixed), expected, rtol=0, atol=1e-12)


def encoded_double(module: SimpleBEV, suffix: str) -> dict[str, Tensor]:
    batch = {
        name: [v.double() for v in value] if isinstance(value, list) else value.double()
        for name, value in reference_batch(SIZE, suffix).items()
    }
    with torch.no_grad():
        return module.encode(batch)


def test_each_sensor_changes_its_own_features_only() -> None:
    module = network(("camera", "radar", "lidar"))
    clean, batch = encoded(module), reference_batch(SIZE)
    other = reference_batch(SIZE, "/b")
    for name, keys in {
        "camera": ["images"],
        "radar": ["radar_xyz", "radar_features"],
        "lidar": ["lidar_xyz"],
    }.items():
        with torch.no_grad():
            changed = module.encode(batch | {key: other[key] for key in keys})
        differs = {n for n in clean if not torch.equal(clean[n], changed[n])}
        assert differs == {name}


def test_a_batch_gives_what_its_samples_give() -> None:
    module = network()
    batches = [reference_batch(SIZE, suffix) for suffix in ("", "/b")]
    both = {
        name: value + batches[1][name]
        if isinstance(value, list)
        else torch.cat([value, batches[1][name]])
        for name, value in batches[0].items()
    }
    with torch.no_grad():
        together = module(both, OUTPUTS)
        alone = [module(batch, OUTPUTS) for batch in batches]
    for name in OUTPUTS:
        expected = torch.cat([maps[name] for maps in alone])
        torch.testing.assert_close(together[name], expected, rtol=0, atol=2e-5)


def test_features_are_left_as_they_were() -> None:
    module = network()
    features = encoded(module)
    before = {name: value.clone() for name, value in features.items()}
    fused = module.fusion_layer(features)
    kept = fused.clone()
    module.tail(fused, OUTPUTS)
    assert torch.equal(fused, kept)
    assert all(torch.equal(before[name], features[name]) for name in features)


def test_training_reaches_every_parameter() -> None:
    module = network().train()
    maps = module(reference_batch(SIZE), OUTPUTS)
    sum((value**2).sum() for value in maps.values()).backward()
    losses = {"ce_weight", "center_weight", "offset_weight"}
    untouched = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    assert untouched == losses


def kinds(module: nn.Module) -> set[type]:
    return {type(layer) for layer in module.modules()}


def test_narrow_networks_keep_every_layer_type() -> None:
    assert kinds(network()) == kinds(SimpleBEV(grid=SIZE.grid, encoder="res50"))


def test_the_demo_fits_three_megabytes() -> None:
    module = SimpleBEV(grid=Grid((100, 8, 100)), encoder="res50", widths=DEMO)
    assert sum(p.numel() for p in module.parameters()) < 600_000
    assert sum(v.numel() * v.element_size() for v in module.state_dict().values()) < 3_000_000


def test_widths_default_to_the_published_ones() -> None:
    widths = SimpleBEVSizes()
    assert (widths.latent, widths.stem, widths.upsampling, widths.decoder) == (128, 64, 512, 64)
    assert widths.decoder_blocks == (2, 2, 2)
    assert widths.blocks_of("res50") == (3, 4, 6)
    assert widths.blocks_of("res101") == (3, 4, 23)


def test_widths_take_lists_and_refuse_what_cannot_be_built() -> None:
    assert SimpleBEVSizes(encoder_blocks=[1, 2, 3]).encoder_blocks == (1, 2, 3)
    for bad in ({"latent": 0}, {"stem": 2.5}, {"decoder_blocks": (1, 1)}, {"decoder": True}):
        (name,) = bad
        with pytest.raises(ConfigError, match=f"widths.{name} must be"):
            SimpleBEVSizes(**bad)


@pytest.mark.parametrize("grid", [(24, 4, 32), (25, 4, 30), (13, 4, 27)])
def test_grids_need_not_be_multiples_of_eight(grid: tuple[int, int, int]) -> None:
    module = network(grid=Grid(grid))
    batch = reference_batch(Size((72, 120), Grid(grid)))  # an eighth is odd, too
    with torch.no_grad():
        assert module(batch)["segmentation"].shape == (1, 1, grid[0], grid[2])


def test_enlarged_maps_are_cut_at_the_far_edges() -> None:
    enlarged = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(crop_to(enlarged, torch.zeros(1, 5, 3, 2)), enlarged[..., :3, :2])
    assert crop_to(enlarged, torch.zeros(1, 5, 4, 4)) is enlarged


def test_a_new_decoder_starts_with_empty_residual_branches_as_published() -> None:
    module = SimpleBEV(grid=SIZE.grid, encoder="res50", widths=TINY)
    state = module.state_dict()
    decoder = [v for n, v in state.items() if n.startswith("decoder.layer") and ".bn2.weight" in n]
    encoder = [v for n, v in state.items() if n.startswith("encoder") and ".bn3.weight" in n]
    assert len(decoder) == len(encoder) == 4
    assert not torch.cat(decoder).any()
    assert torch.cat(encoder).eq(1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"modalities": ("radar", "camera")},
            r"no modalities \('radar', 'camera'\): choose one of",
        ),
        (
            {"encoder": "res18"},
            "no encoder 'res18': choose one of 'res50', 'res101', 'effb0'",
        ),
        ({"radar": "points"}, "no radar 'points': choose one of 'metaradar', 'occupancy'"),
    ],
)
def test_choices_that_do_not_exist_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**options)


def test_an_unknown_output_is_an_error_that_lists_the_outputs() -> None:
    module = network()
    with pytest.raises(ConfigError, match=r"no output 'depth': choose one of 'feat', 'segment"):
        module.fuse(encoded(module), ("depth",))


def test_cameras_must_be_stacked() -> None:
    batch = reference_batch(SIZE)
    batch["images"] = list(batch["images"])
    with pytest.raises(TypeError, match=r"'images'.*must be one tensor, not list"):
        network().encode(batch)
