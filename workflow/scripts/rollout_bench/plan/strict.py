"""The base of all that is read from a file, how fields that came later keep earlier keys, and moments in time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Base of all that is read from a file: unknown fields are errors, values don't change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def absent(description: str, **more: Any) -> Any:
    """A field that is None by default, and then not written at all.

    What was measured before the field existed keeps its key, and records don't carry what their mode does not have.
    """
    return Field(None, description=description, exclude_if=lambda value: value is None, **more)


def _utc(text: str) -> str:
    try:
        if datetime.fromisoformat(text).utcoffset() == timedelta(0):
            return text
    except ValueError:
        pass
    raise PydanticCustomError("utc", "Is no moment in UTC, ISO 8601, as 2025-01-31T12:00:00+00:00")


UtcTime = Annotated[str, AfterValidator(_utc)]
"""A moment in UTC, ISO 8601."""
