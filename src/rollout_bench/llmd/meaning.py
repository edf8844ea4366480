"""The workload of a profile: prompts and outputs, arrival of requests, and goodput limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

EXPECTED_STEP_S = 0.01
"""Minimum expected seconds for an output token, which gives the number of prompts for a closed loop by duration."""

MOST_PROMPT_TOKENS = 4_000_000
"""Maximum tokens of all prompts for a closed loop by duration. After the last prompt, the loop repeats them."""

SERVED, STARTED = "online", "startup"
"""Modes of the config that measure what a harness does: it sends a load, or only waits for the engine."""


@dataclass
class Meaning:
    """The settings that follow from a profile.

    Attributes:
        workload: keys of a workload, without `online`.
        online: keys below the workload's `online`.
        otherwise: default values for keys of the workload that the config does not set.
        slo: goodput limits of a request, in milliseconds, with the config's names.
        notes: differences to the harness that a reader of the results must know.
        mode: the mode that measures the profile.
    """

    workload: dict[str, Any] = field(default_factory=dict)
    online: dict[str, Any] = field(default_factory=dict)
    otherwise: dict[str, Any] = field(default_factory=dict)
    slo: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mode: str = SERVED


@dataclass(frozen=True)
class HeldLoad:
    """A load that a profile holds for a time, or for a number of requests.

    Attributes:
        rate: requests per second; None: the concurrency alone limits requests.
        concurrency: maximum simultaneous requests; None: no limit.
        duration_s: duration of the load in seconds; None if the number of requests limits it.
        requests: number of requests; None if the duration limits the load.
    """

    rate: float | None = None
    concurrency: int | None = None
    duration_s: float | None = None
    requests: int | None = None

    def sent(self, prompt_tokens: float, output_tokens: float) -> int:
        """Return the number of requests; for a closed loop by duration, the estimated number of prompts it needs."""
        if self.requests is not None:
            return self.requests
        assert self.duration_s is not None, "a stage has an end"
        if self.rate is not None:
            return max(1, round(self.rate * self.duration_s))
        users = self.concurrency or 1
        most = max(users, int(MOST_PROMPT_TOKENS / prompt_tokens))
        return min(most, math.ceil(users * max(1.0, self.duration_s / (output_tokens * EXPECTED_STEP_S))))


def arriving(meaning: Meaning, stages: Sequence[HeldLoad]) -> None:
    """Write the arrival of requests and the number of prompts into `meaning`.

    Args:
        meaning: settings to change, which must have prompt and output lengths already.
        stages: the loads in order, at least one.
    """
    prompt, output = (
        _middle({**meaning.otherwise, **meaning.workload}[key]) for key in ("prompt_tokens", "output_tokens")
    )
    most = max(stage.sent(prompt, output) for stage in stages)
    if all(stage.requests is None for stage in stages):
        most = max(meaning.workload.get("shared_prefix", {}).get("groups", 1), most)
    # In a closed loop by duration, the server's speed decides how many prompts are sent.
    is_open = any(stage.requests is not None or stage.rate is not None for stage in stages)
    (meaning.workload if is_open else meaning.otherwise)["prompts"] = most
    users, rates = [stage.concurrency for stage in stages], [_plain(stage.rate) or "inf" for stage in stages]
    seconds, counted = [_plain(stage.duration_s) for stage in stages], [stage.requests for stage in stages]
    by_rate, several = any(stage.rate for stage in stages), len(stages) > 1
    found = {
        "concurrency": users if several and (any(users) or not by_rate) else users[0],
        "request_rate": None if not by_rate else rates if several else rates[0],
        "duration_s": seconds if len(set(seconds)) > 1 else seconds[0],
        "requests": counted if len(set(counted)) > 1 else None,
    }
    meaning.online |= {key: value for key, value in found.items() if value is not None}


def _plain(value: float | None) -> float | int | None:
    """Return a whole number as an integer: 30, not 30.0."""
    return int(value) if value is not None and value == int(value) else value


def _middle(length: Any) -> float:
    """Return the typical value of a length or a distribution."""
    if isinstance(length, int):
        return float(length)
    return float(length.get("mean") or length.get("median") or (length["low"] + length["high"]) / 2)


def bounded(low: int, high: int, mean: float, std: float) -> int | dict[str, Any]:
    """Return a normal distribution of lengths within bounds, or a number if all lengths are equal."""
    if low == high or std == 0:
        return min(max(round(mean), low), high)
    return {"distribution": "normal", "mean": _plain(mean), "std": _plain(std), "low": low, "high": high}


def uniform(low: int, high: int) -> int | dict[str, Any]:
    """Return a uniform distribution of lengths from `low` to `high`, or a number if both are equal."""
    return low if low == high else {"distribution": "uniform", "low": low, "high": high}


def behind(prefix: int, length: int | dict[str, Any]) -> int | dict[str, Any]:
    """Return the lengths of whole prompts: a shared prefix, then an individual part of the given length."""
    if isinstance(length, int):
        return prefix + length
    return {key: value + prefix if key in ("low", "high", "mean") else value for key, value in length.items()}
