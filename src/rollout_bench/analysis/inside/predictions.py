"""What linear layers, timed alone, predict for a step and for a whole pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.inside.curves import Curve, Estimate, OperatorsRun, Over, seconds, speedup, summed
from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.experiments import no_valid_launch
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import table_of
from rollout_bench.contracts.modes import OFFLINE
from rollout_bench.contracts.spec import replicas

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
class ProfiledStep:
    """What a profile says of steps of one phase: their mean length, and the time of linear layers in it, in seconds."""

    step_s: float
    linear_s: float


@dataclass(frozen=True)
class PredictedStep:
    """The linear layers of `run` in a decode step with the batch in use, and per prompt token of prefill.

    Prefill is at the largest number of tokens measured, its seconds divided by that number, and without `lm_head`,
    which is called with one token of each sequence. `profiled` is what a profile says of decode steps, of its own and
    of the baseline; `end_to_end` the speed-up of the whole decode step that follows. `reason` says of profiles that
    have no valid launch why.
    """

    run: OperatorsRun
    decode: Phase | None
    prefill: Phase | None
    profiled: ProfiledStep | None = None
    end_to_end: Value | None = None
    reason: str = ""


def steps_of(
    runs: Sequence[OperatorsRun], profiled: Mapping[Place, ProfiledStep | str] | None = None
) -> list[PredictedStep]:
    """Return a line for each of `runs`.

    `profiled` are decode steps of profiles, or why a profile has none that count.
    """
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


def _step(run: OperatorsRun, profiled: Mapping[Place, ProfiledStep | str]) -> PredictedStep:
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
    return PredictedStep(run, decode, prefill, own, end_to_end, "; ".join(reasons))


def _largest(run: OperatorsRun) -> int | None:
    """Return the largest number of tokens at which all shapes that matter to prefill were measured."""
    curves = [curve for name, curve in run.curves.items() if name not in BEYOND_PREFILL]
    common = set.intersection(*(set(curve.tokens) for curve in curves)) if curves else set()
    return max(common, default=None)


def _phase(run: OperatorsRun, tokens: int, per: int, without: Sequence[str]) -> Phase | None:
    """Return all shapes but `without` at `tokens`, their time divided by `per`.

    None where not all were measured there.
    """
    own = _whole(run, tokens, without)
    if own is None:
        return None
    theirs = None if run.baseline is None else _whole(run.baseline, tokens, without)
    ratio = None if theirs is None else at(speedup(own, theirs, run.confidence), 0)
    whole = seconds(own, run.confidence)
    each = Estimate(whole.value / per, whole.low / per, whole.high / per, whole.over)
    return Phase(tokens, at(each, 0), ratio)


def _whole(run: OperatorsRun, tokens: int, without: Sequence[str]) -> Curve | None:
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
    """Return what `estimate` says at the `place`-th of its numbers of tokens."""
    return Value(float(estimate.value[place]), float(estimate.low[place]), float(estimate.high[place]), estimate.over)


@dataclass(frozen=True)
class Offline:
    """A pass as offline mode measured it: seconds, tokens that decode steps made, prompt tokens that were computed.

    Means over launches. `speedup` is that of its output tok/s over the baseline's; None where there is none.
    """

    elapsed_s: float
    decode_tokens: float
    prompt_tokens: float
    speedup: Value | None = None


@dataclass(frozen=True)
class PredictedPass:
    """The linear layers of `step`'s run in a whole pass: their seconds, and their share of the pass as measured.

    `predicted` is the speed-up of the pass if its linear layers alone change; None for the baseline, where either was
    not measured offline, and where the baseline's linear layers alone take longer than its pass: something is wrong
    then, and `share` shows it. `measured` is what offline mode says. Where offline mode has no valid launch of the run
    `linear_s` and `share` are None; there, and where the baseline's has none, `reason` says so.
    """

    step: PredictedStep
    linear_s: float | None
    share: float | None
    predicted: Value | None
    measured: Value | None
    reason: str = ""


def passes_of(steps: Sequence[PredictedStep], rows: Sequence[Row]) -> list[PredictedPass]:
    """Return a line for each of `steps` whose run was measured offline too, in one engine, as `rows` have it."""
    offline = {
        (*table_of(row.experiment), row.label): (
            _offline(row) if row.valid else no_valid_launch(row.experiment.records)
        )
        for row in rows
        if row.experiment.mode == OFFLINE.name and row.launches and _is_of_one_engine(row)
    }
    found = []
    for step in steps:
        run = step.run
        own = offline.get((*run.place, run.label))
        base = None if run.baseline is None else offline.get((*run.place, run.baseline.label))
        if own is not None and step.decode is not None and step.prefill is not None:
            found.append(_pass(step, own, base))
    return found


def _pass(step: PredictedStep, own: Offline | str, base: Offline | str | None) -> PredictedPass:
    """Return the line of `step`; a pass that has no valid launch is the reason why."""
    if isinstance(own, str):
        return PredictedPass(step, None, None, None, None, f"offline: {own}")
    linear_s = sum(linear_seconds(step, own))
    share = linear_s / own.elapsed_s
    if isinstance(base, str):
        assert step.run.baseline is not None
        return PredictedPass(step, linear_s, share, None, None, f"{step.run.baseline.label} offline: {base}")
    return PredictedPass(step, linear_s, share, None if base is None else _predicted(step, base), own.speedup)


def linear_seconds(step: PredictedStep, offline: Offline) -> tuple[float, float]:
    """Return seconds of all linear layers in decode and in prefill of a pass, if all sequences decode at once.

    Each decode step makes a token of each sequence in the batch; the first token of a sequence comes of its prefill.
    """
    assert step.decode is not None
    assert step.prefill is not None
    steps = offline.decode_tokens / step.decode.tokens
    return steps * step.decode.seconds.value, offline.prompt_tokens * step.prefill.seconds.value


def whole_speedup(elapsed_s: float, parts_s: Sequence[float], speedups: Sequence[float]) -> float:
    """Speed-up of a whole of `elapsed_s` of which each of `parts_s` is so many times faster: Amdahl's law, by parts."""
    saved_s = sum(part - part / speedup for part, speedup in zip(parts_s, speedups, strict=True))
    return elapsed_s / (elapsed_s - saved_s)


def _predicted(step: PredictedStep, base: Offline) -> Value | None:
    """Return the speed-up of the baseline's pass with the linear layers of `step`."""
    decode, prefill = step.decode, step.prefill
    if decode is None or prefill is None or decode.speedup is None or prefill.speedup is None:
        return None
    # The baseline's own times: its seconds are this run's, times how much faster this one is.
    own = linear_seconds(step, base)
    parts_s = [own[0] * decode.speedup.value, own[1] * prefill.speedup.value]
    if sum(parts_s) > base.elapsed_s:
        return None
    both = (decode.speedup, prefill.speedup)
    value, low, high = (
        whole_speedup(base.elapsed_s, parts_s, ends) if all(end > 0 for end in ends) else math.nan
        for ends in ([each.value for each in both], [each.low for each in both], [each.high for each in both])
    )
    return Value(value, low, high, decode.speedup.over)


def _is_of_one_engine(row: Row) -> bool:
    """Return False where replicas make the pass: part of its time some of them wait."""
    return replicas(row.experiment.records[0].spec) == 1


def _offline(row: Row) -> Offline:
    passes = [
        iteration
        for record in row.experiment.records
        if record.valid
        for iteration in record.iterations
        if not iteration.warmup
    ]
    comparison = row.comparisons.get("output_tokens_per_s")
    speedup = None
    if comparison is not None and comparison.speedup is not None:
        low, high = comparison.low, comparison.high
        known = low is not None and high is not None
        speedup = Value(
            comparison.speedup,
            math.nan if low is None else low,
            math.nan if high is None else high,
            "launches" if known else "nothing",
        )
    return Offline(
        elapsed_s=mean([each.elapsed_s for each in passes]),
        decode_tokens=mean([each.output_tokens - each.sequences for each in passes]),
        prompt_tokens=mean([each.prompt_tokens - (each.cached_prompt_tokens or 0) for each in passes]),
        speedup=speedup,
    )
