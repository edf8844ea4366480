"""What a server sustains, in a sentence for each of its experiments: the rate it keeps up with, and latencies there."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollout_bench.analysis.timed.latencies import Distribution
from rollout_bench.analysis.timed.launches import fell_behind
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.axes import UNKNOWN
from rollout_bench.contracts.load import KEPT_UP, LoadPoint
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import number
from rollout_bench.core.saturation import FAR
from rollout_bench.plan.serving import Slo
from rollout_bench.report.sweeps import RatedLoad, State, kept_count, more_requests, next_loads

Latencies = Mapping[str, Mapping[str, Distribution]]
"""Distributions of requests, by the place of a row and by measure."""

TOLD = {"ttft_s": "TTFT", "tpot_s": "TPOT"}
"""Measures that a sentence has, with their names."""

TOLD_PERCENTS = (50, 99)
"""Percentiles of these that a sentence has."""

TOLD_FAILED = 0.005
"""Share of failed requests from which a sentence has it."""


def service_lines(rows: Sequence[Row], latencies: Latencies, slo: Slo) -> list[str]:
    """Return a sentence for each measured experiment of `rows` with loads, that with the highest throughput first.

    It says which request rates the server kept up with; at the highest of them, or else at the lowest that was
    measured: percentiles of latencies, and the share of requests within the limits of `slo`. Without rates it says the
    throughput of the best load.
    """
    served = [row for row in rows if mode_of(row.experiment.mode).has_loads]
    names = _names(served)
    experiments = grouped((row.experiment.experiment, row) for row in served).values()
    ordered = sorted(
        (own for own in experiments if any(row.used for row in own)),
        key=lambda own: -max(row.values["output_tokens_per_s"] for row in own if row.used),
    )
    return [f"{names[own[0].experiment.experiment]} {_service(own, latencies, slo)}." for own in ordered]


def rate_lines(rows: Sequence[Row]) -> list[str]:
    """Return the rates that each experiment of `rows` keeps up with, of those with valid loads at a rate."""
    names, lines = _names(rows), []
    for experiment, own in grouped((row.experiment.experiment, row) for row in rows).items():
        rated = _ordered([row for row in own if row.used])
        if rated:
            lines.append(f"{names[experiment]} {_rates(rated, _states(rated), [row for row in own if not row.used])}")
    return lines


def next_rates(rows: Sequence[Row]) -> tuple[str, dict[str, Any]]:
    """Return what finds the highest rate that a server keeps up with, and the change of its workload's settings.

    Both are empty where the rates tell it within a quarter, and where no load of `rows` has a rate or a file has the
    requests.
    """
    rated = _ordered([row for row in rows if row.used])
    if not rated or len({row.experiment.experiment for row in rated}) > 1:
        return "", {}
    spec = rated[0].used[0].record.spec
    load = spec.workload
    if load.dataset is not None or spec.load is None or spec.load.harness != "rollout-bench":
        return "", {}
    invalid = min((_asked(row) for row in _ordered(rows) if not row.used), default=math.inf)
    step, loads = next_loads(
        [
            RatedLoad(
                rate=_asked(row),
                state=state,
                answered=row.values["completed_requests_per_s"],
                sent=_sent(row),
                needed=_requests_needed(row, rated[0]),
            )
            for row, state in zip(rated, _states(rated), strict=True)
        ],
        invalid,
    )
    if not step:
        return "", {}
    rates = [int(rate) if rate.is_integer() else rate for rate in loads]
    points = spec.load.points
    changed: dict[str, Any] = {"request_rate": rates}
    if any(point.duration_s is not None for point in points):
        changed["duration_s"] = [math.ceil(count / rate) for rate, count in loads.items()]
    else:
        changed["requests"] = [*loads.values()]
    limits = [point.concurrency for point in points if point.concurrency is not None]
    if limits:  # a list in the config has one for each of its loads
        changed["concurrency"] = [max(limits)] * len(rates)
    prompts = max(load.prompts, math.ceil(max(loads.values()) / load.samples_per_prompt))
    return step, {load.name: {"prompts": prompts, "online": changed}}


def state_of(row: Row) -> State:
    """Return whether a server keeps up with the rate of a load."""
    is_known = "kept_up_share" in row.values
    if not is_known or not all(launch.is_sure for launch in row.used):
        return "undecided"
    return "falls behind" if fell_behind(row.used) else "keeps up"


def _ordered(loads: Sequence[Row]) -> list[Row]:
    """Return the loads at a rate, the lightest first."""
    return sorted((row for row in loads if at_a_rate(row.experiment.point)), key=lambda row: _point(row).weight)


NO_MORE = 1.1
"""Ratio of answers per second up to which twice the rate, or more, brought no more of them."""


def _states(rated: Sequence[Row]) -> list[State]:
    """Return the state of each load, the lightest first.

    Where a pass is too short to show that latencies grow, loads together can: a server that answers no more requests a
    second at twice a rate has no more to give.
    """
    found = list[State]()
    for place, row in enumerate(rated):
        answered = row.values["completed_requests_per_s"]
        is_full = answered < FAR * _asked(row) and any(
            2 * _asked(other) <= _asked(row) and answered <= NO_MORE * other.values["completed_requests_per_s"]
            for other in rated[:place]
        )
        state = state_of(row)
        found.append("falls behind" if state == "undecided" and is_full else state)
    return found


def _kept(rated: Sequence[Row], states: Sequence[State]) -> list[Row]:
    """Return the loads up to the heaviest that the server keeps up with, none of which it is shown to fall behind."""
    return list(rated[: kept_count(states)])


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """Return the shortest names that tell the experiments apart, by their folder."""
    several = {axis: len({getattr(row.experiment.whole, axis) for row in rows}) > 1 for axis in ("model", "workload")}
    found = {}
    for row in rows:
        whole = row.experiment.whole
        model = [whole.model] if several["model"] or row.label == UNKNOWN else []
        label = [] if row.label == UNKNOWN else [row.label]
        workload = [whole.workload] if several["workload"] else []
        found[row.experiment.experiment] = " ".join([*model, *label, *workload])
    return found


def _service(every: Sequence[Row], latencies: Latencies, slo: Slo) -> str:
    loads = [row for row in every if row.used]
    rated = _ordered(loads)
    if not rated:
        best = max(loads, key=lambda row: row.values["output_tokens_per_s"])
        of = f", the most of {len(loads)} loads" if len(loads) > 1 else ""
        rate = best.values.get("completed_requests_per_s")
        answers = "" if rate is None else f"{number(rate, 3)} req/s, "
        tokens = f"{answers}{number(best.values['output_tokens_per_s'], 4)} output tok/s"
        return f"answers {tokens} with {_load(best)}{of}{_at(best, latencies, slo)}"
    states = _states(rated)
    kept = _kept(rated, states)
    where = kept[-1] if kept else rated[0]
    told = _at(where, latencies, slo)
    rates = _rates(rated, states, [row for row in every if not row.used])
    return f"{rates}{f'; at {_load(where)}{told}' if told and len(rated) > 1 else told}"


def _rates(rated: Sequence[Row], states: Sequence[State], invalid: Sequence[Row] = ()) -> str:
    """Return which of the loads, the lightest first, the server keeps up with; loads of `invalid` have no result."""
    kept = _kept(rated, states)
    limit = states.index("falls behind") if "falls behind" in states else len(rated)
    behind = rated[limit] if limit < len(rated) else None
    undecided = [rated[place] for place in range(len(kept), limit) if states[place] == "undecided"]
    answers = "" if behind is None else f" (it answers {number(behind.values['completed_requests_per_s'], 3)})"
    if kept and behind is not None:
        said = f"keeps up with {_load(kept[-1])}, not with {_number(behind)}{answers}"
    elif kept:
        over = [row for row in _ordered(invalid) if _asked(row) > _asked(kept[-1])]
        highest = ", the highest rate that was asked" if len(kept) > 1 and not undecided else ""
        if over:
            highest = f"; {', '.join(map(_number, over))} req/s {'has' if len(over) == 1 else 'have'} no valid result"
        said = f"keeps up with {_load(kept[-1])}{highest}"
    elif behind is not None:
        said = f"does not keep up with {_load(behind)}{answers}"
    else:
        said = "is not shown to keep up"
    return f"{said}; {_undecided(undecided, rated[0])}" if undecided else said


def _undecided(rows: Sequence[Row], lightest: Row) -> str:
    """Return that the loads of `rows` are undecided, the share of each that was answered, and what would decide it."""
    shares = [row.values.get("kept_up_share", 1.0) for row in rows]
    told = (f"{'about' if share >= KEPT_UP else 'at least'} {100 * share:.0f} %" for share in shares)
    answered = f" (answered: {', '.join(told)})" if min(shares) < KEPT_UP else ""
    names = f"{', '.join(map(_number, rows))} req/s {'is' if len(rows) == 1 else 'are'} undecided{answered}"
    needed = {_number(row): _requests_needed(row, lightest) for row in rows}
    each = [f"{count} requests or more{f' at {name}' * (len(rows) > 1)}" for name, count in needed.items()]
    return f"{names}: {', '.join(each)} would tell"


def _requests_needed(row: Row, lightest: Row) -> int:
    """Return how many requests of a pass are likely to show whether a server keeps up, if those sent did not."""
    rate = _point(row).request_rate
    if not isinstance(rate, float) or not any(launch.too_short for launch in row.used):
        return more_requests(_sent(row))
    slowest_s = max(each.values.get("e2el_s", 0.0) for each in (lightest, row))
    return more_requests(_sent(row), rate, slowest_s)


def _sent(row: Row) -> int:
    """Return the number of requests of a pass."""
    load = row.used[0].record.spec.workload
    return _point(row).due_requests or load.prompts * load.samples_per_prompt


def _at(row: Row, latencies: Latencies, slo: Slo) -> str:
    """Return percentiles of latencies and the share of requests within the limits, after a colon; empty if unknown."""
    failed = row.values.get("failed_share", 0.0)
    failures = f"{100 * failed:.0f} % of requests failed" if failed >= TOLD_FAILED else ""
    told = "; ".join(filter(None, (*_percentiles(row, latencies), failures, _within(row, slo))))
    return f": {told}" if told else ""


def _percentiles(row: Row, latencies: Latencies) -> Iterator[str]:
    for measure, name in TOLD.items():
        found = latencies.get(row.experiment.place, {}).get(measure)
        if found is not None and found.by_launch:
            yield f"{name} " + ", ".join(
                f"p{percent} {'' if percent in found.proven_by_launch else 'about '}{number(1000 * value, 3)} ms"
                for percent, value in found.by_launch.items()
                if percent in TOLD_PERCENTS
            )


def _within(row: Row, slo: Slo) -> str:
    good, answered = (row.values.get(f"{name}_requests_per_s") for name in ("goodput", "completed"))
    if good is None or not answered:
        return ""
    failed, cut = row.values.get("failed_share", 0.0), row.values.get("incomplete_share", 0.0)
    ended = answered * (1 - cut) / max(1 - failed - cut, 1e-9)  # cut requests neither met nor missed a limit
    limits = ", ".join(f"{name.removesuffix('_ms').upper()} {limit:.6g} ms" for name, limit in slo.named.items())
    return f"{100 * good / ended:.0f} % of requests met the limits ({limits})"


def _point(row: Row) -> LoadPoint:
    point = row.experiment.point
    assert point is not None
    return point


def _load(row: Row) -> str:
    return _point(row).label


def _number(row: Row) -> str:
    rate = _point(row).request_rate
    return f"{rate:g}" if isinstance(rate, float) else _load(row)


def _asked(row: Row) -> float:
    """Return the rate of a load, in requests per second."""
    return _point(row).weight[0]
