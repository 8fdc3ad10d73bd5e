"""The small CRN's training at a toy size: targets, losses, mirroring, scores."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import crn_depth as demo_crn_depth
from training import crn_scoring as demo_crn_scoring
from training import crn_targets as demo_crn_targets
from training import crn_training as demo_crn_training

from lmd_cli.data import collate
from lmd_cli.data.crn import EgoBox, KeyframeSamples
from lmd_cli.data.synthetic import synthesize
from lmd_cli.networks.crn import CRN
from lmd_cli.networks.crn.geometry import positions
from tests.support.tiny_settings import crn_sizes

BEV = demo_crn_targets.BevMap(cells=16, extent=16.0)
# Widths are multiples of 8: in channels-last order, the gradient of a 1x1 convolution with stride 2
# and 4 input channels writes outside its memory on some processors (torch 2.13, without AVX-512).
SIZES = crn_sizes(
    image_size=(32, 96),
    depth=(2.0, 18.0, 2.0),
    extent=16.0,
    backbone_width=8,
    depth_net=4,
    context=4,
    pillar=(4, 4),
    max_pillars=1024,
    radar_widths=(8, 8, 8),
    heads=4,
    head=4,
    tasks=(("car",),),
)


def car(x: float, y: float, *, visibility: int = 4, yaw: float = 0.3, token: str = "") -> EgoBox:
    return EgoBox(
        token=token or f"{x} {y}",
        category="vehicle.car",
        name="car",
        visibility=visibility,
        center=(x, y, 0.8),
        size=(4.5, 1.9, 1.6),
        yaw=yaw,
        velocity=(3.0, math.nan),
        num_lidar_pts=1,
        num_radar_pts=1,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> KeyframeSamples:
    folder = tmp_path_factory.mktemp("crn") / "root"
    root = synthesize(folder, split="mini_val", scenes=1, samples=4, image_size=(112, 200))
    return KeyframeSamples(
        root,
        "v1.0-mini",
        "mini_val",
        image_size=SIZES.image_size,
        key_frames=SIZES.key_frames,
        depth_bound=SIZES.depth[1],
        radar_slots=SIZES.radar_slots,
        extent=SIZES.extent,
        cells=SIZES.cells,
    )


@pytest.fixture(scope="module")
def frames(data: KeyframeSamples) -> list[demo_crn_training.KeyFrames]:
    return demo_crn_training.load_key_frames(data, SIZES)


def trainer(frames, checkpoint: Path, **recipe) -> demo_crn_training.CarTrainer:  # type: ignore[no-untyped-def]
    chosen = demo_crn_training.CarRecipe(**recipe)
    return demo_crn_training.CarTrainer(
        CRN(SIZES), frames, chosen, checkpoint, log=lambda line: None
    )


def test_a_box_at_the_inner_radius_keeps_the_overlap() -> None:
    """The case that binds for cars: a larger box around the true one, each side by the radius."""
    length, width = 3.5, 1.5
    radius = demo_crn_targets.gaussian_radius(length, width, overlap=0.1)
    # CornerNet divides by 2 where the quadratic formula has 2 a (a = 4 * overlap).
    true = radius / (4 * 0.1)
    outer = (length + 2 * true) * (width + 2 * true)
    assert length * width / outer == pytest.approx(0.1)


def test_targets_of_a_car() -> None:
    target = demo_crn_targets.car_targets([car(3.3, -5.6)], BEV)
    row, column = math.floor(-5.6 / 2 + 8), math.floor(3.3 / 2 + 8)
    assert (target["heat"] == 1).nonzero().tolist() == [[row, column]]
    assert target["heat"][row, column + 1] == pytest.approx(math.exp(-1 / (2 * (5 / 6) ** 2)))
    assert target["heat"][row, column + 3] == 0
    assert target["cells"].tolist() == [row * 16 + column]
    decoded = dict(
        zip(
            demo_crn_targets.BRANCHES,
            target["boxes"][0].split([*demo_crn_targets.BRANCHES.values()]),
            strict=True,
        )
    )
    x, y = ((torch.tensor([column, row]) + decoded["reg"]) * 2 - 16).tolist()
    assert (x, y) == pytest.approx((3.3, -5.6), abs=1e-5)
    assert decoded["dim"].exp().tolist() == pytest.approx([4.5, 1.9, 1.6])
    assert math.atan2(*decoded["rot"].tolist()) == pytest.approx(0.3)
    assert decoded["vel"].tolist() == [3.0, 0.0]  # unknown: 0
    assert target["valid"].min() == 1


def test_hidden_and_distant_cars_are_left_out() -> None:
    target = demo_crn_targets.car_targets([car(0, 0, visibility=1), car(16.1, 0)], BEV)
    assert target["heat"].max() == 0
    assert target["boxes"].shape == (0, 10)
    assert target["valid"][8, 8] == 0
    assert target["valid"].sum() == 16 * 16 - 5 * 5


def test_the_mirror_image_of_targets() -> None:
    cars = [car(3.3, -5.6), car(-7.1, 2.2)]
    plain = demo_crn_targets.car_targets(cars, BEV)
    turned = demo_crn_targets.car_targets([demo_crn_targets.mirrored(c) for c in cars], BEV)
    assert torch.equal(plain["heat"].flip(0), turned["heat"])


def test_focal_loss_is_cornernets() -> None:
    heat = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    logits = torch.tensor([[[0.3, -0.2], [1.0, 4.0]]])
    valid = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    p = logits.sigmoid()[0]
    expected = -((1 - p[0, 0]) ** 2) * p[0, 0].log()
    expected = expected - 0.5**4 * p[0, 1] ** 2 * (1 - p[0, 1]).log()
    expected = expected - p[1, 0] ** 2 * (1 - p[1, 0]).log()
    torch.testing.assert_close(demo_crn_targets.focal_loss(logits, heat, valid), expected)


def test_box_loss_reads_the_cars_cells() -> None:
    target = demo_crn_targets.car_targets([car(3.3, -5.6), car(-7.1, 2.2)], BEV)
    maps = torch.zeros(1, 10, 16 * 16)
    maps[0, :, target["cells"]] = target["boxes"].T
    maps[0, 3, target["cells"][1]] += 0.5
    branches = maps.unflatten(2, (16, 16)).split([*demo_crn_targets.BRANCHES.values()], dim=1)
    outputs = dict(zip(demo_crn_targets.BRANCHES, branches, strict=True))
    loss = demo_crn_targets.box_loss(outputs, [target["cells"]], [target["boxes"]])
    assert loss.item() == pytest.approx(0.25, abs=1e-6)  # 0.5, mean over two cars


def test_mirrored_cameras_see_the_mirrored_world(data: KeyframeSamples) -> None:
    """Every frustum point's mirror image lies where the mirrored camera's point does."""
    sample = collate([data[0]])
    views = {n: sample[n] for n in (*demo_crn_training.MATRICES, "pts_pv")}
    turned = demo_crn_training.mirrored_views(views, SIZES.image_size[1])  # type: ignore[arg-type]
    ego = torch.eye(4).expand(1, -1, -1)
    network = CRN(SIZES)
    cells = network.geometry({**sample, "bda_mat": ego})["cells"]
    flipped = network.geometry({**sample, **turned, "bda_mat": ego})["cells"].flip(-1)
    on = (cells < 256) & (flipped < 256)
    rows, columns = cells[on] // 16, cells[on] % 16
    assert on.float().mean() > 0.3
    # Half precision and the cut at cell borders may move a point to the next cell.
    assert ((15 - flipped[on] // 16 == rows) & (flipped[on] % 16 == columns)).float().mean() > 0.95
    points, other = views["pts_pv"], turned["pts_pv"]
    real = points[..., 2] == 1  # type: ignore[index]
    assert real.any()
    torch.testing.assert_close(other[real][:, 0], 95 - points[real][:, 0])  # type: ignore[index]
    assert torch.equal(other[~real], points[~real])  # type: ignore[index]


def test_frames_keep_what_the_network_takes(data, frames) -> None:  # type: ignore[no-untyped-def]
    batch = demo_crn_training.make_batch(frames[:2], mirror=False)
    expected = collate([data[0], data[1]])
    for name in ("imgs", "pts_pv", "bda_mat", *demo_crn_training.MATRICES):
        torch.testing.assert_close(batch[name], expected[name], atol=1e-5, rtol=0)


def test_past_key_frames_get_no_gradient(frames) -> None:  # type: ignore[no-untyped-def]
    batch = demo_crn_training.make_batch(frames[:1], mirror=False)
    network = CRN(SIZES).eval()
    features = demo_crn_training.encode(network, batch)
    plain = network.encode(batch)
    for modality, of in plain.items():
        for name, value in of.items():
            torch.testing.assert_close(features[modality][name], value, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(
        features["camera"]["context"][:, 1:].sum() + features["camera"]["context"][:, :1].sum() * 0,
        [network.backbone_img.img_backbone.conv1.weight],
    )
    assert gradient.abs().max() == 0


def test_two_steps_change_every_weight_but_the_dead(frames, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = trainer(frames, tmp_path / "state", epochs=2)
    before = copy.deepcopy(run.network.state_dict())
    run.train(until=1)
    assert run.steps == 2
    still = [n for n, v in run.network.named_parameters() if torch.equal(v, before[n])]
    assert not still


def test_training_reduces_the_loss(frames, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    lines: list[str] = []
    recipe = demo_crn_training.CarRecipe(epochs=12, peak_rate=1e-2)
    run = demo_crn_training.CarTrainer(
        CRN(SIZES), frames, recipe, tmp_path / "state", log=lines.append
    )
    run.train()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.6 * losses[0]


def test_peaks_are_local_maxima_highest_first() -> None:
    probability = torch.zeros(16, 16)
    probability[3, 4], probability[3, 5], probability[10, 2] = 0.6, 0.5, 0.9
    first, second = demo_crn_scoring.peaks(probability, BEV)
    assert first.score == pytest.approx(0.9)
    assert first.xy == (2 * 2.5 - 16, 2 * 10.5 - 16)
    assert second.xy == (2 * 4.5 - 16, 2 * 3.5 - 16)


def test_scores_follow_their_definitions() -> None:
    """Two of three cars found, one false peak; a hidden car's peak counts for nothing."""
    Peak = demo_crn_scoring.Peak
    cars = [car(1, 1), car(8, 8), car(-8, 8), car(-9, -9, visibility=1)]
    names = {c.token: "both" for c in cars}
    guesses = [Peak(0.9, (1.5, 1)), Peak(0.8, (-9, -9)), Peak(0.7, (8, 9)), Peak(0.6, (0, -8))]
    actual = demo_crn_scoring.Detections()
    actual.add("a", guesses, cars, names)
    assert actual.detected["both"] == [True, True, False]
    # Precision 1 up to recall 2/3 (66 of the recalls above 0.1 to 1 in steps of 0.01), then 0.
    expected = sum((1 - 0.1) for r in range(11, 101) if r / 100 <= 2 / 3) / 90 / 0.9
    assert actual.figure == pytest.approx(expected, abs=0.01)
    assert demo_crn_scoring.Detections(cars={"a": cars[:1]}, peaks={"a": []}).figure == 0


def test_each_car_is_found_once() -> None:
    Peak = demo_crn_scoring.Peak
    cars = [car(0, 0), car(3, 0)]
    assert demo_crn_scoring.match([Peak(0.9, (1, 0)), Peak(0.8, (0.5, 0))], cars) == {0}
    assert demo_crn_scoring.match([Peak(0.9, (1, 0)), Peak(0.8, (1.2, 0))], cars) == {0, 1}


def test_conditions_zero_one_sensor_each(data: KeyframeSamples) -> None:
    class Probe(CRN):
        """The heat map tells which features are not zero."""

        def fuse(self, features, outputs=None, **constants):  # type: ignore[no-untyped-def]
            on = [float(any(v.any() for v in of.values())) for of in features.values()]
            return {"heatmap.car": torch.tensor(on).reshape(1, 1, 1, 2)}

    maps = demo_crn_scoring.predict(Probe(SIZES).eval(), collate([data[0]]))
    one = torch.tensor(1.0).sigmoid()
    assert maps[""].tolist() == [[one, one]]
    assert maps["camera"].tolist() == [[0.5, one]]
    assert maps["radar"].tolist() == [[one, 0.5]]


def test_evaluation_runs_on_a_root(data: KeyframeSamples) -> None:
    scores = demo_crn_scoring.evaluate(CRN(SIZES), data)
    assert set(scores) == {"", "camera", "radar"}
    counted = sum(len(actual) for actual in scores[""].detected.values())
    cars = [box for i in range(len(data)) for box in data.boxes(i) if box.name == "car"]
    assert 0 < counted <= len(cars)
    assert all(0 <= score.figure <= 1 for score in scores.values())


@pytest.fixture
def camera() -> dict[str, torch.Tensor]:
    """One camera 1.5 m above the ego origin, looking forward; its upper 4 rows are cut off."""
    pose, intrinsics, image = (torch.eye(4)[None].clone() for _ in range(3))
    pose[0, :3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[0, 2, 3] = 1.5
    intrinsics[0, :2, :3] = torch.tensor([[40.0, 0, 48], [0, 40, 12]])
    image[0, 1, 3] = -4.0
    return {"sensor2ego_mats": pose, "intrin_mats": intrinsics, "ida_mats": image}


def test_depth_targets_by_hand(camera) -> None:  # type: ignore[no-untyped-def]
    """32 x 96 pixels, horizon at row 8: two rows of features, of which the lower sees the road."""
    straight = replace(car(10.0, 0.0, yaw=0.0), size=(4.0, 1.9, 1.6))
    empty = demo_crn_depth.depth_targets([], [], camera, SIZES)
    assert empty.shape == (1, 2, 6)
    # Rows 17.5 to 29.5 of the image, 9.5 to 21.5 below the horizon: ground at 1.5 * 40 / below.
    ground = sum(1.5 * 40 / below for below in (9.5, 13.5, 17.5, 21.5)) / 4
    assert (empty[0, 1] == int((ground - 2) / 2)).all()
    assert (empty[0, 0] == demo_crn_depth.UNKNOWN).all()  # partly sky
    seen = demo_crn_depth.depth_targets([straight], [], camera, SIZES)
    assert (seen[0, 0] == int((8.0 - 2) / 2)).nonzero().flatten().tolist() == [2, 3]
    hidden = demo_crn_depth.depth_targets([straight], [straight.token], camera, SIZES)
    assert (hidden[0, 0] == demo_crn_depth.UNKNOWN).all()
    far = demo_crn_depth.depth_targets(
        [replace(straight, center=(25.0, 0, 0.8))], [], camera, SIZES
    )
    assert (far[0, 0] == demo_crn_depth.UNKNOWN).all()
    behind = demo_crn_depth.depth_targets(
        [replace(straight, center=(-10.0, 0, 0.8))], [], camera, SIZES
    )
    assert torch.equal(behind, empty)


def test_rays_meet_what_the_geometry_meets(camera) -> None:  # type: ignore[no-untyped-def]
    """A pixel's ray and CRN's frustum agree on where depth 9 lies."""
    points = torch.tensor([17.5, 5.5, 9.0, 1.0]).reshape(1, 1, 1, 4)
    matrices = [camera[n][None, None] for n in demo_crn_training.MATRICES]
    expected = positions(points, *matrices, torch.eye(4)[None])[0, 0, 0, 0, 0, 0].float()
    origin, direction = demo_crn_depth.rays(camera, SIZES)
    place = origin + 9.0 * direction
    torch.testing.assert_close(place[0, 0, 1, 4], expected, atol=0.02, rtol=0)


def test_depth_loss_is_cross_entropy_where_known() -> None:
    depth = torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    bins = torch.tensor([[[0, 4, -1], [2, 1, 3]], [[-1, -1, -1], [0, 0, -1]]])
    expected = torch.nn.functional.nll_loss(depth.log(), bins, ignore_index=-1)
    torch.testing.assert_close(demo_crn_depth.depth_loss(depth, bins), expected)
    assert demo_crn_depth.depth_loss(depth, torch.full_like(bins, -1)) == 0
