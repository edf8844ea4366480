"""Formatting of numbers for people."""

import math
import re
from collections.abc import Iterable
from contextlib import suppress

MISSING = "-"
"""Placeholder for a missing number."""


def share_meant(text: object) -> str | None:
    """Return the share that a percentage such as 95 or 3% is, as text; None if `text` has no such form.

    A number from 1 to 2 without the sign is no percentage, but a share that is too large.
    """
    found = re.fullmatch(r"([0-9.]+) ?%|(?!1(?:\.|$))([0-9]{1,2}(?:\.[0-9]+)?|100)", str(text).strip())
    with suppress(ValueError):
        return f"{float(found[1] or found[2]) / 100:g}" if found else None
    return None


def number(value: float | None, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits and thousands separators, and all digits before the point."""
    if value is None or math.isnan(value):
        return MISSING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value if decimals == 0 else rounded:,.{decimals}f}"


def in_sentence(value: float) -> str:
    """Return `value` for a sentence: as `number` does, without trailing zeros and never as `3.41e+03`."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def ratio(value: float) -> str:
    """Return a speed-up as text.

    It has three decimals below 10 and three significant digits above. Extreme values become `>1000` or `<0.001`.
    """
    if value > 1000:
        return ">1000"
    if value < 0.001:
        return "<0.001"
    return f"{value:.3f}" if value < 10 else number(value, 3)


def percent(fraction: float) -> str:
    """Return a difference such as 0.042 as `4.2 %`, with two significant digits.

    From 100 % on it becomes a factor, such as `2.5x`. Above a factor of 1000 it becomes `any size`.
    """
    if fraction >= 0.995:
        return "any size" if fraction > 999 else f"{number(1 + fraction, 2)}x"
    return f"{number(100 * fraction, 2)} %"


def plain_percent(fraction: float) -> str:
    """Return a setting such as 0.01 or 0.975 as a percentage without rounding: `1 %`, `97.5 %`."""
    return f"{100 * fraction:.6g} %"


def count(value: int | None) -> str:
    """Return a whole number with thousands separators."""
    return MISSING if value is None else f"{value:,d}"


def several(amount: int, thing: str) -> str:
    """Return an amount with its noun: `1 launch`, `2 launches`."""
    ending = "es" if thing.endswith(("ch", "sh", "s", "x")) else "s"
    return f"{amount:,d} {thing}{'' if amount == 1 else ending}"


def first_few(things: Iterable[object], most: int = 4, separator: str = ", ") -> str:
    """Return the first `most` of `things` as text, with the number of further things."""
    names = [str(thing) for thing in things]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def sentence(text: str) -> str:
    """Return `text` with a full stop at its end, unless it ends with a punctuation mark."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def duration(seconds: float) -> str:
    """Return a duration for people: 40 s, 2 min, 3.5 h."""
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
