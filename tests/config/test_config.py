"""The YAML's schema: what is taken, and what is said of everything else."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from lmd_cli.config.loading import load_config
from lmd_cli.config.schema import RunConfig
from lmd_cli.config.shipped import shipped
from lmd_cli.errors import ConfigError

SHIPPED = sorted(path.name for path in shipped("configs").glob("*.yaml"))


def message(config: Path | str, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(config, settings)
    return str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_by_its_bare_name(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(name)
    assert config.name == Path(name).stem
    assert load_config(config.name) == config


def test_the_published_config_is_the_papers():
    config = load_config("radar_cam.yaml")
    model, data = config.model, config.data
    assert (model.encoder, model.image_size, model.grid) == ("res101", (224, 400), (200, 8, 200))
    assert (data.version, data.split, data.nsweeps) == ("v1.0-trainval", "val", 5)
    assert (config.perturbation.stride, config.perturbation.count) == (500, 12)


def test_there_are_the_three_configs():
    assert {"demo.yaml", "radar_cam.yaml", "radar_cam_mini.yaml"} <= set(SHIPPED)


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    kinds = [field.annotation for field in model.model_fields.values()]
    inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    return [model, *(s for kind in inner for s in sections(kind))]


def test_every_key_is_documented_where_it_is_declared():
    for section in sections(RunConfig):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no description"
            assert "expected" in field.json_schema_extra, f"{section.__name__}.{name}"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.encodr=res50", "unknown key model.encodr; did you mean model.encoder?"),
        ("model.widths.latents=3", "unknown key model.widths.latents; did you mean model.widths.l"),
        ("model.channel=0", "key model.channel; only a model of your own (model.target) has it"),
        ("split=val", "unknown key split; did you mean data.split?"),
        ("nsweeps.x=1", "unknown key nsweeps; did you mean data.nsweeps?"),
        ("qqq=1", "unknown key qqq; known here: data, model, variants"),
        (r'data.dataroot="a\0b"', "expected a folder, or synthetic"),
        ("data.nsweeps=0", "data.nsweeps is 0: expected an integer from 1 to 100"),
        ("data.nsweeps=true", "data.nsweeps is True: expected an integer"),
        ("data.nsweeps='5'", "data.nsweeps is '5': expected an integer"),
        ("data.nsweeps=2.5", "data.nsweeps is 2.5: expected an integer"),
        ("data.split=null", "data.split is None: expected a name such as"),
        ("data=3", "data is 3: expected a mapping with the keys dataroot, version, split"),
        ("model.encoder=res18", "model.encoder is 'res18': expected res50, res101, effb0 or effb4"),
        ("model.image_size=[224]", "model.image_size is [224]: expected [height, width]"),
        ("model.image_size=[16, 400]", "integers from 32 to 4096"),
        ("model.grid=200", "model.grid is 200: expected [Z, Y, X]"),
        ("model.bounds=[-5,5,-5,5,5,-5]", "each minimum below its maximum"),
        ("model.bounds=[.nan,5,-5,5,-5,5]", "model.bounds is [nan"),
        ("model.modalities=[radar, camera]", "expected [camera] or [camera, radar] or"),
        ("model.widths.latent=0", "model.widths.latent is 0: expected a positive integer"),
        ("model.output=depth", "model.output is 'depth': expected segmentation"),
        ("variants=identity-ratio", "expected a list of names such as [identity-ratio]"),
        ("variants=[]", "variants is []: expected a list"),
        ("variants=[identiy-ratio]", "did you mean 'identity-ratio'?"),
        ("variants=[identity-ratio, identity-ratio]", "identity-ratio is listed twice"),
        ("perturbation.stride=0", "perturbation.stride is 0: expected a positive integer, or auto"),
        ("perturbation.stride=x", "perturbation.stride is 'x': expected a positive integer, or"),
        ("perturbation.count=-1", "perturbation.count is -1: expected a positive integer"),
        ("compute.precision=int8", "compute.precision is 'int8': expected float32, bf16 or fp16"),
        ("compute.memory=20", "compute.memory is 20: expected auto, or a size such as 20GB"),
        ("compute.memory=0GB", "compute.memory is '0GB': expected auto, or a size such as 20GB"),
        ("compute.memory=20 gigs", "compute.memory is '20 gigs': expected auto, or a size"),
        ("compute.channels_last=no way", "is 'no way': expected auto, true or false"),
        ("compute.tf32=1", "compute.tf32 is 1: expected true or false"),
        ("compute.precison=bf16", "unknown key compute.precison; did you mean compute.precision?"),
        ("device=gpu", "device is 'gpu': expected auto, cpu, cuda or cuda:N"),
        ("threads=0", "threads is 0: expected a positive integer"),
        ("workers=-1", "workers is -1: expected an integer from 0 to 256"),
        ("data.split.x=1", "data.split is a value, not a mapping"),
        ("data.split", "expected key=value"),
        ("=1", "expected key=value"),
        ("data.split=[a", "the value is not valid YAML"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_was_expected(setting: str, said: str):
    text = message("demo.yaml", setting)
    assert text.startswith(f"--set {setting}: ")
    assert said in text
    assert "\n" not in text


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_problem_of_a_file_is_listed(tmp_path: Path):
    path = write(tmp_path / "x.yaml", "data: {split: 3}\nmodel: {checkpont: a}\n")
    lines = message(path).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    problems = [line.removeprefix(f"{path}: ") for line in lines]
    assert "missing key data.dataroot: expected a folder, or synthetic" in problems
    splits = "a name such as val or mini_val, or a list of scenes such as [scene-0103]"
    assert f"data.split is 3: expected {splits}" in problems
    assert "unknown key model.checkpont; did you mean model.checkpoint?" in problems
    assert len(problems) == 5  # and data.version, model.checkpoint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [1\nmodel: 2\n", ", line 2: not valid YAML"),
        ("a: b: c\n", ", line 1: not valid YAML"),
        ("", "holds nothing; expected a mapping with the keys data, model"),
        ("- 1\n", "holds list; expected a mapping"),
        ("!!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_a_mapping_in_yaml(tmp_path: Path, text: str, said: str):
    assert said in message(write(tmp_path / "x.yaml", text))


def test_a_file_that_is_not_text(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\x80\x81")
    assert "not valid YAML" in message(path)


def test_a_config_that_is_not_there_is_answered_with_those_that_are():
    text = message("dmeo")
    assert "config dmeo not found" in text
    assert all(name in text for name in SHIPPED)
    assert text.endswith("did you mean demo.yaml?")
    assert "not found" in message("nowhere/demo.yaml")


def test_a_path_comes_before_configs_here_before_those_shipped(tmp_path: Path, monkeypatch):
    values = yaml.safe_load((shipped("configs") / "demo.yaml").read_text())
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_config("demo").seed == 0
    write(tmp_path / "configs" / "demo.yaml", yaml.safe_dump({**values, "seed": 1}))
    assert load_config("demo").seed == 1
    write(tmp_path / "demo.yaml", yaml.safe_dump({**values, "seed": 2}))
    assert load_config("demo").seed == 2


def test_settings_are_yaml_and_the_last_one_wins():
    settings = ["seed=1", "seed=7", "variants=[uniform-ratio, identity-ratio-identity]"]
    config = load_config("radar_cam", [*settings, "model.widths.latent=16", "threads=null"])
    assert (config.seed, config.threads, config.model.widths.latent) == (7, None, 16)
    assert config.variants == ("uniform-ratio", "identity-ratio")  # canonical names


def test_a_config_survives_pickling_and_json(tmp_path: Path):
    config = load_config("demo.yaml")
    again = pickle.loads(pickle.dumps(config))
    assert (again, again.name, again.source) == (config, "demo", config.source)
    path = write(tmp_path / "demo.yaml", yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(path).model_dump() == config.model_dump()


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_config("demo").seed = 3


def test_the_detection_threshold_is_recorded_only_where_it_is_set(tmp_path: Path) -> None:
    """Runs that were made before the key was there go on."""
    path = write(
        tmp_path / "demo.yaml", yaml.safe_dump(load_config("demo").model_dump(mode="json"))
    )
    assert "detection" not in load_config(path).model_dump()
    config = load_config(path, ["detection=0.4"])
    assert config.model_dump(mode="json")["detection"] == 0.4
    for value in ("1", "0.0", "most"):
        with pytest.raises(ConfigError, match=r"detection.*number between 0 and 1"):
            load_config(path, [f"detection={value}"])
