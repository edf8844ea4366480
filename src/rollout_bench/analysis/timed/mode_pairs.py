"""Online experiments as a whole: offline and online side by side, and where a server saturates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rollout_bench.analysis.stats.intervals import t_interval
from rollout_bench.analysis.timed.comparison import Comparison, compare, compare_apart
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.launches import values_of
from rollout_bench.analysis.timed.pairs import marked_out_of_turn, round_s
from rollout_bench.analysis.timed.partners import (
    EXECUTOR,
    valid_records,
)
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.contracts.modes import OFFLINE, ONLINE
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.quants import confounders


@dataclass(frozen=True)
class ModePair:
    """The same model, quant and workload in both modes.

    `ratio` compares online with offline throughput: in pairs where launches of both took turns, else apart. `settings`
    are those of the engine in which they differ besides, as (name, offline, online). `reason` says why there is no
    ratio.
    """

    offline: Row
    online: Row
    ratio: Comparison | None
    settings: tuple[tuple[str, str, str], ...]
    reason: str = ""


def mode_pairs(rows: Sequence[Row], collection: Collection) -> list[ModePair]:
    """Return every online row of which there is an offline one, in the order of the online rows."""
    return [
        _pair(offline, online, rows, collection.comparison.confidence)
        for online in rows
        if online.experiment.mode == ONLINE.name and online.launches
        for offline in _counterparts(online, rows)
    ]


def _counterparts(online: Row, rows: Sequence[Row]) -> Iterator[Row]:
    own = online.experiment.records[0].spec
    for row in rows:
        if row.experiment.mode == OFFLINE.name and row.launches:
            other = row.experiment.records[0].spec
            same = ("platform", "model", "quant", "workload", "setting")
            if all(getattr(own, part) == getattr(other, part) for part in same) and _engine(own) == _engine(other):
                yield row


def _engine(spec: Spec) -> tuple[object, ...]:
    return spec.engine.name, spec.engine.version, spec.engine.plugins


def _pair(offline: Row, online: Row, rows: Sequence[Row], confidence: float) -> ModePair:
    for row in (offline, online):
        if row.empty_because:
            return ModePair(offline, online, None, (), f"{row.empty_because} ({row.experiment.mode})")
    records = [valid_records(row.experiment)[0] for row in (offline, online)]
    settings = tuple(other_settings(*records))
    if at_a_rate(records[1].iterations[0].point):
        return ModePair(offline, online, None, settings, "arrives at a rate")
    limit_s = round_s([row.experiment for row in rows if row.experiment.platform == online.experiment.platform])
    turned = marked_out_of_turn(online.used, online.experiment, offline.experiment, limit_s)
    own, theirs = (values_of("output_tokens_per_s", side) for side in (online.used, offline.used))
    in_turn = {launch.launch for launch in turned if launch.paired} & theirs.keys()
    # All of the smaller side must be in pairs; launches that are none would else be left out without need.
    if len(in_turn) >= min(len(own), len(theirs)):
        return ModePair(offline, online, compare({i: own[i] for i in in_turn}, theirs, confidence), settings)
    return ModePair(offline, online, compare_apart(own, theirs, confidence), settings)


CALLED = {"args": "engine_args", "variables": "engine.environment", "multiprocess": "engine.multiprocess"}
"""What a config calls the facts of `confounders`."""


def other_settings(one: Record, other: Record) -> Iterator[tuple[str, str, str]]:
    """Yield what of the settings of two engines differs, besides what each mode needs, as (name, of one, of the other).

    Of what nobody set vLLM has other defaults for a server than for `LLM`, which are told as the engine resolved them.
    """
    for fact, values in confounders(one.spec, other.spec).items():
        place, dot, name = fact.partition(".")
        yield f"{CALLED[place]}{dot}{name}", *values
    own, theirs = (
        {name: value for name, value in record.engine.resolved.items() if name not in record.spec.engine.args}
        for record in (one, other)
    )
    for name in sorted(own.keys() & theirs.keys() - {EXECUTOR}):
        if own[name] != theirs[name]:
            yield f"vLLM's own {name}", str(own[name]), str(theirs[name])


@dataclass(frozen=True)
class Saturation:
    """What the sweep of one experiment says, `rows` being its loads from the lightest, all at a rate.

    `kept` has by launch the highest rate that it kept up with, in requests per second, 0 where it kept up with none;
    `first_missed` the lowest rate above those of all launches, None where the sweep ended before. `delivered` is the
    highest rate of answers over all loads, mean over launches, with its t interval, None for a single launch.
    Without a valid launch all of it is missing and `kept` is empty.
    """

    rows: tuple[Row, ...]
    kept: Mapping[int, float]
    first_missed: float | None
    delivered: float | None
    delivered_interval: tuple[float, float] | None


def saturations(rows: Sequence[Row], confidence: float) -> list[Saturation]:
    """Return the saturation of each experiment in `rows` that was measured at several rates, in their order.

    Stages are no search for it: their rates need not rise.
    """
    sweeps: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        part = row.experiment.part
        if part is not None and part.point.stage is None and isinstance(part.point.request_rate, float):
            sweeps.setdefault((row.experiment.mode, row.experiment.experiment), []).append(row)
    found = [_saturation(sweep, confidence) for sweep in sweeps.values() if len(sweep) > 1]
    return [each for each in found if each is not None]


def _saturation(rows: Sequence[Row], confidence: float) -> Saturation | None:
    kept: dict[int, float] = {}
    delivered: dict[int, float] = {}
    for row in rows:
        for launch in row.used:
            service = launch.service
            if service is None or service.kept_up_share is None or service.offered_requests_per_s is None:
                continue
            held = _rate(row) if service.kept_up_share >= KEPT_UP else 0.0
            kept[launch.launch] = max(kept.get(launch.launch, 0.0), held)
            came = service.kept_up_share * service.offered_requests_per_s
            delivered[launch.launch] = max(delivered.get(launch.launch, 0.0), came)
    if not any(row.used for row in rows):
        return Saturation(tuple(rows), {}, None, None, None)
    if not kept:
        return None
    above = [_rate(row) for row in rows if _rate(row) > max(kept.values())]
    values = np.array(list(delivered.values()))
    return Saturation(
        rows=tuple(rows),
        kept=kept,
        first_missed=min(above, default=None),
        delivered=float(values.mean()),
        delivered_interval=t_interval(values, confidence),
    )


def _rate(row: Row) -> float:
    assert row.experiment.part is not None
    return float(row.experiment.part.point.request_rate)
