"""The schema of ``run.json``, checked before any of it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmd_cli.errors import ResultsError

_MOST_THREADS, _MOST_BYTES = 4096, 2**50


#: Of a file in the run's folder itself.
FileName = Annotated[str, Field(pattern=r"^[\w-][\w.-]{0,99}$")]


class _Entries(BaseModel):
    """Entries by name; others are let be."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Weights(_Entries):
    sha256: str | None = None
    random: bool = False


class _Samples(_Entries):
    count: int = Field(ge=0)
    sha256: str


class _Schedule(_Entries):
    stride: int
    count: int


class _Chunks(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    linear: int = Field(ge=1, le=_MOST_BYTES)
    parts: int = Field(ge=1, le=_MOST_BYTES)
    head: int = Field(ge=1, le=_MOST_BYTES)


class _Compute(_Entries):
    channels_last: bool = False
    chunk_bytes: _Chunks | None = None


class _Print(_Entries):
    sample: str
    inputs: str
    output: str
    statistics: list[float] = Field(min_length=3, max_length=3)


class _Record(_Entries):
    """Every entry that any command reads again."""

    status: str = ""
    config: dict[str, Any] | None = None
    config_file: str | None = None
    checkpoint: str = ""
    weights: _Weights | None = None
    samples: _Samples | None = None
    schedule: _Schedule | None = None
    threads: int = Field(1, ge=1, le=_MOST_THREADS)
    compute: _Compute | None = None
    versions: dict[str, Any] | None = None
    evaluated: int = 0
    vehicle_iou: float | None = None
    conservation_residual: float | None = None
    replay_deviation: float | None = None
    padded: dict[str, int] | None = None
    skipped: list[str] | None = None
    missing_partners: list[str] | None = None
    fingerprint: list[_Print] | None = None
    command: dict[str, Any] | None = None
    files: dict[FileName, str] | None = None
    entries: _Samples | None = None


def parse_record(value: Any, path: Path) -> dict[str, Any]:
    """The entries of ``run.json`` as they are, once their types are those that we write.

    Raises:
        ResultsError: names the first entry that is something else.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()  # half a character in a text cannot be shown
        _Record.model_validate(value)
    except UnicodeEncodeError:
        raise ResultsError(f"{path} holds text that is no Unicode; use another --output") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise ResultsError(
            f"{path}: {key} is not what lmd writes there: {first['msg']}; this is no run's record, "
            "or a damaged one. Use another --output"
        ) from None
    return dict(value)
