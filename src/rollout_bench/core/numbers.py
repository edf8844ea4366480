"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable

MISSING = "-"
"""Stands for a number that does not exist."""


def number(value: float | None, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits and thousands separators; digits before the point all stay."""
    if value is None or math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value if decimals == 0 else rounded:,.{decimals}f}"


def brief(value: float, digits: int = 4) -> str:
    """Return `value` for a sentence: as `number`, without zeros at its end. Never `3.41e+03`."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def ratio(value: float) -> str:
    """Return a speed-up.

    Three decimals up to 10, then three significant digits; beyond a thousand either way only that.
    """
    if value > 1000:
        return ">1000"
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 10 else number(value, 3)


def percent(fraction: float) -> str:
    """Return a difference such as 0.042: `4.2 %`, two significant digits; from 100 % on as a factor, `2.5x`.

    Beyond a factor of a thousand `any size`, for want of a difference that would do.
    """
    if fraction >= 0.995:
        return "any size" if fraction > 999 else f"{number(1 + fraction, 2)}x"
    return f"{number(100 * fraction, 2)} %"


def plain_percent(fraction: float) -> str:
    """Return a setting such as 0.01 or 0.975 as it was written: `1 %`, `97.5 %`."""
    return f"{100 * fraction:.6g} %"


def count(value: int | None) -> str:
    """Return a whole number with thousands separators."""
    return MISSING if value is None else f"{value:,d}"


def several(amount: int, thing: str) -> str:
    """`1 launch`, `2 launches`."""
    ending = "es" if thing.endswith(("ch", "sh", "s", "x")) else "s"
    return f"{amount:,d} {thing}{'' if amount == 1 else ending}"


def first_few(things: Iterable[object], most: int = 4, separator: str = ", ") -> str:
    """Return the first `most` of `things`, and how many more there are."""
    names = [str(thing) for thing in things]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def sentence(text: str) -> str:
    """Return `text` with a full stop where it has none."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
