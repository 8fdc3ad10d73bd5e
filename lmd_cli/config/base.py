"""Base class, key declarations and messages of the YAML's schema."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
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


def expected_of(field: FieldInfo | None) -> str:
    """What :func:`option` says of a key's values."""
    extra = field.json_schema_extra if field is not None else None
    return str(extra["expected"]) if isinstance(extra, dict) else "another value"


def problems_of(
    error: ValidationError, schema: type[Section], prefix: str, more: Collection[str] = ()
) -> str:
    """One line for each problem with the values of one section.

    Args:
        prefix: of the keys, as the user sees them.
        more: keys that are allowed besides the schema's.
    """
    lines = (_problem(detail, schema, prefix, more) for detail in error.errors(include_url=False))
    return "\n".join(dict.fromkeys(lines))


def _problem(detail: Any, schema: type[Section], prefix: str, more: Collection[str]) -> str:
    if not detail["loc"]:
        return f"{prefix}: {detail['msg']}"
    name = str(detail["loc"][0])
    key, field = f"{prefix}.{name}", schema.model_fields.get(name)
    if field is None:
        known = [*schema.model_fields, *more]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {prefix}.{near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key {key}; {hint}"
    if detail["type"] == "missing":
        return f"missing key {key}: expected {expected_of(field)}"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}"
    return f"{key} is of another kind ({detail['input']!r}): expected {expected_of(field)}"
