"""What the linear layers alone say of a whole step: their time in it, and what a faster one would gain end to end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.operators.curves import Curve, Estimate, Over, seconds, speedup, summed
from rollout_bench.analysis.operators.runs import Run

Place = tuple[str, str, str, str]
"""Platform, model, workload and quant label."""

BEYOND_PREFILL = ("lm_head",)
"""Shapes that a prefill step calls with a token of each sequence and not with all of them."""


@dataclass(frozen=True)
class Value:
    """One number with its interval, NaN where `over` is "nothing"."""

    value: float
    low: float
    high: float
    over: Over


@dataclass(frozen=True)
class Phase:
    """The linear layers of one phase: `seconds` of all of them, and how much faster than the baseline's they are.

    `speedup` is None for the baseline, and where there is none. `tokens` are those of a call.
    """

    tokens: int
    seconds: Value
    speedup: Value | None


@dataclass(frozen=True)
class Profiled:
    """What a profile says of steps of one phase: their mean length, and the time of linear layers in it, in seconds."""

    step_s: float
    linear_s: float


@dataclass(frozen=True)
class Step:
    """The linear layers of `run` in a decode step with the batch in use, and per prompt token of prefill.

    Prefill is at the largest number of tokens measured, its seconds divided by that number, and without `lm_head`,
    which is called with one token of each sequence. `profiled` is what a profile says of decode steps, of its own and
    of the baseline; `end_to_end` the speed-up of the whole decode step that follows. `reason` says of profiles that
    have no valid launch why.
    """

    run: Run
    decode: Phase | None
    prefill: Phase | None
    profiled: Profiled | None = None
    end_to_end: Value | None = None
    reason: str = ""


def steps_of(runs: Sequence[Run], profiled: Mapping[Place, Profiled | str] | None = None) -> list[Step]:
    """A line for each of `runs`; `profiled` are decode steps of profiles, or why a profile has none that count."""
    return [_step(run, profiled or {}) for run in runs]


def amdahl(share: float, speedup: float) -> float:
    """Speed-up of a whole of which the part `share`, between 0 and 1, is `speedup` times faster.

    1 / (1 - f + f / s) (Amdahl, "Validity of the single processor approach to achieving large scale computing
    capabilities", AFIPS 1967).

    Raises:
        ValueError: the share is no share, or the speed-up not above 0.
    """
    if not (0 <= share <= 1 and speedup > 0):
        raise ValueError("a share from 0 to 1 and a speed-up above 0 are wanted")
    return 1 / (1 - share + share / speedup)


def _step(run: Run, profiled: Mapping[Place, Profiled | str]) -> Step:
    decode = _phase(run, run.decode_batch, 1, ())
    largest = _largest(run)
    prefill = None if largest is None else _phase(run, largest, largest, BEYOND_PREFILL)
    own = profiled.get((*run.place, run.label))
    base = None if run.baseline is None else profiled.get((*run.place, run.baseline.label))
    reasons = [
        f"profile of {label}: {found}"
        for label, found in ((run.label, own), (run.baseline.label if run.baseline else "", base))
        if isinstance(found, str)
    ]
    own, base = (None if isinstance(found, str) else found for found in (own, base))
    end_to_end = None
    if base is not None and decode is not None and decode.speedup is not None:
        # The baseline's share: it is the whole that gets faster by its part.
        share = min(1.0, base.linear_s / base.step_s)
        value, low, high = (
            amdahl(share, end) if end > 0 else math.nan
            for end in (decode.speedup.value, decode.speedup.low, decode.speedup.high)
        )
        end_to_end = Value(value, low, high, decode.speedup.over)
    return Step(run, decode, prefill, own, end_to_end, "; ".join(reasons))


def _largest(run: Run) -> int | None:
    """The largest number of tokens at which all shapes that matter to prefill were measured."""
    curves = [curve for name, curve in run.curves.items() if name not in BEYOND_PREFILL]
    common = set.intersection(*(set(curve.tokens) for curve in curves)) if curves else set()
    return max(common, default=None)


def _phase(run: Run, tokens: int, per: int, without: Sequence[str]) -> Phase | None:
    """All shapes but `without` at `tokens`, their time divided by `per`; None where not all were measured there."""
    own = _whole(run, tokens, without)
    if own is None:
        return None
    theirs = None if run.baseline is None else _whole(run.baseline, tokens, without)
    ratio = None if theirs is None else at(speedup(own, theirs, run.confidence), 0)
    whole = seconds(own, run.confidence)
    each = Estimate(whole.value / per, whole.low / per, whole.high / per, whole.over)
    return Phase(tokens, at(each, 0), ratio)


def _whole(run: Run, tokens: int, without: Sequence[str]) -> Curve | None:
    wanted = [name for name in run.linears if name not in without]
    curves: dict[object, Curve] = {
        name: run.curves[name].at((tokens,))
        for name in wanted
        if name in run.curves and tokens in run.curves[name].tokens
    }
    if not wanted or len(curves) < len(wanted):
        return None
    return summed(curves, {name: run.linears[name].layers for name in wanted})


def at(estimate: Estimate, place: int) -> Value:
    """What `estimate` says at the `place`-th of its numbers of tokens."""
    return Value(float(estimate.value[place]), float(estimate.low[place]), float(estimate.high[place]), estimate.over)
