"""Offline and online side by side: what it costs to have a server in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.against import valid_records
from rollout_bench.analysis.comparison import Comparison, compare, compare_apart
from rollout_bench.analysis.experiments import Collection
from rollout_bench.analysis.metrics import values_of
from rollout_bench.analysis.rows import Row
from rollout_bench.analysis.service import at_a_rate
from rollout_bench.analysis.turns import marked_out_of_turn, round_s
from rollout_bench.plan.spec import Spec
from rollout_bench.records.record import Record


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
    """Every online row of which there is an offline one, in the order of the online rows."""
    return [
        _pair(offline, online, rows, collection.comparison.confidence)
        for online in rows
        if online.experiment.mode == "online" and online.launches
        for offline in _counterparts(online, rows)
    ]


def _counterparts(online: Row, rows: Sequence[Row]) -> Iterator[Row]:
    own = online.experiment.records[0].spec
    for row in rows:
        if row.experiment.mode == "offline" and row.launches:
            other = row.experiment.records[0].spec
            same = ("platform", "model", "quant", "workload")
            if all(getattr(own, part) == getattr(other, part) for part in same) and _engine(own) == _engine(other):
                yield row


def _engine(spec: Spec) -> tuple[object, ...]:
    return spec.engine.name, spec.engine.version, spec.engine.plugins


def _pair(offline: Row, online: Row, rows: Sequence[Row], confidence: float) -> ModePair:
    for row in (offline, online):
        if row.empty_because:
            return ModePair(offline, online, None, (), f"{row.empty_because} ({row.experiment.mode})")
    records = [valid_records(row.experiment)[0] for row in (offline, online)]
    settings = tuple(_settings(*records))
    if at_a_rate(records[1].iterations[0].point):
        return ModePair(offline, online, None, settings, "arrives at a rate")
    limit_s = round_s([row.experiment for row in rows if row.experiment.platform == online.experiment.platform])
    turned = marked_out_of_turn(online.used, online.experiment, offline.experiment, limit_s)
    own, theirs = (values_of("output_tokens_per_s", side) for side in (online.used, offline.used))
    in_turn = {launch.launch for launch in turned if launch.in_turn} & theirs.keys()
    # All of the smaller side must be in pairs; launches that are none would else be left out without need.
    if len(in_turn) >= min(len(own), len(theirs)):
        return ModePair(offline, online, compare({i: own[i] for i in in_turn}, theirs, confidence), settings)
    return ModePair(offline, online, compare_apart(own, theirs, confidence), settings)


def _settings(offline: Record, online: Record) -> Iterator[tuple[str, str, str]]:
    """What of the engine's settings differs, besides what each mode needs.

    Of what nobody set vLLM has other defaults for a server than for `LLM`, which are told as the engine resolved them.
    """
    records = (offline, online)
    sides = [
        {"engine.multiprocess": record.spec.engine.multiprocess}
        | {f"engine_args.{name}": value for name, value in record.spec.engine.args.items()}
        | {f"engine.environment.{name}": value for name, value in record.spec.engine.environment.items()}
        for record in records
    ]
    known = [
        {name: value for name, value in record.engine.resolved.items() if name not in record.spec.engine.args}
        for record in records
    ]
    for name in sorted(known[0].keys() & known[1].keys() - {"distributed_executor_backend"}):
        for side, resolved in zip(sides, known, strict=True):
            side[f"vLLM's own {name}"] = resolved[name]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        values = [str(side.get(name, "not set")) for side in sides]
        if values[0] != values[1]:
            yield name, values[0], values[1]
