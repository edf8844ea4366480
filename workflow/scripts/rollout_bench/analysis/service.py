"""How well the requests of one launch were served: rates, latencies, and what share of them was good enough.

Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout_bench.analysis.requests import Array, Requests
from rollout_bench.plan.loads import LoadPoint
from rollout_bench.plan.serving import Slo
from rollout_bench.records.record import Iteration

KEPT_UP = 0.95
"""A server that delivers at least this share of the rate that is offered keeps up."""

LONG = 0.5
"""Mean E2EL over the time in which requests arrive, from which on a pass is too short to see whether a server keeps
up."""


@dataclass(frozen=True)
class Service:
    """One launch under one load, means over its requests that succeeded; None where nothing tells.

    `requests` were sent, of which `failed` failed. `requests_per_s` and `goodput_requests_per_s` count those that
    succeeded, and those that met every limit. `in_flight` is the mean number under way, `in_flight_most` the most at
    once. `offered_per_s` is the rate at which requests were due, `kept_up` the share of it that came back,
    which is only the least that it can be where a pass was `too_short`.
    `send_delay_s` is how much later than due they were sent. `tokens_per_piece` is 1 where each token came alone.
    """

    requests: int
    failed: int
    requests_per_s: float
    ttft_s: float | None
    tpot_s: float | None
    itl_s: float | None
    e2el_s: float | None
    ntpot_s: float | None
    goodput_requests_per_s: float | None
    in_flight: float | None
    in_flight_most: int
    offered_per_s: float | None
    kept_up: float | None
    too_short: bool
    send_delay_s: float | None
    send_delay_most_s: float | None
    tokens_per_piece: float | None


def service_of(requests: Requests, iterations: Sequence[Iteration], slo: Slo) -> Service:
    """The service in `iterations`, the measured ones of one launch under one load, whose requests are `requests`."""
    elapsed_s = sum(iteration.elapsed_s for iteration in iterations)
    good = good_requests(requests, slo)
    e2el_s = requests.known("e2el_s")
    delays = (requests.sent_s - requests.due_s)[np.isfinite(requests.due_s) & np.isfinite(requests.sent_s)]
    kept = [
        rates
        for i in iterations
        if at_a_rate(i.point) and (rates := _rates(requests.of_iterations([i.index]), i.elapsed_s)) is not None
    ]
    return Service(
        requests=requests.failed.size,
        failed=int(requests.failed.sum()),
        requests_per_s=int((~requests.failed).sum()) / elapsed_s,
        ttft_s=_mean(requests.known("ttft_s")),
        tpot_s=_mean(requests.known("tpot_s")),
        itl_s=_mean(requests.known("itl_s")),
        e2el_s=_mean(e2el_s),
        ntpot_s=_mean(requests.known("ntpot_s")),
        goodput_requests_per_s=None if good is None else int(good.sum()) / elapsed_s,
        in_flight=float(e2el_s.sum()) / elapsed_s if e2el_s.size else None,
        in_flight_most=max((most_at_once(requests.of_iterations([i.index])) for i in iterations), default=0),
        offered_per_s=_mean(np.array([offered for offered, _ in kept])),
        kept_up=_mean(np.array([share for _, share in kept])),
        too_short=any(at_a_rate(i.point) and _too_short(requests.of_iterations([i.index])) for i in iterations),
        send_delay_s=_mean(delays),
        send_delay_most_s=float(delays.max()) if delays.size else None,
        tokens_per_piece=_tokens_per_piece(requests),
    )


def at_a_rate(point: LoadPoint | None) -> bool:
    """Whether requests arrive when the load says, and not when others have ended."""
    return point is not None and point.request_rate != "inf"


def good_requests(requests: Requests, slo: Slo) -> Array | None:
    """Which of `requests` [n] met every limit of `slo`; None without a limit, or where one can't be looked at.

    A request that failed never does. One of a single token has no TPOT and meets its limit, as in vLLM's
    `calculate_metrics`.
    """
    if not slo.named:
        return None
    good = ~requests.failed
    single = requests.output_tokens <= 1
    for name, limit_ms in slo.named.items():
        values: Array = getattr(requests, name.removesuffix("_ms") + "_s")
        known = np.isfinite(values) | requests.failed | (single if name == "tpot_ms" else False)
        if not known.all():
            return None
        exempt = single if name == "tpot_ms" else np.zeros_like(single)
        with np.errstate(invalid="ignore"):
            good &= exempt | (values <= limit_ms / 1000)
    return np.asarray(good, dtype=float)


def most_at_once(requests: Requests) -> int:
    """The most requests of one iteration that were under way at once, of those that succeeded."""
    there = np.isfinite(requests.e2el_s)
    begins, ends = np.sort(requests.sent_s[there]), np.sort(requests.last_s[there])
    # Of those that had begun when one began, those that had ended by then; one that ends just then makes room for it.
    under_way = np.arange(1, begins.size + 1) - np.searchsorted(ends, begins, side="right")
    return int(under_way.max()) if under_way.size else 0


def kept_up(due_s: Array, e2el_s: Array, end_s: Array, elapsed_s: float) -> tuple[float, float] | None:
    """The rate at which requests [n] were due, per second, and the share of it at which answers [m <= n] came.

    With a the first and b the last time that one was due, L the mean E2EL: offered is (n - 1) / (b - a), and the share
    is the number of answers in (a + L, b] over the number of requests due in (a, b - L]: what came while requests still
    arrived, over what was due so much earlier. A server that keeps up answers them all, however long it takes, and
    however uneven arrivals are; one that does not lets the number under way grow. Requests over the time of the pass
    would fall short of the rate at every server, since a pass ends as much later than its last request is due as that
    takes; and answers alone come in a burst where all that is in a batch ends together.
    Where L is over `LONG` of b - a nothing of the kind can be seen. The share is then m over the time of the pass,
    over what was offered: the least that it can be.
    None where fewer than four requests tell, or all were due at once.
    """
    if due_s.size < 4 or due_s.max() <= due_s.min():
        return None
    first, last = float(due_s.min()), float(due_s.max())
    offered = (due_s.size - 1) / (last - first)
    if not end_s.size:
        return offered, 0.0
    latency = float(e2el_s.mean())
    due_early = int((due_s[due_s > first] <= last - latency).sum())
    if latency > LONG * (last - first) or not due_early:
        return offered, end_s.size / elapsed_s / offered
    return offered, int(((end_s > first + latency) & (end_s <= last)).sum()) / due_early


def _rates(requests: Requests, elapsed_s: float) -> tuple[float, float] | None:
    due_s = np.where(np.isfinite(requests.due_s), requests.due_s, requests.sent_s)
    if not np.isfinite(due_s).all():
        return None
    good = np.isfinite(requests.e2el_s)
    return kept_up(due_s, requests.e2el_s[good], requests.last_s[good], elapsed_s)


def _too_short(requests: Requests) -> bool:
    due_s, e2el_s = np.where(np.isfinite(requests.due_s), requests.due_s, requests.sent_s), requests.known("e2el_s")
    return bool(e2el_s.size and e2el_s.mean() > LONG * (np.max(due_s) - np.min(due_s)))


def _mean(values: Array) -> float | None:
    return float(values.mean()) if values.size else None


def _tokens_per_piece(requests: Requests) -> float | None:
    streamed = np.isfinite(requests.ttft_s)
    pieces = int(streamed.sum()) + requests.gaps_s.size
    return float(requests.output_tokens[streamed].sum()) / pieces if pieces else None
