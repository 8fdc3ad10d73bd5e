"""Bad input: exit code 2, one clear message, no traceback (which ``lmd`` itself asserts)."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

from lmd_cli.assembly.build import build_dataset, build_network
from lmd_cli.config.loading import load_config
from tests.support.calling import Lmd

READERS = ("samples", "decompose", "evaluate")


def refused(result: Result, *phrases: str, code: int = 2) -> None:
    """One message on standard error that holds every phrase, and nothing else.

    But for that a root is indexed when it is first opened.
    """
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines(keepends=True)
    message = "".join(line for line in lines if not line.startswith("indexing "))
    assert message.startswith("error: "), message
    for phrase in phrases:
        assert phrase in message


# -- usage and config ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["evaluate"], ["evaluate", "--nope"], ["evaluate", "-c", "demo", "--limit", "0"]],
)
def test_usage_errors(lmd: Lmd, arguments: list[str]):
    result = lmd(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.output


@pytest.mark.parametrize("command", [*READERS, "check"])
def test_yaml_that_does_not_parse(lmd: Lmd, command: str):
    Path("broken.yaml").write_text("data:\n  split: [mini_val\n")
    refused(lmd(command, "--config", "broken.yaml"), "broken.yaml, line 3: not valid YAML")


def test_an_unknown_key(lmd: Lmd, tiny_config: Path):
    text = tiny_config.read_text().replace("encoder: res50", "encodr: res50")
    Path("own.yaml").write_text(text)
    said = "own.yaml: unknown key model.encodr; did you mean model.encoder?"
    refused(lmd("samples", "--config", "own.yaml"), said)


def test_values_of_the_wrong_type_and_range(lmd: Lmd, tiny_config: Path):
    result = lmd("samples", "-c", tiny_config, "--set", "data.nsweeps=x", "--set", "threads=0")
    refused(
        result,
        "--set data.nsweeps=x: data.nsweeps is 'x': expected an integer from 1 to 100",
        "--set threads=0: threads is 0: expected a positive integer",
    )


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_config_that_is_no_file(lmd: Lmd, kind: str):
    os.mkfifo("a.yaml") if kind == "pipe" else Path("a.yaml").mkdir()
    refused(lmd("check", "--config", "a.yaml"), "config a.yaml is no file; expected one in YAML")


def test_a_setting_of_any_length_is_shown_in_part(lmd: Lmd, tiny_config: Path):
    result = lmd("samples", "-c", tiny_config, "--set", f"data.nsweeps={'x' * 9000}")
    refused(result, f"--set data.nsweeps={'x' * 184}...: data.nsweeps is 'xxx")
    assert len(result.stderr) < 500


@pytest.mark.parametrize("version", ["../root/v1.0-mini", "/data/v1.0-mini", "..", "a\\b", ""])
def test_a_version_is_no_path(lmd: Lmd, tiny_config: Path, version: str):
    setting = f"data.version={json.dumps(version)}"
    result = lmd("check", "-c", tiny_config, "--set", setting)
    refused(result, "expected a name such as v1.0-trainval, of a folder in data.dataroot")


@pytest.mark.parametrize(("path", "kind"), [("tokens", "a pipe"), ("/dev/zero", "a device")])
def test_a_list_of_tokens_that_is_no_file(lmd: Lmd, tiny_config: Path, path: str, kind: str):
    os.mkfifo("tokens")
    result = lmd("samples", "-c", tiny_config, "--tokens", path)
    refused(result, f"--tokens {path} cannot be read as text: it is {kind}; expected a file")


def test_a_list_of_tokens_may_begin_with_a_mark_of_its_encoding(lmd: Lmd, tiny_config: Path):
    token = build_dataset(load_config(tiny_config)).tokens[1]
    Path("tokens").write_bytes(b"\xef\xbb\xbf" + token.encode() + b"\r\n")
    result = lmd("samples", "-c", tiny_config, "--tokens", "tokens")
    assert result.exit_code == 0, result.output
    assert token in result.output


def test_a_config_that_is_not_found(lmd: Lmd):
    result = lmd("evaluate", "--config", "dmeo.yaml")
    refused(result, "config dmeo.yaml not found", "radar_cam_mini.yaml", "did you mean demo.yaml?")


@pytest.mark.parametrize("command", ["decompose", "evaluate"])
def test_a_device_that_is_not_there(lmd: Lmd, tiny_config: Path, command: str):
    result = lmd(command, "-c", tiny_config, "--device", "cuda:99")
    refused(result, "device cuda:99 is not there", "there are: cpu")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--memory", "lots", "compute.memory is 'lots': expected auto, or a size such as 20GB"),
        ("--precision", "int4", "compute.precision is 'int4': expected float32, bf16 or fp16"),
    ],
)
def test_a_precision_or_memory_that_is_none(
    lmd: Lmd, tiny_config: Path, option: str, value: str, expected: str
):
    refused(lmd("evaluate", "--config", str(tiny_config), option, value), expected)


def test_a_variant_that_is_none(lmd: Lmd, tiny_config: Path):
    result = lmd("decompose", "-c", tiny_config, "--variant", "identity-ration")
    refused(result, "'identity-ration' is not a variant", "did you mean 'identity-ratio'?")
    result = lmd("evaluate", "-c", tiny_config, "--set", "variants=[identity-ratio-taylor]")
    clear = "identity-ratio-taylor-frozen takes the derivative for activations"
    refused(result, "'identity-ratio-taylor' is ambiguous", clear)


# -- data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", READERS)
def test_a_data_root_that_is_not_there(lmd: Lmd, tiny_config: Path, tmp_path: Path, command: str):
    missing = tmp_path / "nowhere"
    result = lmd(command, "-c", tiny_config, "--dataroot", missing)
    refused(result, f"data root {missing} not found", f"{tmp_path} holds ", "work")


@pytest.mark.parametrize(
    ("setting", "phrases"),
    [
        ("data.version=v1.0-trainval", ["version v1.0-trainval not found", "v1.0-mini"]),
        ("data.split=mini_vla", ["split mini_vla not found", "did you mean mini_val?"]),
        ("data.split=test", ["no scene of split test is in version v1.0-mini", "mini_val"]),
    ],
)
@pytest.mark.parametrize("command", READERS)
def test_a_version_or_split_that_is_not_there(lmd: Lmd, tiny_config, command, setting, phrases):
    refused(lmd(command, "-c", tiny_config, "--set", setting), *phrases)


def test_an_unknown_sample_says_how_to_list_them(lmd: Lmd, tiny_config: Path):
    result = lmd("decompose", "-c", tiny_config, "--sample-token", "0123abcd")
    refused(result, "sample 0123abcd is not in split mini_val", "lmd samples --config")


def files_of_the_first_sample(config: Path, root: Path) -> tuple[str, dict[str, Path]]:
    """Token of the first sample, and a file of each kind that it needs."""
    dataset = build_dataset(load_config(config, [f"data.dataroot={root}", "data.nsweeps=1"]))
    record = dataset._records[0]
    radar = next(iter(record.radars.values()))[0]
    names = {"image": record.cameras[2].filename, "pcd": radar.filename}
    return record.token, {kind: root / name for kind, name in names.items()}


@pytest.mark.parametrize("harm", ["missing", "truncated", "empty"])
@pytest.mark.parametrize("kind", ["image", "pcd"])
@pytest.mark.parametrize("command", ["decompose", "evaluate"])
def test_a_damaged_file_is_named_with_its_sample(
    lmd: Lmd, tiny_config: Path, own_root: Path, command: str, kind: str, harm: str
):
    token, files = files_of_the_first_sample(tiny_config, own_root)
    damage(files[kind], harm)
    result = lmd(command, "-c", tiny_config, "--dataroot", own_root)
    assert result.exit_code == 2
    message = result.stderr.partition("error: ")[2]  # after the progress of evaluate
    assert str(files[kind]) in message
    assert token in message
    assert len(message.splitlines()) == 1


def damage(path: Path, harm: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(content[: len(content) // 2] if harm == "truncated" else b"")


def test_a_lidar_file_is_named_with_its_sample(lmd: Lmd, tiny_config: Path, own_root: Path):
    lidar = next((own_root / "samples" / "LIDAR_TOP").iterdir())
    for path in lidar.parent.iterdir():
        damage(path, "truncated")
        path.write_bytes(path.read_bytes()[:-3])
    three = ["--set", "model.modalities=[camera, radar, lidar]"]
    result = lmd("decompose", "-c", tiny_config, "--dataroot", own_root, *three)
    refused(result, ".pcd.bin", "needed by sample")


def test_skipping_damaged_samples_goes_on_and_says_so(lmd: Lmd, tiny_config: Path, own_root: Path):
    token, files = files_of_the_first_sample(tiny_config, own_root)
    damage(files["image"], "truncated")
    result = lmd("evaluate", "-c", tiny_config, "--dataroot", own_root, "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert token in result.stdout.partition("variant")[2]  # under the table
    record = json.loads(Path("results/tiny/run.json").read_text())
    assert token in record["skipped"]


def test_too_few_samples_for_the_schedule(lmd: Lmd, tiny_config: Path):
    result = lmd("evaluate", "-c", tiny_config, "--set", "perturbation.count=12")
    refused(result, "perturbation.count is 12", "only 6 samples", "at least 13")
    result = lmd("evaluate", "-c", tiny_config, "--set", "perturbation.stride=3")
    refused(result, "perturbation.stride 3 x 2 is a multiple of the 6 samples", "auto")


# -- checkpoints --------------------------------------------------------------------------


def test_a_checkpoint_that_is_missing(lmd: Lmd, tiny_config: Path):
    result = lmd("decompose", "-c", tiny_config, "--checkpoint", "nope.pth")
    refused(result, "checkpoint nope.pth does not exist", "random")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_that_is_truncated(lmd: Lmd, tiny_config: Path, suffix: str):
    path = Path(f"weights.{suffix}")
    state = build_network(load_config(tiny_config), torch.device("cpu")).network.state_dict()
    torch.save({"model_state_dict": state}, path) if suffix == "pth" else save_file(state, path)
    assert lmd("decompose", "-c", tiny_config, "--checkpoint", path).exit_code == 0
    path.write_bytes(path.read_bytes()[:-2000])
    result = lmd("decompose", "-c", tiny_config, "--checkpoint", path)
    refused(result, f"checkpoint {path}", "cannot be read", "truncated")


class Harmful:
    """What a malicious checkpoint holds: unpickling it runs code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm-was-done",)


def test_a_checkpoint_that_is_not_tensors(lmd: Lmd, tiny_config: Path):
    Path("evil.pth").write_bytes(pickle.dumps({"model_state_dict": Harmful()}, protocol=2))
    torch.save({"model_state_dict": Harmful()}, "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        result = lmd("decompose", "-c", tiny_config, "--checkpoint", name)
        refused(result, f"checkpoint {name} was refused: it holds ", "mkdir")
    assert not Path("harm-was-done").exists()


def test_a_checkpoint_of_another_architecture(lmd: Lmd, tiny_config: Path):
    other = load_config(tiny_config, ["model.encoder=res101", "model.widths.latent=16"])
    network = build_network(other, torch.device("cpu")).network
    state = network.state_dict()
    state["one_too_many"] = torch.zeros(1)
    torch.save({"model_state_dict": state}, "other.pth")
    result = lmd("decompose", "-c", tiny_config, "--checkpoint", "other.pth")
    refused(result, "another architecture", "0 missing", "1 unexpected: one_too_many")
    misshapen = next(line for line in result.stderr.splitlines() if "misshapen" in line)
    assert misshapen.count(" instead of ") == 5
    assert "more" in misshapen


# -- results ------------------------------------------------------------------------------


def contents(folder: str) -> dict[str, bytes]:
    files = (path for path in Path(folder).iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in files if path.name != ".lock"}  # who ran last


def test_finished_results_stay_whatever_is_refused(lmd: Lmd, tiny_config: Path):
    run = ["evaluate", "-c", tiny_config, "--limit", 1]
    assert lmd(*run).exit_code == 0
    finished = contents("results/tiny")
    assert set(finished) >= {"metrics.csv", "table.csv", "pairs.csv", "run.json"}
    refused(
        lmd(*run, "--set", "variants=[identity-identity]", "--set", "data.nsweeps=3"),
        "results/tiny holds the results of another run",
        "config.variants: ",
        "config.data.nsweeps: 2 there, 3 here",
        "--overwrite",
    )
    refused(lmd(*run, "--no-resume"), "results/tiny holds results", "--overwrite")
    refused(lmd(*run, "--checkpoint", "nope.pth"), "nope.pth does not exist")
    refused(lmd(*run, "--overwrite", "--checkpoint", "nope.pth"), "nope.pth does not exist")
    refused(lmd(*run, "--overwrite", "--set", "a=1"), "unknown key a")
    assert contents("results/tiny") == finished
    assert lmd(*run, "--overwrite", "--no-resume").exit_code == 0


@pytest.mark.parametrize("command", ["decompose", "evaluate", "check"])
def test_a_full_disk(lmd: Lmd, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, command: str):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    limit = ["--limit", "1"] if command == "evaluate" else []
    result = lmd(command, "-c", tiny_config, "--output", "out", *limit)
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr


def test_an_output_folder_that_cannot_be_made(lmd: Lmd, tiny_config: Path):
    Path("file").write_text("")
    result = lmd("decompose", "-c", tiny_config, "--output", "file/folder")
    refused(result, "file/folder", code=1)


def test_synthesize_leaves_a_folder_with_files_alone(lmd: Lmd):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    refused(lmd("synthesize", "--output", "full"), "full exists already; give a new or empty")
    refused(lmd("synthesize", "--output", "x", "--scenes", 5000), "5000 scenes asked for")
    refused(lmd("synthesize", "--output", "x", "--height", 5), "image size (5, 800)")
    assert Path("full/mine.txt").read_text() == "mine"
    assert not Path("x").exists()
