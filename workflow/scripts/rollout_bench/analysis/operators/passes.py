"""Predicted against measured: what linear layers, timed alone, say of a whole pass of the workload in offline mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.analysis.operators.steps import Step, Value
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.statistics import mean
from rollout_bench.analysis.validity import no_valid_launch
from rollout_bench.plan.devices import replicas


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
class Pass:
    """The linear layers of `step`'s run in a whole pass: their seconds, and their share of the pass as measured.

    `predicted` is the speed-up of the pass if its linear layers alone change; None for the baseline, where either was
    not measured offline, and where the baseline's linear layers alone take longer than its pass: something is wrong
    then, and `share` shows it. `measured` is what offline mode says. Where offline mode has no valid launch of the run
    `linear_s` and `share` are None; there, and where the baseline's has none, `reason` says so.
    """

    step: Step
    linear_s: float | None
    share: float | None
    predicted: Value | None
    measured: Value | None
    reason: str = ""


def passes_of(steps: Sequence[Step], rows: Sequence[Row]) -> list[Pass]:
    """A line for each of `steps` whose run was measured offline too, in one engine, as `rows` have it."""
    offline = {
        (row.experiment.platform, row.experiment.model, row.experiment.workload, row.quant_label): (
            _offline(row) if row.valid else no_valid_launch(row.experiment.records)
        )
        for row in rows
        if row.experiment.mode == "offline" and row.launches and _is_of_one_engine(row)
    }
    found = []
    for step in steps:
        run = step.run
        own = offline.get((*run.place, run.label))
        base = None if run.baseline is None else offline.get((*run.place, run.baseline.label))
        if own is not None and step.decode is not None and step.prefill is not None:
            found.append(_pass(step, own, base))
    return found


def _pass(step: Step, own: Offline | str, base: Offline | str | None) -> Pass:
    """The line of `step`; a pass that has no valid launch is the reason why."""
    if isinstance(own, str):
        return Pass(step, None, None, None, None, f"offline: {own}")
    linear_s = sum(linear_seconds(step, own))
    share = linear_s / own.elapsed_s
    if isinstance(base, str):
        assert step.run.baseline is not None
        return Pass(step, linear_s, share, None, None, f"{step.run.baseline.label} offline: {base}")
    return Pass(step, linear_s, share, None if base is None else _predicted(step, base), own.speedup)


def linear_seconds(step: Step, offline: Offline) -> tuple[float, float]:
    """Seconds of all linear layers in the decode steps and in the prefill of a pass, if all sequences decode at once.

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


def _predicted(step: Step, base: Offline) -> Value | None:
    """The speed-up of the baseline's pass with the linear layers of `step`."""
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
    """False where replicas make the pass: part of its time some of them wait."""
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
