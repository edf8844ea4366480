"""The base of all that is read from a file, and how fields that came later keep earlier keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of all that is read from a file: unknown fields are errors, values don't change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def absent(description: str, **more: Any) -> Any:
    """A field that is None by default, and then not written at all.

    What was measured before the field existed keeps its key, and records don't carry what their mode does not have.
    """
    return Field(None, description=description, exclude_if=lambda value: value is None, **more)
