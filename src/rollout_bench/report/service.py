"""Sentences on servers: the highest rate that each server keeps up with, and its latencies at that rate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollout_bench.analysis.stats.percentiles import share_limits
from rollout_bench.analysis.timed.latencies import Distribution
from rollout_bench.analysis.timed.launches import fell_behind
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.contracts.axes import UNKNOWN
from rollout_bench.contracts.load import KEPT_UP, LoadPoint
from rollout_bench.contracts.modes import mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import duration, number, plain_percent
from rollout_bench.core.saturation import BEHIND, FAR, KEEPS
from rollout_bench.plan.serving import Slo
from rollout_bench.report.sweeps import TIMES, RatedLoad, State, kept_count, more_requests, next_loads

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

    It says at which request rates the server met the limits of `slo`, if there are any, and which it kept up with; and
    percentiles of latencies at the highest of the former, or else at the lowest that was measured. Without rates it
    says the throughput of the best load.
    """
    served = [row for row in rows if mode_of(row.experiment.mode).has_loads]
    names = _names(served)
    experiments = grouped((row.experiment.experiment, row) for row in served).values()
    ordered = sorted(
        (loads for loads in experiments if any(row.used for row in loads)),
        key=lambda loads: -max(row.values["output_tokens_per_s"] for row in loads if row.used),
    )
    return [f"{names[loads[0].experiment.experiment]} {_service(loads, latencies, slo)}." for loads in ordered]


def rate_lines(rows: Sequence[Row], slo: Slo) -> list[str]:
    """Return the rates that each experiment of `rows` serves, of those with valid loads at a rate."""
    names = _names(rows)
    return [
        f"{names[experiment]} {_Rates(loads, slo).sentence(short=True)}"
        for experiment, loads in grouped((row.experiment.experiment, row) for row in rows).items()
        if _ordered([row for row in loads if row.used])
    ]


def next_rates(rows: Sequence[Row], slo: Slo) -> tuple[str, dict[str, Any]]:
    """Return what finds the highest rate that a server serves, and the keys of a config that it changes.

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
    rates = _Rates(rows, slo)
    step, loads = next_loads(
        [
            RatedLoad(
                rate=_asked_rate(row),
                state=state,
                most=rates.most if kept == "falls behind" else None,
                sent=_requests_of_pass(row),
                needed=_requests_of_pass(row) if iterations else _requests_needed(row, rated[0]),
                seems_behind=rates.seems_behind(row),
            )
            for row, state, kept, iterations in zip(
                rates.rated, rates.states, rates.kept_up, rates.iterations, strict=True
            )
        ],
        min((_asked_rate(row) for row in rates.invalid), default=math.inf),
        until="the limits are missed" if rates.has_limits else "the server falls behind",
    )
    if not step:
        return "", {}
    asked = [int(rate) if rate.is_integer() else rate for rate in loads]
    points = spec.load.points
    changed: dict[str, Any] = {"request_rate": asked}
    if any(point.duration_s is not None for point in points):
        changed["duration_s"] = [math.ceil(count / rate) for rate, count in loads.items()]
    else:
        changed["requests"] = [*loads.values()]
    limits = [point.concurrency for point in points if point.concurrency is not None]
    if limits:  # a list in the config has one for each of its loads
        changed["concurrency"] = [max(limits)] * len(asked)
    prompts = max(load.prompts, math.ceil(max(loads.values()) / load.samples_per_prompt))
    settings = {"workload_settings": {load.name: {"prompts": prompts, "online": changed}}}
    iterations = max((rates.iterations[place] for place in rates.undecided), default=0)
    measuring = rated[0].used[0].record.spec.measuring
    passes = (iterations or measuring.iterations) + measuring.warmup_iterations
    long = [row for row in rated if not _is_short(row)]
    is_full = any(row.values["completed_requests_per_s"] < FAR * _asked_rate(row) for row in long)
    answered = rates.most if is_full or "falls behind" in rates.kept_up else math.inf
    pass_s = sum(count / min(rate, answered) for rate, count in loads.items())
    time = f"about {duration(passes * len(rated[0].used) * pass_s)}"
    if not iterations:
        return f"{step} ({time})", settings
    return f"{step}, in {iterations} iterations ({time})", {"iterations": iterations, **settings}


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


def _shown(rated: Sequence[Row]) -> list[State]:
    """Return what each load shows of its server: at no rate that it answered at another load it falls behind.

    Beside a server's limit waits come and go, and a short pass may end in one of them.
    """
    answered = max((row.values["completed_requests_per_s"] for row in rated), default=0.0)
    return [
        "undecided"
        if state == "falls behind" and not row.values["failed_share"] and answered >= _enough(row)
        else state
        for row, state in zip(rated, map(state_of, rated), strict=True)
    ]


def _enough(row: Row) -> float:
    """Return the answers per second from which on a server keeps up with the rate of a load."""
    return KEPT_UP * _asked_rate(row)


def states_at_rates(rows: Sequence[Row]) -> dict[Any, State]:
    """Return whether a server keeps up with each load at a rate of `rows`, by its place."""
    loads = grouped((row.experiment.experiment, row) for row in rows if row.used).values()
    each = ((rated, _kept_up(rated)) for rated in map(_ordered, loads))
    return {row.experiment.place: state for rated, states in each for row, state in zip(rated, states, strict=True)}


def _kept_up(rated: Sequence[Row]) -> list[State]:
    """Return whether a server keeps up with each load, the lightest first.

    Where a pass is too short to show that latencies grow, loads together can: a server that answers no more requests a
    second at twice a rate has no more to give, and at a lower rate it gives no more than where it falls behind.
    """
    states = _shown(rated)
    most = [_sustained(row) / KEPT_UP for row in _showing_most(rated)]
    found = list[State]()
    for place, (row, state) in enumerate(zip(rated, states, strict=True)):
        answered = row.values["completed_requests_per_s"]
        is_full = answered < FAR * _asked_rate(row) and any(
            2 * _asked_rate(other) <= _asked_rate(row)
            and answered <= NO_MORE * other.values["completed_requests_per_s"]
            for other in rated[:place]
        )
        is_over = max(most, default=math.inf) < _enough(row)
        found.append("falls behind" if state == "undecided" and (is_full or is_over) else state)
    return found


def _sustained(row: Row) -> float:
    """Return the answers per second while requests arrive, of a load whose passes are long enough to tell."""
    return row.values["kept_up_share"] * row.values["offered_requests_per_s"]


def _showing_most(rated: Sequence[Row]) -> list[Row]:
    """Return the loads whose answers per second are the most that their server gives."""
    return [
        row for row, state in zip(rated, _shown(rated), strict=True) if state == "falls behind" and not _is_short(row)
    ]


def _is_short(row: Row) -> bool:
    return any(launch.too_short for launch in row.used)


def _met(row: Row, slo: Slo, times: int = 1) -> State:
    """Return whether the share `slo.attainment` of the requests of a load, or more, met the limits.

    With `times` it is what so many times the iterations would show, if as many of their requests met them.
    """
    worth = times * sum(launch.independent for launch in row.used)
    share = row.values.get("within_limits_share")
    if share is None or not worth:
        return "undecided"
    low, high = share_limits(share, worth, KEEPS, BEHIND)
    return "keeps up" if low >= slo.attainment else "falls behind" if high < slo.attainment else "undecided"


def _iterations_needed(row: Row, slo: Slo) -> int:
    """Return how many iterations are likely to tell whether a load meets the limits; 0 where they do not differ."""
    requests = sum(len(launch.passes) for launch in row.used) * _requests_of_pass(row)
    if 2 * sum(launch.independent for launch in row.used) >= requests:
        return 0
    decides = (times for times in range(2, TIMES) if _met(row, slo, times) != "undecided")
    return next(decides, TIMES) * row.used[0].record.spec.measuring.iterations


def _served(row: Row, kept_up: State, slo: Slo) -> State:
    """Return whether a server serves a load within the limits: it meets them, and is not seen to fall behind.

    Where that it keeps up is not proven, passes must be long enough to show if it did not.
    """
    met = _met(row, slo)
    if "falls behind" in (met, kept_up):
        return "falls behind"
    seems_to = not _is_short(row) and row.values.get("kept_up_share", 0.0) >= KEPT_UP
    return "keeps up" if met == "keeps up" and (kept_up == "keeps up" or seems_to) else "undecided"


class _Rates:
    """The loads of an experiment at a rate, at least one of them valid, and which of them its server serves.

    Attributes:
        rated: the valid loads, the lightest first.
        invalid: the others, the lightest first.
        kept_up: whether the server keeps up with each of `rated`.
        has_limits: whether limits decide, too.
        states: whether the server serves each of `rated`: it keeps up, and meets the limits if there are any.
        iterations: how many iterations are likely to tell it for each of `rated`; 0 where more requests in each tell as
            much.
    """

    def __init__(self, rows: Sequence[Row], slo: Slo) -> None:
        self.rated = _ordered([row for row in rows if row.used])
        self.invalid = _ordered([row for row in rows if not row.used])
        self.kept_up = _kept_up(self.rated)
        self._full = _showing_most(self.rated)
        self.has_limits = any("within_limits_share" in row.values for row in self.rated)
        self.states = self.kept_up
        self.iterations = [0] * len(self.rated)
        self._slo = slo
        if self.has_limits:
            pairs = [*zip(self.rated, self.kept_up, strict=True)]
            self.states = [_served(row, kept, slo) for row, kept in pairs]
            self.iterations = [_iterations_needed(row, slo) if kept == "keeps up" else 0 for row, kept in pairs]

    @property
    def best(self) -> Row:
        """The heaviest load that is served, or else the lightest."""
        return self.rated[max(kept_count(self.states) - 1, 0)]

    @property
    def most(self) -> float:
        """The most answers per second: the mean of loads that show it, or else the highest of any load."""
        answered = [row.values["completed_requests_per_s"] for row in self._full or self.rated]
        return sum(answered) / len(answered) if self._full else max(answered)

    @property
    def undecided(self) -> list[int]:
        """Places of the loads at the edge that are not known to be served, or not to be."""
        limit = self.states.index("falls behind") if "falls behind" in self.states else len(self.states)
        return [place for place in range(kept_count(self.states), limit) if self.states[place] == "undecided"]

    def seems_behind(self, row: Row) -> bool:
        """Return whether a load is more likely not to be served than to be."""
        share = row.values.get("within_limits_share", 1.0) if self.has_limits else 1.0
        return share < self._slo.attainment or row.values.get("kept_up_share", 1.0) < KEPT_UP

    def sentence(self, short: bool = False) -> str:
        """Return which of the loads the server serves; `short`: by the limits alone if there are any."""
        if not self.has_limits:
            return f"{self._keeping_up()}{self._undecided_loads()}"
        is_same = self.kept_up == self.states and "falls behind" not in self.states
        limits = f"{self._limits_sentence()}{self._undecided_loads()}"
        if short or is_same:
            return limits
        is_open = self.undecided and not kept_count(self.states)  # what is known comes first
        return "; it ".join([self._keeping_up(), limits] if is_open else [limits, self._keeping_up()])

    def _keeping_up(self) -> str:
        kept, behind = _ends(self.rated, self.kept_up)
        least = "" if self._full else "at least "
        answers = "" if behind is None else f" (it answers {least}{number(self.most, 3)})"
        if kept and behind:
            return f"keeps up with {_load(kept)}, not with {_number(behind)}{answers}"
        if kept:
            return f"keeps up with {_load(kept)}{self._highest(kept)}"
        return f"does not keep up with {_load(behind)}{answers}" if behind else "is not shown to keep up"

    def _limits_sentence(self) -> str:
        kept, behind = _ends(self.rated, self.states)
        limits_text = _limits_text(self._slo)
        if kept and behind:
            return (
                f"meets {limits_text} at {_load(kept)}{_met_share(kept)}, not at {_number(behind)}{_met_share(behind)}"
            )
        if kept:
            return f"keeps up with {_load(kept)} and meets {limits_text} there{_met_share(kept)}{self._highest(kept)}"
        if behind:
            return f"does not meet {limits_text} at {_load(behind)}{_met_share(behind)}"
        return f"is not shown to meet {limits_text}"

    def _highest(self, kept: Row) -> str:
        """Return that no higher rate than that of `kept` was asked, or that those have no valid result."""
        over = [row for row in self.invalid if _asked_rate(row) > _asked_rate(kept)]
        if over:
            return f"; {', '.join(map(_number, over))} req/s {'has' if len(over) == 1 else 'have'} no valid result"
        is_highest = len(self.rated) > 1 and kept is self.rated[-1]
        return ", the highest rate that was asked" if is_highest else ""

    def _undecided_loads(self) -> str:
        """Return which loads at the edge are undecided, and what would decide it."""
        rows = [self.rated[place] for place in self.undecided]
        if not rows:
            return ""
        names = f"{', '.join(map(_number, rows))} req/s {'is' if len(rows) == 1 else 'are'} undecided"
        each = [
            f"{iterations} iterations" if iterations else f"{_requests_needed(row, self.rated[0])} requests"
            for row, iterations in zip(rows, (self.iterations[place] for place in self.undecided), strict=True)
        ]
        if len({*each}) > 1:
            each = [f"{needed} or more at {_number(row)}" for row, needed in zip(rows, each, strict=True)]
            return f"; {names}: {', '.join(each)} are likely to tell"
        return f"; {names}: {each[0]} or more are likely to tell"


def _ends(rated: Sequence[Row], states: Sequence[State]) -> tuple[Row | None, Row | None]:
    """Return the heaviest load that is served, and the lightest that is not; None where there is none."""
    count = kept_count(states)
    behind = states.index("falls behind") if "falls behind" in states else None
    return rated[count - 1] if count else None, None if behind is None else rated[behind]


def _met_share(row: Row) -> str:
    """Return the share of the requests of a load that met the limits; empty if it is unknown."""
    share = row.values.get("within_limits_share")
    return "" if share is None else f" ({100 * share:.0f} %)"


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """Return the shortest names that tell the experiments apart, by their folder."""
    several = {axis: len({getattr(row.experiment.whole, axis) for row in rows}) > 1 for axis in ("model", "workload")}
    found = {}
    for row in rows:
        whole = row.experiment.whole
        model = [whole.model] if several["model"] or whole.quant == UNKNOWN else []
        label = [] if row.label == UNKNOWN else [row.label]
        workload = [whole.workload] if several["workload"] else []
        found[row.experiment.experiment] = " ".join([*model, *label, *workload])
    return found


def _service(every: Sequence[Row], latencies: Latencies, slo: Slo) -> str:
    loads = [row for row in every if row.used]
    if not _ordered(loads):
        return _without_rates(loads, latencies, slo)
    rates = _Rates(every, slo)
    details = _at(rates.best, latencies)
    where = f"; at {_load(rates.best)}" if details and len(rates.rated) + len(rates.invalid) > 1 else ""
    return f"{rates.sentence()}{where}{': ' * bool(details)}{details}"


def _without_rates(loads: Sequence[Row], latencies: Latencies, slo: Slo) -> str:
    """Return with how many requests at once a server meets the limits, and what it answers then, or else at most."""
    ranked = sorted(loads, key=lambda row: _point(row).weight)
    kept, behind = _ends(ranked, [_met(row, slo) for row in ranked]) if len(loads) > 1 else (None, None)
    most = max(loads, key=lambda row: row.values["output_tokens_per_s"])
    told = kept or most
    of = f", the most of {len(loads)} loads" if len(loads) > 1 and told is most else ""
    rate = told.values.get("completed_requests_per_s")
    answers = "" if rate is None else f"{number(rate, 3)} req/s, "
    tokens = f"{answers}{number(told.values['output_tokens_per_s'], 4)} output tok/s"
    within = "" if kept or behind else _within(told, slo)
    details = "; ".join(filter(None, (_at(told, latencies), within)))
    text = f"answers {tokens} with {_load(told)}{of}{': ' * bool(details)}{details}"
    missed = behind and f"{_load(behind)}{_met_share(behind)}"
    if kept:
        not_with = f", not with {missed}" if missed else ""
        return f"meets {_limits_text(slo)} with {_load(kept)}{_met_share(kept)}{not_with}; it {text}"
    return f"does not meet {_limits_text(slo)} with {missed}; it {text}" if missed else text


def _requests_needed(row: Row, lightest: Row) -> int:
    """Return how many requests of a pass are likely to show whether a server keeps up, if those sent did not."""
    rate = _point(row).request_rate
    if not isinstance(rate, float) or not _is_short(row):
        return more_requests(_requests_of_pass(row))
    slowest_s = max(each.values.get("e2el_s", 0.0) for each in (lightest, row))
    return more_requests(_requests_of_pass(row), rate, slowest_s)


def _requests_of_pass(row: Row) -> int:
    """Return the number of requests of a pass."""
    load = row.used[0].record.spec.workload
    return _point(row).due_requests or load.prompts * load.samples_per_prompt


def _at(row: Row, latencies: Latencies) -> str:
    """Return percentiles of latencies and the share of failed requests; empty if unknown."""
    failed = row.values.get("failed_share", 0.0)
    failures = f"{100 * failed:.0f} % of requests failed" if failed >= TOLD_FAILED else ""
    return "; ".join(filter(None, (*_percentiles(row, latencies), failures)))


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
    share = row.values.get("within_limits_share")
    return "" if share is None else f"{100 * share:.0f} % of requests met the limits ({', '.join(_limits_of(slo))})"


def _limits_text(slo: Slo) -> str:
    return f"the limits ({' and '.join(_limits_of(slo))} for {plain_percent(slo.attainment)} of the requests)"


def _limits_of(slo: Slo) -> list[str]:
    return [f"{name.removesuffix('_ms').upper()} {limit:.6g} ms" for name, limit in slo.named.items()]


def _point(row: Row) -> LoadPoint:
    point = row.experiment.point
    assert point is not None
    return point


def _load(row: Row) -> str:
    return _point(row).label


def _number(row: Row) -> str:
    rate = _point(row).request_rate
    return f"{rate:g}" if isinstance(rate, float) else _load(row)


def _asked_rate(row: Row) -> float:
    """Return the rate of a load, in requests per second."""
    return _point(row).weight[0]
