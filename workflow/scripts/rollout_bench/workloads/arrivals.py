"""When requests are due (a stand-in until the load branch is merged)."""

from __future__ import annotations


def arrivals(rate: float, burstiness: float | str, count: int, label: str) -> list[float]:
    return [number / rate for number in range(count)]
