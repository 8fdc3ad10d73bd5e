"""Options that commands share, alone and in groups."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from lmd_cli.config.schema import RunConfig
    from lmd_cli.workflows.recorded_run import Whereabouts
    from lmd_cli.workflows.report import ReportOptions

#: Options that stand for a key of the config.
SHORT = {
    "dataroot": "data.dataroot",
    "checkpoint": "model.checkpoint",
    "device": "device",
    "precision": "compute.precision",
    "memory": "compute.memory",
    "workers": "workers",
}
#: Those that an environment variable gives for every command: ``LMD_DATAROOT`` and so on.
ONCE = ("dataroot", "device", "precision", "memory", "workers")
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; repeatable."),
]
Dataroot = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Short for --set data.dataroot=DIR."),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Short for --set model.checkpoint=FILE (or random)."),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="auto, cpu or cuda:0; short for --set device=..."),
]
Precision = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="float32, bf16 or fp16 (compute.precision)."),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="auto, or 20GB say (compute.memory)."),
]
SampleToken = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", help="Which sample (see lmd samples); the first if none."),
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="DIR", file_okay=False, help="Where files go (default: results/...)."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, metavar="COUNT", help="Processes that read data (--set workers=N)."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method", metavar="NAME", help="A method of attribution; repeatable (default: all)."
    ),
]


class TrackerName(str, Enum):
    """Experiment trackers."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


Log = Annotated[
    list[TrackerName] | None,
    typer.Option(
        "--log",
        metavar="TRACKER",
        help="Also write scalars, figures and tables to tensorboard, wandb or mlflow; repeatable.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="COUNT",
        help="Only the first COUNT samples of the cycle; which those are depends on "
        "perturbation.stride, and with stride auto on perturbation.count, too.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on from results that are there.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start again over results that are there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


class Form(str, Enum):
    """Kinds of image files."""

    PNG = "png"
    SVG = "svg"
    PDF = "pdf"


def require_trackers(log: list[TrackerName] | None) -> list[str]:
    """Their names, once it is known that each could be opened; done before a long run.

    Raises:
        ConfigError: one is not installed.
    """
    kinds = list(dict.fromkeys(kind.value for kind in log or ()))
    if kinds:
        from lmd_cli.runtime.trackers import require_tracker

        for kind in kinds:
            require_tracker(kind)
    return kinds


def _set_once(run: RunConfig) -> dict[str, str]:
    """The options of :data:`ONCE` that the environment gives, by name.

    ``LMD_DATAROOT`` is not for configs whose data is made by the program or by code of the user's.
    """
    from lmd_cli.config.data import SYNTHETIC

    given = {name: os.environ.get(f"LMD_{name.upper()}", "") for name in ONCE}
    if getattr(run.data, "dataroot", SYNTHETIC) == SYNTHETIC:
        del given["dataroot"]
    return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class DataOptions:
    """Which samples: the options of every command that reads a config."""

    config: Annotated[
        str, typer.Option("--config", "-c", metavar="YAML", help="A file, or a name in configs/.")
    ]
    settings: Settings = None
    dataroot: Dataroot = None
    scene: Annotated[
        list[str] | None,
        typer.Option("--scene", metavar="NAME", help="Only samples of this scene; repeatable."),
    ] = None
    tokens: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Only the samples in a file, one token a line."
        ),
    ] = None
    night: Annotated[
        bool | None,
        typer.Option("--night/--day", help="Only scenes described as at night, or the others."),
    ] = None
    rain: Annotated[
        bool | None,
        typer.Option("--rain/--dry", help="Only scenes described as in rain, or the others."),
    ] = None

    def load(self, *more: str, **short: object) -> RunConfig:
        """The config with the command line's values; the short options win over ``--set``.

        Args:
            more: further ``KEY=VALUE``.
            short: further values of :data:`SHORT`.
        """
        from lmd_cli.config.loading import load_config
        from lmd_cli.errors import ConfigError

        values = {k: v for k, v in (vars(self) | short).items() if k in SHORT and v is not None}
        given = [f"{SHORT[name]}={json.dumps(value)}" for name, value in values.items()]
        asked = [*(self.settings or []), *more, *given, *self._chosen()]
        run = load_config(self.config, asked)
        once = _set_once(run)
        if not once:
            return run
        try:
            return load_config(self.config, [*(f"{SHORT[n]}={v}" for n, v in once.items()), *asked])
        except ConfigError as error:
            named = ", ".join(f"LMD_{name.upper()}={v}" for name, v in once.items())
            raise ConfigError(f"{error}. The environment has {named}") from None

    def _chosen(self) -> list[str]:
        """Settings of the options that choose samples."""
        listed = None if self.tokens is None else _lines(self.tokens)
        values = {"scenes": self.scene, "tokens": listed, "night": self.night, "rain": self.rain}
        return [f"samples.{key}={json.dumps(v)}" for key, v in values.items() if v is not None]

    def arguments(self) -> list[str]:
        """The same options as arguments, for a command to run next."""
        values = {k: v for k, v in vars(self).items() if k in SHORT and v is not None}
        given = [word for name, value in values.items() for word in (f"--{name}", value)]
        repeated = [word for setting in self.settings or [] for word in ("--set", setting)]
        repeated += [word for name in self.scene or [] for word in ("--scene", name)]
        listed = [] if self.tokens is None else ["--tokens", str(self.tokens)]
        words = {"night": ("--day", "--night"), "rain": ("--dry", "--rain")}
        flags = [
            two[bool(v)] for name, two in words.items() if (v := getattr(self, name)) is not None
        ]
        return ["--config", self.config, *repeated, *listed, *flags, *given]

    def report_arguments(self, run: RunConfig) -> list[str]:
        """What ``lmd report`` needs as well if the run's code is the user's."""
        from lmd_cli.config.schema import is_custom

        custom = is_custom(run.model) or is_custom(run.data)
        return DataOptions(self.config, self.settings).arguments() if custom else []


#: Characters of a list of tokens, many times what the largest data set has.
_MOST = 1 << 26


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    from lmd_cli.errors import ConfigError, ForeignFileError
    from lmd_cli.runtime.files import open_given

    try:
        with open(path, encoding="utf-8-sig", opener=open_given) as file:
            text = file.read(_MOST + 1)
    except (OSError, UnicodeDecodeError, ForeignFileError) as error:
        raise ConfigError(f"--tokens {path} cannot be read as text: {error}") from None
    if len(text) > _MOST:
        raise ConfigError(f"--tokens {path} has more than {_MOST} characters; expected tokens")
    return [line.strip() for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class NetworkOptions(DataOptions):
    """Which network on which samples, and where it runs."""

    checkpoint: Checkpoint = None
    device: Device = None


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder that a command wrote (with run.json).")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Run the code that RUN's run.json names (targets).")
]


Survey = Annotated[
    bool, typer.Option("--survey/--no-survey", help="Decompose the samples if not done before.")
]
OwnConfig = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="YAML",
        help="Your config, if the run's network or data set is code of your own.",
    ),
]


def _own(config: str | None, settings: list[str] | None) -> RunConfig | None:
    return None if config is None else DataOptions(config, settings).load()


@dataclass(frozen=True)
class WhereaboutsOptions:
    """Where data, weights and code of a recorded run are, if not where they were."""

    dataroot: Dataroot = None
    checkpoint: Checkpoint = None
    device: Device = None
    config: OwnConfig = None
    settings: Settings = None
    trust: Trust = False

    def resolved(self) -> Whereabouts:
        """With the config that is named."""
        from lmd_cli.workflows.recorded_run import Whereabouts

        own = _own(self.config, self.settings)
        return Whereabouts(self.dataroot, self.checkpoint, self.device, self.trust, own)


@dataclass(frozen=True)
class SurveyOptions:
    """How the samples of a run's folder are decomposed, where that was not done before."""

    survey: Survey = True
    device: Device = None
    config: OwnConfig = None
    settings: Settings = None
    trust: Trust = False

    def load(self) -> ReportOptions:
        """As the workflows take them."""
        from lmd_cli.workflows.report import ReportOptions

        own = _own(self.config, self.settings)
        return ReportOptions(compute=self.survey, device=self.device, trust=self.trust, config=own)


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer takes it: with the options of a group in place of the group."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {
        p.name: p.annotation for p in parameters if is_dataclass(p.annotation)
    }

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    options = [option for parameter in parameters for option in _options(parameter)]
    # Typer reads both; `wraps` would leave those of the command.
    vars(run)["__signature__"] = inspect.Signature(options)
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """A parameter, or the fields of its group; by keyword, so that defaults need not be last."""
    group: Any = parameter.annotation
    if not is_dataclass(group):
        return [parameter.replace(kind=parameter.KEYWORD_ONLY)]
    hints = get_type_hints(group, include_extras=True)
    fields_of = inspect.signature(parameter.annotation).parameters.values()
    return [f.replace(kind=f.KEYWORD_ONLY, annotation=hints[f.name]) for f in fields_of]
