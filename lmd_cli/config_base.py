"""What the sections of the YAML's schema are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined

Positive = Annotated[int, Field(ge=1, le=100_000)]
Pixels = Annotated[int, Field(ge=32, le=4096)]


def option(
    description: str, expected: str, default: Any = PydanticUndefined, **constraints: Any
) -> Any:
    """A key of the YAML: what it means, what it may hold, and its default (none: required)."""
    extra: dict[str, Any] = {"expected": expected}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class Section(BaseModel):
    """A mapping in the YAML: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
