"""Readers of external values: trainers' settings, workload profiles, command lines.

A reader returns the converted value, or raises `ValueError` with a description of valid values.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

_Value = TypeVar("_Value")

Reader = Callable[[Any], _Value]


def finite(value: Any) -> float | None:
    """Return a finite number, or None for any other value.

    Text is converted, because command lines hold text and YAML 1.1 reads 1e-1 as text.
    """
    try:
        number_read = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number_read if math.isfinite(number_read) else None


def _numbers(wanted: str, keeps: Callable[[float], bool], kind: Callable[[float], _Value]) -> Reader[_Value]:
    def reader(value: Any) -> _Value:
        found = finite(value)
        if found is None or not keeps(found):
            raise ValueError(wanted)
        return kind(found)

    return reader


number = _numbers("a number", lambda found: True, float)
positive = _numbers("a number above 0", lambda found: found > 0, float)
not_negative = _numbers("a number from 0 up", lambda found: found >= 0, float)
share = _numbers("a number above 0 and up to 1", lambda found: 0 < found <= 1, float)
count = _numbers("a whole number from 1 up", lambda found: found >= 1 and found.is_integer(), int)
index = _numbers("a whole number from 0 up", lambda found: found >= 0 and found.is_integer(), int)


def or_none(reader: Reader[_Value]) -> Reader[_Value | None]:
    """Return a reader that also accepts None."""
    return lambda value: None if value is None else reader(value)


def switch(value: Any) -> bool:
    """Return true or false, written as in YAML or Python, or as 0 or 1; raise `ValueError` for other values."""
    words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    found = words.get(str(value).lower())
    if found is None:
        raise ValueError("true or false")
    return found


def text(value: Any) -> str:
    """Return a non-empty text without surrounding space; raise `ValueError` for other values."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value.strip()
