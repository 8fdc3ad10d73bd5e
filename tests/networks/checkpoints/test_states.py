"""Checkpoints as people have them: where their weights are, and under which names."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lmd_cli.errors import CheckpointError
from lmd_cli.networks import load_checkpoint
from lmd_cli.networks.checkpoints.conversion import convert

State = dict[str, Tensor]


def network(seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def state(seed: int = 3) -> State:
    return dict(network(seed).state_dict())


def behind(prefix: str, seed: int = 3) -> State:
    return {prefix + name: value for name, value in state(seed).items()}


def averaged() -> State:
    """As ``torch.optim.swa_utils`` writes it."""
    model = torch.optim.swa_utils.AveragedModel(network())
    return dict(model.state_dict())


def refusal(path: Path, **how: Any) -> str:
    module = network(4)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, module, **how)
    assert all(torch.equal(v, state(4)[n]) for n, v in module.state_dict().items())
    return str(caught.value)


def assert_loads(path: Path, seed: int = 3, **how: Any) -> None:
    module = network(4)
    load_checkpoint(path, module, **how)
    for name, value in module.state_dict().items():
        assert torch.equal(value, state(seed)[name]), name


CONTENTS: dict[str, Callable[[], Any]] = {
    "DataParallel": lambda: {"model_state_dict": behind("module.")},
    "DDP in Lightning": lambda: {"state_dict": behind("model.module.")},
    "Lightning with a loss": lambda: {"state_dict": behind("model.") | {"loss.w": torch.ones(3)}},
    "compiled": lambda: {"model": behind("_orig_mod.")},
    "a part of a larger model": lambda: behind("detector.bev.") | {"head.w": torch.ones(1)},
    "dicts in dicts": lambda: {"checkpoint": {"model": {"state_dict": state()}}, "epoch": 3},
    "a key of one's own": lambda: {"my_weights": state(), "iteration": 7},
    "averaged by torch": averaged,
    "with its optimiser": lambda: {
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]},
        "net": state(),
    },
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(CONTENTS[name](), path, _use_new_zipfile_serialization=zipped)
    assert_loads(path)
    assert convert(path, tmp_path / "a.safetensors").tensors >= 7
    assert_loads(tmp_path / "a.safetensors")


def test_a_line_says_what_was_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(behind("model.") | {"loss.w": torch.ones(3)}, tmp_path / "a.safetensors")
    assert_loads(tmp_path / "a.safetensors")
    assert "names behind 'model.' taken, 1 beside them left out (loss.w)" in caplog.text
    caplog.clear()
    save_file(state(), tmp_path / "b.safetensors")
    assert_loads(tmp_path / "b.safetensors")
    assert not caplog.text


AVERAGES: dict[str, Callable[[], Any]] = {
    "timm": lambda: {"state_dict": state(), "state_dict_ema": state(5)},
    "beside": lambda: {"model": state(), "ema": {"module": behind("module.", 5)}},
    "mmengine": lambda: {
        "state_dict": state(),
        "ema_state_dict": behind("module.", 5) | {"steps": torch.tensor(7)},
    },
    "ema_pytorch": lambda: (
        behind("online_model.")
        | behind("ema_model.", 5)
        | {"initted": torch.tensor(True), "step": torch.tensor(7)}
    ),
    "Lightning": lambda: {
        "state_dict": behind("model.", 5),
        "current_model_state": behind("model."),
        "averaging_state": {"n_averaged": torch.tensor(7)},
    },
    "DETR": lambda: {"model": behind("module."), "model_ema": state(5)},
    "by name": lambda: {"state_dict": behind("model.") | behind("model_ema.", 5)},
}


def flat(prefix: str, joint: str, parameters: bool = False) -> State:
    """Running means whose names have lost their dots; of the parameters alone, if asked."""
    names = [name for name, _ in network().named_parameters()] if parameters else list(state())
    return {prefix + name.replace(".", joint): state(5)[name] for name in names}


FLAT: dict[str, Callable[[], Any]] = {
    "mmcv": lambda: {"state_dict": state() | flat("ema_", "_", parameters=True)},
    "latent diffusion": lambda: {
        "state_dict": behind("model.")
        | flat("model_ema.", "", parameters=True)
        | {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3)}
    },
    "behind a wrapper": lambda: behind("model.") | flat("ema.model_", "_"),
    "a dict of their own": lambda: {"model": state(), "ema": flat("", "_")},
    "a name without dots": lambda: {
        "state_dict": behind("model."),
        "ema": flat("", "_") | {"step": torch.tensor(7)},
    },
}


@pytest.mark.parametrize("name", FLAT)
def test_running_means_whose_names_lost_their_dots(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pth"
    torch.save(FLAT[name](), path)
    assert_loads(path)
    assert_loads(path, seed=5, ema=True)
    convert(path, tmp_path / "a.safetensors", ema=True)
    assert_loads(tmp_path / "a.safetensors", seed=5)


class Odd(nn.Module):
    """A buffer first, a weight of its own, and two weights that are one without their dots."""

    def __init__(self, alike: bool) -> None:
        super().__init__()
        self.register_buffer("grid", torch.ones(2))
        self.scale = nn.Parameter(torch.ones(2))
        self.head = nn.Module()
        self.head.last_bias = nn.Parameter(torch.ones(3))
        if alike:
            self.head_last = nn.Linear(1, 3)


def without_dots(module: nn.Module) -> State:
    return {"ema_" + n.replace(".", "_"): 2 * p for n, p in module.named_parameters()}


def test_names_that_had_no_dots_stay(tmp_path: Path) -> None:
    module, path = Odd(alike=False), tmp_path / "a.pth"
    torch.save(module.state_dict() | without_dots(module), path)
    convert(path, tmp_path / "a.safetensors", ema=True)
    written = load_file(tmp_path / "a.safetensors")
    assert written.keys() == dict(module.named_parameters()).keys()
    assert all(torch.equal(written[n], 2 * p) for n, p in module.named_parameters())


def test_names_that_are_one_without_their_dots_are_refused(tmp_path: Path) -> None:
    module, path = Odd(alike=True), tmp_path / "a.pth"
    torch.save(module.state_dict() | without_dots(module), path)
    told = "head_last_bias stands for head.last_bias and head_last.bias"
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(path, module, ema=True)
    with pytest.raises(CheckpointError, match=told):
        convert(path, tmp_path / "a.safetensors", ema=True)
    load_checkpoint(path, module)


def test_running_means_alone_are_copied_as_they_are(tmp_path: Path) -> None:
    torch.save({"ema": flat("", "_")}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "a.safetensors", ema=True)
    assert load_file(tmp_path / "a.safetensors").keys() == flat("", "_").keys()


def test_running_means_in_two_places_are_refused(tmp_path: Path) -> None:
    twice = {"model": state(), "ema": state(5), "model_ema": state(6)}
    torch.save(twice, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"more than once \(\['ema'\].*; \['model_ema'\]"):
        convert(tmp_path / "a.pth", tmp_path / "a.safetensors", ema=True)


def test_running_means_keep_the_statistics_of_the_weights(tmp_path: Path) -> None:
    weights = state() | {"1.running_mean": torch.full((3,), 7.0)}
    torch.save(weights | flat("ema_", "_", parameters=True), tmp_path / "a.pth")
    module = network(4)
    load_checkpoint(tmp_path / "a.pth", module, ema=True)
    assert torch.equal(module.state_dict()["1.running_mean"], torch.full((3,), 7.0))
    assert torch.equal(module.state_dict()["0.weight"], state(5)["0.weight"])


@pytest.mark.parametrize("name", AVERAGES)
def test_running_means_are_chosen_by_a_flag(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pth"
    torch.save(AVERAGES[name](), path)
    assert_loads(path)
    assert_loads(path, seed=5, ema=True)
    convert(path, tmp_path / "a.safetensors", ema=True)
    assert_loads(tmp_path / "a.safetensors", seed=5)


def test_running_means_that_are_not_there_or_alone(tmp_path: Path) -> None:
    torch.save({"state_dict": state()}, tmp_path / "plain.pth")
    assert "holds no EMA weights" in refusal(tmp_path / "plain.pth", ema=True)
    with pytest.raises(CheckpointError, match="holds no EMA weights"):
        convert(tmp_path / "plain.pth", tmp_path / "a.safetensors", ema=True)
    torch.save({"ema_state_dict": state()}, tmp_path / "mean.pth")
    assert "say that you mean them, model.ema: true" in refusal(tmp_path / "mean.pth")


def test_the_same_names_twice_are_refused(tmp_path: Path) -> None:
    torch.save(behind("student.") | behind("teacher.", 5), tmp_path / "a.pth")
    said = refusal(tmp_path / "a.pth")
    assert "more than once (names behind 'student.'; names behind 'teacher.')" in said


def test_batchnorms_counters_are_not_needed(tmp_path: Path) -> None:
    without = {n: v for n, v in state().items() if "num_batches" not in n}
    torch.save(without, tmp_path / "a.pth")
    assert_loads(tmp_path / "a.pth")


@pytest.mark.parametrize("width", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_widths_are_converted(tmp_path: Path, width: torch.dtype, suffix: str) -> None:
    half = {n: v.to(width) if v.is_floating_point() else v for n, v in state().items()}
    path, module = tmp_path / f"a{suffix}", network(4)
    torch.save(half, path) if suffix == ".pth" else save_file(half, path)
    load_checkpoint(path, module)
    for name, value in module.state_dict().items():
        assert value.dtype == state()[name].dtype
        assert torch.equal(value, half[name].to(value.dtype))


@pytest.mark.parametrize(
    ("kind", "named"),
    [(torch.complex64, "complex64"), (torch.int64, "int64"), (torch.bool, "bool")],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_numbers_of_another_kind_are_refused(
    tmp_path: Path, kind: torch.dtype, named: str, suffix: str
) -> None:
    odd = state() | {"0.weight": state()["0.weight"].to(kind)}
    path = tmp_path / f"a{suffix}"
    torch.save(odd, path) if suffix == ".pth" else save_file(odd, path)
    assert f"0.weight is {named} instead of float32" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers_are_named(tmp_path: Path, value: float) -> None:
    odd = state()
    odd["1.bias"] = odd["1.bias"].clone().fill_(value)
    torch.save(odd, tmp_path / "a.pth")
    assert "no finite numbers, as of a training that diverged: 1.bias" in refusal(
        tmp_path / "a.pth"
    )


def test_variances_below_zero_are_named(tmp_path: Path) -> None:
    odd = state()
    odd["1.running_var"] = odd["1.running_var"].neg() - 1
    torch.save(odd, tmp_path / "a.pth")
    assert "holds variances below 0: 1.running_var" in refusal(tmp_path / "a.pth")


def test_a_folder_says_what_is_in_it(tmp_path: Path) -> None:
    assert "it holds none" in refusal(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert "is a folder, not a file" in refusal(tmp_path)
    assert "(model.safetensors)" in refusal(tmp_path)
    (tmp_path / "data.pkl").touch()
    assert f"zip -r -0 {tmp_path.name}.pth {tmp_path.name}" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (nn.Identity(), ""),
        ({"model": nn.Identity(), "epoch": 1}, "['model']"),
        ({"checkpoint": {"model": nn.Identity()}, "epoch": 1}, "['checkpoint']['model']"),
        ({"model_ema": nn.Identity()}, "['model_ema']"),
    ],
)
def test_whole_models_are_told_what_to_do(tmp_path: Path, content: Any, key: str) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    said = refusal(path)
    assert "torch.nn.modules.linear.Identity, a whole pickled model" in said
    assert f"model = torch.load('{path}'){key}; torch.save(model.state_dict()" in said
    with pytest.raises(CheckpointError, match="a whole pickled model"):
        convert(path, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("start", "named"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"<html>", "a web page")],
)
def test_what_people_have_in_place_of_a_file_is_named(
    tmp_path: Path, start: bytes, named: str
) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(start + b"oid sha256:4d7a\n")
        assert named in refusal(path)


def test_a_file_under_another_formats_name_is_named(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "a.safetensors")
    assert "if it is a PyTorch file, rename it to .pth" in refusal(tmp_path / "a.safetensors")
    save_file(state(), tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").rename(tmp_path / "b.pth")
    assert "rename it to .safetensors" in refusal(tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(gzip.compress(b"anything"))
    assert "unpack it first: gzip -d" in refusal(tmp_path / "c.pth")


def test_a_copy_is_advised_only_where_there_are_tensors(tmp_path: Path) -> None:
    torch.save({name: value.numpy() for name, value in state().items()}, tmp_path / "a.pth")
    said = refusal(tmp_path / "a.pth")
    assert "lmd convert" not in said
    assert said.endswith("Save the weights alone: torch.save(model.state_dict(), path)")
    torch.save({"a": Path("x"), "state_dict": state()}, tmp_path / "b.pth")
    assert "Make a clean copy: lmd convert" in refusal(tmp_path / "b.pth")


def test_names_are_shown_in_one_line(tmp_path: Path) -> None:
    torch.save(state() | {"a\nb": torch.ones(1)}, tmp_path / "a.pth")
    assert r"1 unexpected: 'a\nb'" in refusal(tmp_path / "a.pth")
    torch.save({b"a": torch.ones(1)}, tmp_path / "b.pth")
    assert "Placeholder(" not in refusal(tmp_path / "b.pth")


def test_wrappers_prefixes_are_dropped_by_a_conversion(tmp_path: Path) -> None:
    torch.save({"state_dict": behind("model.module.")}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors").keys() == state().keys()
