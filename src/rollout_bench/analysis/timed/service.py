"""Service of requests: latencies of each request, goodput, and pooled requests of several launches.

All times are measured at the client, in seconds. Pure functions on arrays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rollout_bench.analysis.stats.anatomy import anatomy_of
from rollout_bench.analysis.stats.percentiles import (
    Array,
    correlation_time,
    effective_samples,
    percentile_interval,
    samples_needed,
)
from rollout_bench.contracts.load import KEPT_UP, LoadPoint
from rollout_bench.contracts.record import Iteration, Record, SequenceRow
from rollout_bench.core.saturation import Arrivals, kept_up, too_short
from rollout_bench.numbers.number import P99
from rollout_bench.plan.serving import Slo

Indices = NDArray[np.int64]

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2el_s", "ntpot_s")
"""Latencies of each successful request; a request has many inter-token latencies."""


@dataclass(frozen=True)
class Requests:
    """The requests in some iterations of one launch, an array [n] for each field except the last two.

    Times are seconds after the request's iteration began, NaN if unknown. Without a server only the engine's times are
    known. `prompt` is the index of the prompt in its iteration. `has_tools` says whether tools ran between its tokens.
    `cached_tokens` are those of the prompt that a server's prefix cache had, NaN if unknown. `is_begun_by_load` says
    whether the load sets the time of a request; that of a conversation's further turn follows from the one before.
    `cut_s` is the time at which a request was cut because the duration of its load was over; such a request neither
    failed nor succeeded. `itl_s` [g] are the inter-token latencies of successful requests: the times between
    consecutive pieces of an answer. `gap_of` [g] is the position of each gap's request.
    """

    iteration: Indices
    prompt: Indices
    prompt_tokens: Indices
    due_s: Array
    sent_s: Array
    scheduled_s: Array
    first_s: Array
    last_s: Array
    output_tokens: Indices
    failed: NDArray[np.bool_]
    cut_s: Array
    has_tools: NDArray[np.bool_]
    cached_tokens: Array
    is_begun_by_load: NDArray[np.bool_]
    itl_s: Array
    gap_of: Indices

    @cached_property
    def good(self) -> NDArray[np.bool_]:
        """Whether each request succeeded: it neither failed nor was cut."""
        return np.asarray(~self.failed & np.isnan(self.cut_s))

    @cached_property
    def ttft_s(self) -> Array:
        """Time to first token of each request, NaN unless it succeeded."""
        return np.where(self.good, self.first_s - self.sent_s, np.nan)

    @cached_property
    def e2el_s(self) -> Array:
        """End-to-end latency of each request, NaN unless it succeeded."""
        return np.where(self.good, self.last_s - self.sent_s, np.nan)

    @cached_property
    def tpot_s(self) -> Array:
        """Time per output token after the first, (E2EL - TTFT) / (n - 1); NaN for a single token, or with tools."""
        steps = np.where((self.output_tokens > 1) & ~self.has_tools, self.output_tokens - 1, np.nan)
        return np.asarray((self.e2el_s - self.ttft_s) / steps)

    @cached_property
    def ntpot_s(self) -> Array:
        """Normalised time per output token, TTFT / n + TPOT; for a single token TTFT."""
        tokens = np.where(self.output_tokens > 0, self.output_tokens, np.nan)
        return np.asarray(self.ttft_s / tokens + np.where(self.output_tokens == 1, 0.0, self.tpot_s))

    @cached_property
    def gap_end_s(self) -> Array:
        """End of each gap [g], in seconds after its iteration began."""
        starts = np.flatnonzero(np.diff(self.gap_of, prepend=-1))  # gaps of one request are consecutive
        total = np.cumsum(self.itl_s)
        before = np.repeat(np.concatenate([[0.0], total])[starts], np.diff([*starts, self.itl_s.size]))
        return np.asarray(self.first_s[self.gap_of] + total - before)

    def known(self, measure: str) -> Array:
        """Return the finite values of one of `LATENCIES`."""
        values: Array = getattr(self, measure)
        return np.asarray(values[np.isfinite(values)])

    def of_iterations(self, iterations: Iterable[Iteration]) -> "Requests":
        """Return the requests in these iterations."""
        keep = np.isin(self.iteration, [iteration.index for iteration in iterations])
        position = np.cumsum(keep) - 1
        gaps = keep[self.gap_of]
        kept = {field.name: getattr(self, field.name)[keep] for field in fields(self)[:-2]}
        return Requests(**kept, itl_s=self.itl_s[gaps], gap_of=position[self.gap_of[gaps]])

    def sent_at_start(self) -> "Requests":
        """Return the requests as if they were sent when their iteration began, as without a server."""
        return replace(self, sent_s=np.zeros_like(self.sent_s))


def requests_of(rows: Sequence[SequenceRow]) -> Requests:
    """Return the `rows` of a side file as arrays."""
    gaps = [row.gaps_us or [] if row.complete else [] for row in rows]
    lengths = np.array([len(each) for each in gaps], dtype=np.int64)
    return Requests(
        iteration=np.array([row.iteration for row in rows], dtype=np.int64),
        prompt=np.array([row.prompt for row in rows], dtype=np.int64),
        prompt_tokens=np.array([row.prompt_tokens for row in rows], dtype=np.int64),
        due_s=np.array([row.due_s for row in rows], dtype=float),
        sent_s=np.array([row.sent_s for row in rows], dtype=float),
        scheduled_s=np.array([row.scheduled_s for row in rows], dtype=float),
        first_s=np.array([row.first_token_s for row in rows], dtype=float),
        last_s=np.array([row.last_token_s for row in rows], dtype=float),
        output_tokens=np.array([row.output_tokens for row in rows], dtype=np.int64),
        failed=np.array([row.failed for row in rows], dtype=bool),
        cut_s=np.array([row.cut_s for row in rows], dtype=float),
        has_tools=np.array([len(row.turns or ()) > 1 for row in rows], dtype=bool),
        cached_tokens=np.array([row.cached_prompt_tokens for row in rows], dtype=float),
        is_begun_by_load=np.array([row.turn in (None, 1) for row in rows], dtype=bool),
        itl_s=np.concatenate([np.array(each, dtype=float) for each in gaps] or [np.empty(0)]) / 1e6,
        gap_of=np.repeat(np.arange(len(rows)), lengths) if rows else np.empty(0, dtype=np.int64),
    )


def anatomies_of(record: Record, requests: Requests) -> dict[int, dict[str, float]]:
    """Return the anatomy of each measured iteration of `record`, by its index; empty unless all times are known.

    A sequence begins to run when the engine first schedules it. Behind a server only the client's times are known, so
    it begins when it is sent. Failed sequences are left out. Loads with a fixed duration or rate are left out as well,
    because nobody waits for their last sequence, partial rollouts, whose steps have parts of sequences, and users'
    conversations, whose turns are requests.
    """
    workload = record.spec.workload
    if getattr(record.spec.mode_spec, "partial", None) or (record.spec.load is not None and workload.turns is not None):
        return {}
    own_limits = workload.dataset is not None and workload.dataset.format == "trace"
    begins_s = np.where(np.isnan(requests.scheduled_s), requests.sent_s, requests.scheduled_s)
    anatomies = {}
    for iteration in record.iterations:
        for_a_time = iteration.point is not None and iteration.point.duration_s is not None
        in_iteration = (requests.iteration == iteration.index) & ~requests.failed
        if iteration.warmup or for_a_time or at_a_rate(iteration.point) or not in_iteration.any():
            continue
        if np.isnan([begins_s[in_iteration], requests.last_s[in_iteration]]).any():
            return {}
        anatomies[iteration.index] = anatomy_of(
            begins_s[in_iteration],
            requests.last_s[in_iteration],
            requests.output_tokens[in_iteration],
            requests.prompt[in_iteration],
            iteration.elapsed_s,
            limit=None if own_limits else workload.longest_pair[1],
        )
    return anatomies


def pool_requests(launches: Sequence[Requests], lengths: bool = False) -> tuple[dict[str, Array], dict[str, int]]:
    """Return the values [n] of each measure over `launches`, and the number of independent values they are worth.

    `lengths`: whether output tokens are included.
    """
    if not launches:
        return {}, {}
    values = {measure: np.concatenate([launch.known(measure) for launch in launches]) for measure in LATENCIES}
    clusters = {measure: [_clusters(launch, measure) for launch in launches] for measure in LATENCIES}
    if lengths:
        values["output_tokens"] = np.concatenate([launch.output_tokens[launch.good] for launch in launches]) * 1.0
        clusters["output_tokens"] = [[launch.iteration[launch.good]] for launch in launches]
    measured = {measure: pooled for measure, pooled in values.items() if pooled.size}
    return measured, {measure: _independent(pooled, clusters[measure]) for measure, pooled in measured.items()}


def _clusters(launch: Requests, measure: str) -> list[Indices]:
    """Return labellings [n] of the values of `measure` in one launch; values with the same label are correlated."""
    if measure != "itl_s":
        return [launch.iteration[np.isfinite(getattr(launch, measure))]]
    iteration = launch.iteration[launch.gap_of]
    # Tokens within a median gap of each other come from one step of the engine, or from two: all requests in the
    # batch wait for the same step.
    width_s = float(np.median(launch.itl_s)) if launch.itl_s.size else 0.0
    steps = np.floor(launch.gap_end_s / width_s).astype(np.int64) if width_s > 0 else iteration
    steps = np.where(np.isfinite(launch.gap_end_s), steps, 0)
    return [iteration, launch.gap_of, iteration * (int(steps.max(initial=0)) + 1) + steps]


def _independent(values: Array, launches: Sequence[Sequence[Indices]]) -> int:
    """Return the number of independent values: the smallest estimate over launches and over each labelling."""
    sizes = [labels[0].size for labels in launches]
    of_launch = np.repeat(np.arange(len(sizes)), sizes)
    sample_sizes = [effective_samples(values, of_launch)]
    for labelling in zip(*launches, strict=True):
        most = max(int(labels.max(initial=0)) for labels in labelling) + 1
        sample_sizes.append(effective_samples(values, of_launch * most + np.concatenate(labelling)))
    return max(1, int(min(sample_sizes)))


@dataclass(frozen=True)
class Service:
    """The service under one load: known numbers by the names of the mode's numbers.

    `is_sure` is whether it is shown that the server keeps up with the rate of the load, or that it falls behind; else
    `kept_up_share` is only a lower bound, or may be chance. `too_short` is whether that is because the passes are.
    `independent` is how many independent requests those within the limits are counted among.
    """

    values: dict[str, float]
    is_sure: bool = True
    too_short: bool = False
    independent: int = 0


def service_of(requests: Requests, iterations: Sequence[Iteration], slo: Slo) -> Service:
    """Return the service in `iterations`, measured ones of one launch under one load, with their `requests`."""
    elapsed_s = sum(iteration.elapsed_s for iteration in iterations)
    good = good_requests(requests, slo)
    ended = int(np.isnan(requests.cut_s).sum())  # requests that were cut neither met nor missed a limit
    e2el_s = requests.known("e2el_s")
    occupied_s = float(e2el_s.sum()) + float(np.nansum(requests.cut_s - requests.sent_s))  # cut requests ran, too
    delays = (requests.sent_s - requests.due_s)[np.isfinite(requests.due_s) & np.isfinite(requests.sent_s)]
    arriving = [_arrivals(requests.of_iterations([i]), i) for i in iterations if at_a_rate(i.point)]
    known_due = all(np.isfinite(one.due_s).all() for one in arriving)
    kept = kept_up(arriving, KEPT_UP) if known_due else None
    numbers = {
        **{latency: _mean(requests.known(latency)) for latency in LATENCIES},
        P99: p99_s(requests),
        "duration_s": elapsed_s,
        "completed_requests_per_s": int(requests.good.sum()) / elapsed_s,
        "goodput_requests_per_s": None if good is None else int(good.sum()) / elapsed_s,
        "within_limits_share": None if good is None or not ended else int(good.sum()) / ended,
        "failed_share": float(requests.failed.mean()),
        "incomplete_share": float(np.isfinite(requests.cut_s).mean())
        if any(i.incomplete is not None for i in iterations)
        else None,
        "in_flight": occupied_s / elapsed_s if e2el_s.size else None,
        "in_flight_most": max((most_at_once(requests.of_iterations([i])) for i in iterations), default=0),
        "offered_requests_per_s": None if kept is None else kept.offered_per_s,
        "kept_up_share": None if kept is None else kept.share,
        "send_delay_s": _mean(delays),
        "send_delay_most_s": float(delays.max()) if delays.size else None,
        "tokens_per_piece": _tokens_per_piece(requests),
        "prompt_cached_share": _cached_share(requests),
    }
    known = {name: value for name, value in numbers.items() if value is not None}
    return Service(
        known,
        kept is None or kept.is_sure,
        any(too_short(one) for one in arriving),
        0 if good is None else _independent_among(good, requests),
    )


def _independent_among(good: NDArray[np.bool_], requests: Requests) -> int:
    """Return how many independent requests those are worth that ended.

    Good ones may come pass by pass, and requests wait together: neighbours in a queue have like latencies.
    """
    has_ended = np.isnan(requests.cut_s)
    met = good[has_ended].astype(float)
    passes = [requests.e2el_s[requests.iteration == each] for each in np.unique(requests.iteration)]
    worth = met.size / correlation_time([each[np.isfinite(each)] for each in passes])
    if met.size and met.min() < met.max():
        worth = min(worth, effective_samples(met, requests.iteration[has_ended]))
    return max(1, int(worth)) if met.size else 0


def completion_of(requests: Requests) -> dict[str, float]:
    """Return the mean and the 99th percentile of E2EL without a server, from the beginning of each iteration.

    Empty unless the times of all `requests` are known.
    """
    whole = requests.sent_at_start()
    numbers = {"e2el_s": _mean(whole.known("e2el_s")), P99: p99_s(whole)}
    is_known = whole.known("e2el_s").size == whole.iteration.size
    return {name: value for name, value in numbers.items() if is_known and value is not None}


def p99_s(requests: Requests) -> float | None:
    """Return the 99th percentile of E2EL in one launch; None with too few independent requests."""
    values = requests.known("e2el_s")
    worth = _independent(values, [_clusters(requests, "e2el_s")]) if values.size else 0
    if worth < samples_needed(0.99):
        return None
    return float(percentile_interval(values, 0.99, independent=worth).estimate)


def at_a_rate(point: LoadPoint | None) -> bool:
    """Return whether the load sets the arrival times, independently of the end of other requests."""
    return point is not None and point.request_rate != "inf"


def good_requests(requests: Requests, slo: Slo) -> NDArray[np.bool_] | None:
    """Return which of `requests` [n] met every limit of `slo`; None without limits, or if a latency is unknown.

    A failed request never meets them. A request with a single token has no TPOT and meets the limit on TPOT, as in
    vLLM's `calculate_metrics`.
    """
    if not slo.named:
        return None
    good = requests.good.copy()
    for name, limit_ms in slo.named.items():
        values: Array = getattr(requests, name.removesuffix("_ms") + "_s")
        exempt = (requests.output_tokens <= 1) & (name == "tpot_ms")
        if not (np.isfinite(values) | ~requests.good | exempt).all():
            return None
        good &= exempt | (np.nan_to_num(values, nan=np.inf) <= limit_ms / 1000)
    return good


def most_at_once(requests: Requests) -> int:
    """Return the maximum of simultaneous requests in one iteration, among those that succeeded or were cut."""
    ended_s = np.where(requests.good, requests.last_s, requests.cut_s)
    finite = np.isfinite(ended_s) & np.isfinite(requests.sent_s)
    begins, ends = np.sort(requests.sent_s[finite]), np.sort(ended_s[finite])
    # At each begin: requests begun so far, minus those ended by then. An end at the same moment counts as ended.
    under_way = np.arange(1, begins.size + 1) - np.searchsorted(ends, begins, side="right")
    return int(under_way.max()) if under_way.size else 0


def _arrivals(requests: Requests, iteration: Iteration) -> Arrivals:
    begun = requests.is_begun_by_load | (iteration.point is not None and iteration.point.conversations is not None)
    due_s = np.where(np.isfinite(requests.due_s), requests.due_s, requests.sent_s)
    good = np.isfinite(requests.e2el_s) & begun
    cut = int((np.isfinite(requests.cut_s) & begun).sum())
    first_s, known = requests.first_s[good], bool(np.isfinite(requests.first_s[good]).all())
    last_s = requests.last_s[good]
    return Arrivals(due_s[begun], due_s[good], last_s, iteration.elapsed_s, cut, first_s if known else None)


def _mean(values: Array) -> float | None:
    return float(values.mean()) if values.size else None


def _cached_share(requests: Requests) -> float | None:
    known = np.isfinite(requests.cached_tokens) & requests.good
    return float(requests.cached_tokens[known].sum() / requests.prompt_tokens[known].sum()) if known.any() else None


def _tokens_per_piece(requests: Requests) -> float | None:
    several = np.zeros(requests.first_s.size, dtype=bool)
    several[requests.gap_of] = True
    # a request with further tokens after its first piece but without gaps has an unknown number of pieces
    known = np.isfinite(requests.ttft_s) & (several | (requests.last_s <= requests.first_s))
    pieces = int(known.sum()) + requests.itl_s.size
    return float(requests.output_tokens[known].sum()) / pieces if pieces else None
