"""The foot of a summary on its online experiments: what the tables can't define in a line, and what stands out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rollout_bench.analysis.modes import ModePair
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.saturation import Saturation
from rollout_bench.keeping_up import LONG
from rollout_bench.plan.comparing import ComparisonSettings
from rollout_bench.plan.serving import Slo
from rollout_bench.reporting.numbers import number, plain_percent, several
from rollout_bench.reporting.verdicts import those

PIECES = 1.01
"""Tokens per piece from which on it is told."""

LATE_S = 0.005
"""Mean delay of sending from which on it is told."""


def online_notes(
    rows: Sequence[Row], found: Sequence[Saturation], settings: ComparisonSettings, slo: Slo
) -> tuple[str, ...]:
    """The items of the section; none where nothing is online."""
    online = [row for row in rows if row.experiment.mode == "online" and row.launches]
    if not online:
        return ()
    limits = ", ".join(f"{name.removesuffix('_ms').upper()} {limit:g} ms" for name, limit in slo.named.items())
    return (
        "All times are what the client saw, from when a request was sent. Those that failed enter no latency; as "
        "vLLM's benchmark has it, see docs/reference/measures.md for the formulas and for what other tools do.",
        *([f"Goodput: what kept {limits}."] if limits else []),
        *_sweep_rule(rows, found, settings),
        *_saturated(found),
        *_short(online),
        *_pieces(online),
        *_late(online),
    )


def _sweep_rule(rows: Sequence[Row], found: Sequence[Saturation], settings: ComparisonSettings) -> Iterator[str]:
    confidence = plain_percent(settings.confidence)
    if any(row.experiment.part for row in rows):
        yield (
            f"Sweep: each load is measured behind the same server start. In brackets: {confidence} t interval over "
            "launches."
        )
    if found:
        yield (
            "Saturates at: the highest rate of which 95 % or more came back, the lowest to the highest over launches. "
            "Too much: the next rate that was tried. What the server can do lies between. Most answers/s: the highest "
            f"rate of answers at any load, mean over launches with its {confidence} t interval."
        )


def _saturated(found: Sequence[Saturation]) -> Iterator[str]:
    for each in found:
        if each.delivered is None:
            continue
        row = each.rows[0]
        name = f"{row.experiment.model} {row.quant_label} {row.experiment.whole.workload}"
        if each.first_missed is None:
            yield f"{name}: kept up with every rate that was tried; where it saturates lies higher."
        elif min(each.kept.values()) == 0:
            yield f"{name}: some launch kept up with no rate that was tried; where it saturates lies lower."
        elif len(set(each.kept.values())) > 1:
            told = "; ".join(f"launch {launch} at {number(rate, 3)}" for launch, rate in sorted(each.kept.items()))
            yield f"{name}: launches saturate at different rates: {told}."


def _short(rows: Sequence[Row]) -> Iterator[str]:
    short = [row.name for row in rows if any(launch.service and launch.service.too_short for launch in row.used)]
    if short:
        yield (
            f"Requests took over {plain_percent(LONG)} of the time in which they arrived, so the pass is too short to "
            "tell a server that falls behind from one that is only slow: kept up % is the least that it can be, "
            "requests over time over the rate "
            f"({'; '.join(short)}). More prompts make a pass longer."
        )


def _pieces(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        tokens = [launch.service.tokens_per_piece for launch in row.used if launch.service]
        known = [value for value in tokens if value is not None]
        if known and max(known) > PIECES:
            yield (
                f"{row.name}: answers came in pieces of {number(max(known), 3)} tokens in the mean: ITL, the gap "
                "between pieces, is as many times TPOT."
            )


def _late(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        delays = [launch.service for launch in row.used if launch.service]
        late = [service for service in delays if service.send_delay_s is not None and service.send_delay_s > LATE_S]
        if late:
            mean_ms = 1000 * max(service.send_delay_s or 0 for service in late)
            most_ms = 1000 * max(service.send_delay_most_s or 0 for service in late)
            yield (
                f"{row.name}: {several(len(late), 'launch')} sent requests later than due: {number(mean_ms, 3)} ms in "
                f"the mean, {number(most_ms, 3)} ms at most. Latencies count from sending, so that is in none of them."
            )


def modes_notes(pairs: Sequence[ModePair], settings: ComparisonSettings) -> tuple[str, ...]:
    """What the table of both modes means, and in what else than the mode the two differ."""
    if not pairs:
        return ()
    apart = [pair.online.name for pair in pairs if pair.ratio and pair.ratio.sides]
    compared = sum(pair.ratio is not None for pair in pairs)
    return (
        "Online / offline: output tok/s of a launch of each, by launch index, where they took turns; geometric mean, "
        f"with its {plain_percent(settings.confidence)} interval taken alone. Online costs: how much below 1 it is. "
        "Arrives at a rate: that says how much there is to do, where offline everything is there at once.",
        *_limited(pairs),
        *([f"Not in turns, so compared as a whole: {those(apart, compared)}."] if apart else []),
        *_other_settings(pairs),
    )


def _limited(pairs: Sequence[ModePair]) -> Iterator[str]:
    """What the load itself takes from the throughput."""
    by_limit: dict[int, list[str]] = {}
    for pair in pairs:
        point = pair.online.experiment.records[0].iterations[0].point
        if pair.ratio is not None and point is not None and point.concurrency is not None:
            by_limit.setdefault(point.concurrency, []).append(pair.online.name)
    for limit, names in by_limit.items():
        yield (
            f"Online no more than {several(limit, 'request')} are under way at once, as the load says, offline all "
            f"that the engine takes ({'; '.join(names)}): that is part of the ratio."
        )


def _other_settings(pairs: Sequence[ModePair]) -> Iterator[str]:
    by_setting: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        for setting in pair.settings:
            by_setting.setdefault(setting, []).append(pair.online.name)
    for (name, offline, online), names in by_setting.items():
        yield (
            f"The modes differ in {name} too, {offline} offline and {online} online ({those(names, len(pairs))}): its "
            "part of the difference can't be told."
        )
