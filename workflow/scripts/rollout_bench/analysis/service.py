"""How well the requests of one launch were served: rates, latencies, and what share of them was good enough.

Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout_bench.analysis.requests import Array, Requests
from rollout_bench.keeping_up import Arrivals, kept_up, too_short
from rollout_bench.plan.loads import LoadPoint
from rollout_bench.plan.serving import Slo
from rollout_bench.records.record import Iteration


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
    arriving = [_arrivals(requests.of_iterations([i.index]), i.elapsed_s) for i in iterations if at_a_rate(i.point)]
    rates = kept_up(arriving) if all(np.isfinite(one.due_s).all() for one in arriving) else None
    offered_per_s, share = rates if rates is not None else (None, None)
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
        offered_per_s=offered_per_s,
        kept_up=share,
        too_short=any(too_short(one) for one in arriving),
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


def _arrivals(requests: Requests, elapsed_s: float) -> Arrivals:
    due_s = np.where(np.isfinite(requests.due_s), requests.due_s, requests.sent_s)
    good = np.isfinite(requests.e2el_s)
    return Arrivals(due_s, requests.e2el_s[good], requests.last_s[good], elapsed_s)


def _mean(values: Array) -> float | None:
    return float(values.mean()) if values.size else None


def _tokens_per_piece(requests: Requests) -> float | None:
    streamed = np.isfinite(requests.ttft_s)
    pieces = int(streamed.sum()) + requests.gaps_s.size
    return float(requests.output_tokens[streamed].sum()) / pieces if pieces else None
