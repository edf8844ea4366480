"""Sections of the validation page on the repeats: launches, false verdicts, power."""

from __future__ import annotations

from collections import Counter

from false_verdict_shares import FalseVerdicts, Simulated
from kept import SETTINGS
from markdown_parts import percent, table
from power import Power
from repeats import Launches

from rollout_bench.analysis.stats.intervals import mean, pooled_cv_percent

PROMISE = 1 - SETTINGS.confidence


def measured(result: Launches) -> str:
    """Return how many launches, how much they spread, where."""
    rows = []
    for workload, tokens in result.output_tokens.items():
        of = [launch for launch in result.launches if launch.workload == workload]
        if of:
            sides = [result.values("output_tokens_per_s", quant, workload) for quant in sorted({x.quant for x in of})]
            row = [workload, tokens, len(of), f"{mean([launch.step_time_s for launch in of]):.3f} s"]
            row += [_cv(pooled_cv_percent([list(side.values()) for side in sides]))]
            row += [_cv(pooled_cv_percent([launch.iterations_s for launch in of]))]
            rows.append([*row, f"{mean([launch.wall_s for launch in of]):.1f} s"])
    flags = Counter(code for launch in result.launches for code in set(launch.flags))
    flags_text = ", ".join(f"{code} {count}" for code, count in flags.most_common()) or "none"
    invalid = sum(not launch.valid for launch in result.launches)
    header = ["workload", "output tokens", "launches", "an iteration", "launch CV", "iteration CV", "a launch"]
    return f"""\
{table(header, rows)}

{len(result.launches)} launches, {result.failed} failed, {invalid} not valid. Launches with a flag: {flags_text}.
Launch CV: the spread between launches of one side, each the mean of its iterations; iteration CV: inside a launch.

Measured on {result.place}."""


def _cv(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def false_verdicts(result: FalseVerdicts) -> str:
    """Real comparisons first, then simulated ones."""
    real: list[list[object]] = [
        [f"measured, {result.block} pairs each", result.significant.of, result.significant, result.marked]
    ]
    rows = [
        [_kind(one), one.comparisons, one.significant, one.marked, _range(one.by_chance)] for one in result.simulated
    ]
    above = [one for one in result.simulated if _is_above(one)]
    names = "; ".join(f"{_kind(one)}, {one.comparisons} in a table: {one.significant}" for one in above)
    simulated = f"Surely ABOVE the promise: {names}." if above else "None is surely above the promise."
    kept_promise = "NOT KEPT" if result.significant.interval[0] > PROMISE else "not contradicted"
    real_header = ["comparisons", "number", f"p < {PROMISE:.2g}", "shown as `^` or `v`"]
    header = [
        "simulated tables",
        "comparisons in each, with own baselines",
        f"some p < {PROMISE:.2g}",
        "some `^` or `v`",
        "p by chance",
    ]
    apart = percent(2**0.5 * result.launch_cv_percent / 100, 2)
    chance = 2 / max(1, result.neighbours) ** 0.5
    return f"""\
{table(real_header, real)}

Promised is at most {percent(PROMISE, 0)}: {kept_promise}. So few comparisons would not show a
rate that is a little too high. Tables simulated from the measured noise do: with normal noise of the measured
spread, and with the measured log ratios themselves, drawn again with random signs.

{table(header, rows)}

{simulated} The measured log ratios are few, and a few odd ones change all that is drawn from them; "p by
chance" is where the share lies in 95 % of cases when as many truly normal ones are drawn from.

- `first` and `second` stood next to each other in the order. The signs that are drawn at random take out what skew and
  correlation the measured log ratios have; the first table of this page has what those do.
- All pairs together: `second` / `first` = {result.ratio:.4f} [{result.low:.4f}, {result.high:.4f}]. The two
  ran one right after the other, every other round in the opposite order (rounds have a random order since).
- The ratio of a pair spreads by {percent(result.log_sd, 2)}, the launches of one side by
  {result.launch_cv_percent:.2f} %. Pairs of launches that have nothing in common would spread by {apart}.
- Correlation of a pair with the next: {result.correlation:+.2f}, from {result.neighbours} such; chance alone makes
  up to ±{chance:.2f}. The intervals assume none, and the first table of this page shows what one would do.

Not shown: other machines, accelerators, larger models, a machine that does something else meanwhile."""


def _is_above(one: Simulated) -> bool:
    """Return whether a simulated share is surely too high.

    One from measured noise, higher than such few pairs explain.
    """
    limit = PROMISE if one.by_chance is None else max(PROMISE, one.by_chance[1])
    return one.significant.interval[0] > limit


def _range(shares: tuple[float, float] | None) -> str:
    return "" if shares is None else f"{percent(shares[0])} to {percent(shares[1])}"


def _kind(one: Simulated) -> str:
    return "normal noise" if one.noise == "normal" else "measured log ratios"


def power(result: Power) -> str:
    """Write how often known differences are found, and how often they should be."""
    header = [
        "more tokens",
        "speed-up, all pairs",
        "spread of a pair",
        "pairs",
        "comparisons",
        "found",
        "wrong",
        "promised",
    ]
    rows = [
        [
            percent(one.more_tokens, 0),
            f"{one.ratio:.4f} [{one.low:.4f}, {one.high:.4f}]",
            percent(one.log_sd, 2),
            one.pairs,
            one.found.of,
            one.found,
            one.wrong,
            percent(one.promised),
            one.simulated,
            one.resampled or "-",
        ]
        for one in result.differences
    ]
    outside = [
        f"{percent(one.more_tokens, 0)} with {one.pairs} pairs (promised {percent(one.promised)}, found {one.found})"
        for one in result.differences
        if not one.found.interval[0] <= one.promised <= one.found.interval[1]
    ]
    seen = (
        f"The promise lies OUTSIDE the interval of what was found for {', '.join(outside)}."
        if outside
        else "Each promise lies within the interval of what was found."
    )
    return f"""\
{table([*header, "simulated, normal", "simulated, measured noise"], rows)}

Promised: the chance by the noncentral t distribution for the speed-up and the spread of all pairs together. Found: the
verdict `v`. Simulated: p < {PROMISE:.2g} on the right side; the interval there is that of the simulation, not of the
few measured pairs that its noise comes from. {seen}

How much longer an iteration really takes is known only roughly, from the decoding steps that it has more; the speed-up
of all pairs is the best estimate of it, so the promise comes from the very pairs that are counted. The comparisons of
one row are disjoint; those of different rows share launches. On a machine with so much noise few pairs find little, and
few comparisons hold the promise to little: the simulated columns are the sharper test.

Not shown: that chance where the spread is not known."""
