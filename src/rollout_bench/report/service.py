"""What a server sustains, in a sentence for each of its experiments: the rate it keeps up with, and latencies there."""

from collections.abc import Iterator, Mapping, Sequence

from rollout_bench.analysis.timed.latencies import Distribution
from rollout_bench.analysis.timed.launches import fell_behind
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.axes import UNKNOWN
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import number
from rollout_bench.plan.serving import Slo

Latencies = Mapping[str, Mapping[str, Distribution]]
"""Distributions of requests, by the place of a row and by measure."""

TOLD = {"ttft_s": "TTFT", "tpot_s": "TPOT"}
"""Measures that a sentence has, with their names."""


TOLD_FAILED = 0.005
"""Share of failed requests from which a sentence has it."""


def service_lines(rows: Sequence[Row], latencies: Latencies, slo: Slo) -> list[str]:
    """Return a sentence for each measured experiment of `rows` with loads.

    It says which request rates the server kept up with; at the highest of them, or else at the lowest that was
    measured: the median latencies, and the share of requests within the limits of `slo`. Without rates it says the
    throughput of the best load.
    """
    served = [row for row in rows if mode_of(row.experiment.mode).has_loads and row.used]
    names = _names(served)
    return [
        f"{names[own[0].experiment.experiment]} {_service(own, latencies, slo)}."
        for own in grouped((row.experiment.experiment, row) for row in served).values()
    ]


def rate_lines(rows: Sequence[Row]) -> list[str]:
    """Return the rates that each experiment of `rows` keeps up with, of those with loads at a rate."""
    names = _names(rows)
    found = []
    for own in grouped((row.experiment.experiment, row) for row in rows if at_a_rate(row.experiment.point)).values():
        kept, behind, _ = _limits(own)
        found.append(f"{names[own[0].experiment.experiment]} {_rates(kept, behind)}")
    return found


def _limits(rated: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the loads that the server keeps up with, those with which it fell behind, and all, the lightest first."""
    ordered = sorted(rated, key=_weight)
    behind = [row for row in ordered if fell_behind(row.used)]
    kept = [row for row in ordered if row not in behind and (not behind or _weight(row) < _weight(behind[0]))]
    return kept, behind, ordered


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


def _service(loads: Sequence[Row], latencies: Latencies, slo: Slo) -> str:
    kept, behind, rated = _limits([row for row in loads if at_a_rate(row.experiment.point)])
    if not rated:
        best = max(loads, key=lambda row: row.values["output_tokens_per_s"])
        of = f", the most of {len(loads)} loads" if len(loads) > 1 else ""
        rate = best.values.get("completed_requests_per_s")
        answers = "" if rate is None else f"{number(rate, 3)} req/s, "
        tokens = f"{answers}{number(best.values['output_tokens_per_s'], 4)} output tok/s"
        return f"answers {tokens} with {_load(best)}{of}{_at(best, latencies, slo)}"
    where = kept[-1] if kept else rated[0]
    told = _at(where, latencies, slo)
    at = f"; at {_load(where)}{told}" if told and (behind or len(rated) > 1) else told
    return f"{_rates(kept, behind)}{at}"


def _rates(kept: Sequence[Row], behind: Sequence[Row]) -> str:
    if not behind:
        highest = ", the highest rate that was asked" if len(kept) > 1 else ""
        return f"keeps up with {_load(kept[-1])}{highest}"
    first = behind[0]
    unsure = any(launch.too_short for launch in first.used)
    limit = f"{_load(first)} is not known, its passes are too short" if unsure else f"not with {_number(first)}"
    if kept:
        return f"keeps up with {_load(kept[-1])}{'; ' if unsure else ', '}{limit}"
    if unsure:
        return f"is measured too shortly at {_load(first)} to tell whether it keeps up"
    rate = first.values.get("completed_requests_per_s")
    answered = "" if rate is None else f": it answers {number(rate, 3)}"
    return f"does not keep up with {_load(first)}{answered}"


def _at(row: Row, latencies: Latencies, slo: Slo) -> str:
    """Return median latencies and the share of requests within the limits, after a colon; empty if none is known."""
    failed = row.values.get("failed_share", 0.0)
    failures = f"{100 * failed:.0f} % of requests failed" if failed >= TOLD_FAILED else ""
    told = "; ".join(filter(None, (", ".join(_medians(row, latencies)), failures, _within(row, slo))))
    return f": {told}" if told else ""


def _medians(row: Row, latencies: Latencies) -> Iterator[str]:
    for measure, name in TOLD.items():
        found = latencies.get(row.experiment.place, {}).get(measure)
        if found is not None and found.by_launch:
            about = "" if 50 in found.proven_by_launch else "about "
            yield f"{name} p50 {about}{number(1000 * found.by_launch[50], 3)} ms"


def _within(row: Row, slo: Slo) -> str:
    good, answered = (row.values.get(f"{name}_requests_per_s") for name in ("goodput", "completed"))
    if good is None or not answered:
        return ""
    failed, cut = row.values.get("failed_share", 0.0), row.values.get("incomplete_share", 0.0)
    ended = answered * (1 - cut) / max(1 - failed - cut, 1e-9)  # cut requests neither met nor missed a limit
    limits = ", ".join(f"{name.removesuffix('_ms').upper()} {limit:.6g} ms" for name, limit in slo.named.items())
    return f"{100 * good / ended:.0f} % of requests met the limits ({limits})"


def _weight(row: Row) -> tuple[float, float]:
    point = row.experiment.point
    assert point is not None
    return point.weight


def _load(row: Row) -> str:
    point = row.experiment.point
    assert point is not None
    return point.label


def _number(row: Row) -> str:
    point = row.experiment.point
    assert point is not None
    return f"{point.request_rate:g}" if isinstance(point.request_rate, float) else point.label
