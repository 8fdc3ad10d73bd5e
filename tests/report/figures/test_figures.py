"""The picture of a decomposition: what is where, and that it is the same bytes every time."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lmd_cli.config.loading import load_config
from lmd_cli.decomposition import OperationRecord
from lmd_cli.evaluation.ground.decisive import Decisive
from lmd_cli.evaluation.ground.plane import Plane, plane_of
from lmd_cli.evaluation.randomisation import SanityRow
from lmd_cli.evaluation.scores.against_ground_truth import Score
from lmd_cli.evaluation.statistics import Interval
from lmd_cli.geometry import Grid
from lmd_cli.report.blocks import block_names, drawn_operations, note
from lmd_cli.report.figures import sanity, scores
from lmd_cli.report.figures.axes import CROSS, RING, Format
from lmd_cli.report.figures.bev import decomposition_figure, grid_figure
from lmd_cli.report.figures.layers import layers_figure
from lmd_cli.report.figures.scene import ROWS, Scene
from lmd_cli.report.figures.styles import Style, bias_lines, make_map_style, positive_normalised
from lmd_cli.report.palette import colour, slot, stylesheet

PLANE = Plane.of_grid(Grid((40, 4, 40)))
#: The signed scale's end for a vehicle.
PEAK = np.array([0, 51, 46])


def scene(part: np.ndarray) -> Scene:
    grey = {camera: np.full((16, 28, 3), 0.5) for row in ROWS for camera in row}
    parts = {"camera": part, "radar": np.zeros_like(part), "bias": np.zeros_like(part)}
    truth = np.zeros_like(part)
    return Scene(grey, truth, sum(parts.values()), parts, PLANE, "a title")


def pixels(shown: Scene, style: Style = "signed") -> np.ndarray:
    image = Image.open(io.BytesIO(decomposition_figure(shown, style)))
    return np.asarray(image.convert("RGB")).astype(int)


def peak(z: slice, x: slice) -> tuple[float, float]:
    """Row and column, in pixels, of a block drawn at these cells."""
    part = np.zeros((40, 40))
    part[z, x] = 2.0
    is_peak = np.abs(pixels(scene(part)) - PEAK).max(axis=-1) <= 2
    rows, columns = np.nonzero(is_peak[: int(0.8 * len(is_peak))])  # without the colour bar
    assert len(rows) > 100
    return rows.mean(), columns.mean()


def test_forward_is_up_and_right_is_right():
    ahead, behind = peak(slice(34, 38), slice(18, 22)), peak(slice(2, 6), slice(18, 22))
    left, right = peak(slice(18, 22), slice(2, 6)), peak(slice(18, 22), slice(34, 38))
    assert ahead[0] < left[0] < behind[0]
    assert left[1] < ahead[1] < right[1]
    assert ahead[1] == pytest.approx(behind[1], abs=1)
    assert left[0] == pytest.approx(right[0], abs=1)


def test_the_same_scene_gives_the_same_bytes_whatever_the_users_settings():
    import matplotlib

    part = np.random.default_rng(0).standard_normal((40, 40))
    first = decomposition_figure(scene(part))
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert decomposition_figure(scene(part)) == first
    assert b"Software" not in first
    assert b"Creation" not in first


def test_only_positive_values_are_shown_each_map_by_its_own_maximum():
    values, top = positive_normalised(np.array([[-3.0, 1.0], [4.0, 0.0]]))
    np.testing.assert_array_equal(values, [[0.0, 0.25], [1.0, 0.0]])
    assert top == 4.0
    values, top = positive_normalised(np.array([[-3.0, -1.0]]))
    np.testing.assert_array_equal(values, [[0.0, 0.0]])
    assert top == 0.0
    part = np.random.default_rng(0).standard_normal((40, 40))
    cut = scene(np.maximum(part, 0.0))
    np.testing.assert_array_equal(  # the total aside, negative values change nothing
        pixels(replace(scene(part), total=cut.total), "positive"), pixels(cut, "positive")
    )


def test_a_warning_is_red():
    calm = scene(np.zeros((40, 40)))

    def red(shown: Scene) -> int:
        return int((np.abs(pixels(shown) - [0xC0, 0, 0]).max(axis=-1) <= 2).sum())

    assert red(calm) == 0
    assert red(replace(calm, warning="random weights")) > 20


def test_any_number_of_parts_and_any_shape_of_grid():
    part = np.zeros((20, 40))
    wide = Plane(20, 40, -50.0, 50.0, -25.0, 25.0)
    names = ("camera", "radar", "lidar", "bias")
    many = replace(
        scene(part), parts=dict.fromkeys(names, part), plane=wide, ground_truth=part + 1.0
    )
    few = replace(scene(part), parts=dict.fromkeys(("camera", "bias"), part), plane=wide)
    assert pixels(many).shape[1] == pixels(few).shape[1]
    assert pixels(many).shape[0] < pixels(few).shape[0]  # more panels, each smaller


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
@pytest.mark.parametrize("style", ["sigmoid", "signed"])
def test_files_are_the_same_every_time_and_carry_their_fonts(form: Format, style: Style):
    part = np.random.default_rng(0).standard_normal((40, 40))
    first = decomposition_figure(scene(part), style, form)
    assert decomposition_figure(scene(part), style, form) == first
    kinds = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert first.startswith(kinds[form])
    if form == "pdf":
        assert b"/FontFile2" in first
    if form == "svg":
        assert b"<text" not in first  # letters are outlines
        assert b"font-family" not in first


def test_signed_maps_share_one_symmetric_scale():
    maps = [np.linspace(-4, 4, 1001), np.linspace(-1, 9, 1001)]
    look = make_map_style("signed", maps)
    assert look.low == -look.high
    assert look.high == pytest.approx(np.quantile(np.abs(np.concatenate(maps)), 0.999))
    low, middle, high = (np.array(look.colours("radar")(v)[:3]) for v in (0.0, 0.5, 1.0))
    assert low[0] > low[2]  # brown against
    assert high[1] > high[0]  # teal for
    assert middle.min() > 0.9
    grey = [float(np.dot(c, [0.299, 0.587, 0.114])) for c in (low, middle, high)]
    assert grey[2] < 0.3 < 0.5 < grey[0] < 0.7 < grey[1]  # told apart without colours


def test_a_part_has_one_colour_everywhere_and_no_other_modality_has_it():
    ours = ["camera", "radar", "lidar", "bias", "interaction"]
    own = ["mri", "pet", "ct", "spect", "bias"]
    mixed = ["camera", "thermal", "radar", "audio", "bias"]
    for names in (ours, own, mixed):
        assert len({colour(name, names) for name in names}) == len(names)
    assert colour("radar", ["radar", "bias"]) == colour("radar", ours)
    sheet = stylesheet()
    for name in own:
        assert f"--s{slot(name, own)}: {colour(name, own)};" in sheet


def test_the_default_is_one_scale_for_the_prediction_and_its_parts():
    part = np.zeros((40, 40))
    part[10:20, 10:20] = 4.0
    shown = replace(
        scene(part), parts={"camera": 0.5 * part, "radar": 0.5 * part, "bias": 0 * part}
    )
    image = pixels(shown)
    image = image[: -int(0.2 * len(image))]  # without the colour bar
    assert (np.abs(image - PEAK).max(axis=-1) <= 2).any()  # the prediction
    half = np.array(make_map_style("signed", [part]).colours("")(0.75)[:3]) * 255
    columns = np.flatnonzero((np.abs(image - half).max(axis=-1) <= 3).any(axis=0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 100) + 1)
    panels = [int(group.mean() / image.shape[1] * 5) for group in groups if len(group) > 20]
    assert panels == [2, 3]  # camera and radar are half of it, and look so


def test_sigmoid_shows_probabilities_on_one_scale():
    look = make_map_style("sigmoid", [])
    values, note = look.values(np.array([-np.inf, 0.0, np.log(3.0)]))
    np.testing.assert_allclose(values, [0.0, 0.5, 0.75])
    assert (look.low, look.high, note) == (0.0, 1.0, "")


def test_a_grid_has_a_row_for_each_sample():
    part = np.random.default_rng(0).standard_normal((40, 40))
    heights = [
        np.asarray(Image.open(io.BytesIO(grid_figure([scene(part)] * n)))).shape[0]
        for n in (1, 2, 3)
    ]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=2)
    assert heights[1] > heights[0] + 100


@pytest.mark.parametrize("correct", [True, False])
def test_marks_are_in_the_prediction_and_in_the_sensors_panel(correct: bool):
    plain, places = scene(np.zeros((40, 40))), (-30.0, 30.0)
    first, second = (
        pixels(replace(plain, marks=[Decisive("radar", place, place, correct)])) for place in places
    )
    changed = (first != second).any(axis=-1)
    assert min(image[changed].min() for image in (first, second)) < 60  # black in any print
    columns = np.flatnonzero(changed.any(axis=0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 30) + 1)
    panels = [int(group.mean() / first.shape[1] * 5) for group in groups]
    assert panels == [1, 1, 3, 3]  # ground truth, prediction, camera, radar, bias


def test_the_marks_have_different_shapes():
    assert {style["marker"] for style in RING}.isdisjoint(style["marker"] for style in CROSS)


def test_the_ego_vehicle_is_where_the_maps_origin_says():
    """SimpleBEV's maps are measured from the front camera, CRN's from the rear axle."""
    from_camera, from_axle = (plane_of(load_config(f"{n}.yaml")).ego for n in ("demo", "demo_crn"))
    assert from_camera == (0.87, -2.4, 1.7)
    assert from_axle == pytest.approx((0.87, -0.7, 3.4))


def test_names_of_blocks_stay_inside_the_figure():
    names = ["fuser.view_aggregation_fuser"] * 2 + ["fuser.x"] * 20
    shares = {"camera": 0.5, "bias": 0.5}
    records = [
        OperationRecord(i, n, "", "", "", 1.0, 0.0, 0.0, shares) for i, n in enumerate(names)
    ]
    shown = np.asarray(Image.open(io.BytesIO(layers_figure(records, ""))).convert("L"))
    below = shown[int(0.75 * len(shown)) :]
    assert (below[:, :300] < 100).any()  # the name is there
    assert (below[:, :3] == 255).all()


def test_blocks_are_as_fine_as_there_is_room_for():
    one = [f"up.{i}.conv" for i in range(4)]
    assert block_names(one) == ["up.0", "up.1", "up.2", "up.3"] or block_names(one) == one
    layers = [f"encoder.layers.{i}.{name}" for i in range(12) for name in ("attn", "mlp") * 4]
    assert block_names(layers)[0] == "encoder.layers.0"
    assert len(set(block_names(layers))) == 12
    assert block_names(layers, most=3) == ["encoder"] * len(layers)
    assert drawn_operations(block_names(layers)) == [8 * i + 7 for i in range(12)]
    assert note(96, 12) == (
        "After the last operation of each of 12 blocks (96 operations), from the fusion (left) to "
        "the prediction"
    )
    assert drawn_operations(block_names(one)) == [0, 1, 2, 3]


def test_the_checks_figures_conclude_in_one_line():
    rows = [
        SanityRow(step, "", part, pcc, pcc)
        for part, last in (("total", 0.9), ("camera", 0.1), ("radar", -0.7))
        for step, pcc in ((0, 1.0), (3, last))
    ]
    assert sanity.conclusion(rows) == (
        "With all 3 layers random, these parts still resemble the trained ones (|PCC|): "
        "radar (0.70)"
    )
    assert sanity.conclusion(rows[:4]).endswith(
        "no part resembles the trained one (|PCC| at most 0.10)"
    )
    unused = (9, lambda chosen: 0.0, ())  # support, statistic and its objects
    kept = {
        name: [
            Score("auroc_all", "camera", Interval(middle, middle - 0.1, middle + 0.1), 9, *unused)
        ]
        for name, middle in (("lmd", 0.7), ("shapley", 0.8), ("gradient-x-input", 0.5))
    }
    assert sanity.sanity_png(rows, 2).startswith(b"\x89PNG")
    drawn = scores.score_png(kept, "Trust shapley.")
    assert drawn.startswith(b"\x89PNG")
    assert drawn != scores.score_png(kept, "Too few objects.")


def test_a_large_bias_is_said_below_the_maps():
    third = np.full((2, 2), 1.0)
    assert bias_lines([{"camera": third, "radar": third, "bias": third}]) == []
    calm = {"camera": 9 * third, "bias": third}
    assert bias_lines([calm]) == []
    said = bias_lines([{"camera": third, "bias": -3 * third}])
    assert said == [
        "The bias has 75% of the parts' norms, more than a third: the other parts say less than "
        "their maps suggest."
    ]
    assert bias_lines([calm, {"camera": third, "bias": third}])[0].startswith(
        "The bias has up to 50% of"
    )
