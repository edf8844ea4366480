"""Doubts about an online launch: requests that failed, a client that was too slow, a server that says otherwise."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from rollout_bench.records.record import Flag, Iteration, SequenceRow

FAILED_SHARE = 0.01
"""Share of requests that may fail before a launch takes no part in comparisons: the rest had the server to itself."""

BUSY_SHARE, FULL_SHARE = 0.8, 0.95
"""CPU share of the sending process from which on it is a doubt, and from which on it is what was measured."""

LATE_MEDIAN_S, LATE_P99_S = 0.001, 0.005
"""How late the sending process may see an answer, at the median and 99 times in 100."""

GAP_S, GAP_SHARE = 0.005, 0.1
"""How much longer than the server a client may see a request take, besides the network: what HTTP itself costs."""


def online_flags(iterations: Sequence[Iteration], rows: Sequence[SequenceRow]) -> list[Flag]:
    """All of them, from the measured `iterations` and the rows of a launch."""
    of: dict[int, list[SequenceRow]] = {iteration.index: [] for iteration in iterations}
    for row in rows:
        if row.iteration in of:
            of[row.iteration].append(row)
    return [
        *failure_flags([row for found in of.values() for row in found]),
        *client_flags(iterations),
        *sent_late_flags([row for found in of.values() for row in found]),
        *gap_flags([(iteration, of[iteration.index]) for iteration in iterations]),
        *preemption_flags(iterations),
    ]


def failure_flags(rows: Sequence[SequenceRow]) -> list[Flag]:
    """A flag where requests failed, with what was said most often."""
    said = Counter(row.error for row in rows if row.error is not None)
    if not said:
        return []
    often, times = said.most_common(1)[0]
    failed = said.total()
    share = failed / len(rows)
    sentence = f"{failed} of {len(rows)} measured requests failed ({100 * share:.2g} %), {times} of them with: {often}"
    return [Flag(code="requests_failed", severity="invalid" if share > FAILED_SHARE else "warning", sentence=sentence)]


def client_flags(iterations: Sequence[Iteration]) -> list[Flag]:
    """A flag where what sends the requests may be what was measured."""
    used = [iteration.client for iteration in iterations if iteration.client is not None]
    if not used:
        return []
    busiest = max(use.cpu_share for use in used)
    median_s = max(use.loop_delay_median_s or 0.0 for use in used)
    p99_s = max(use.loop_delay_p99_s or 0.0 for use in used)
    problems = []
    if busiest > BUSY_SHARE:
        problems.append(f"used {100 * busiest:.0f} % of a core")
    if median_s > LATE_MEDIAN_S:
        problems.append(f"saw answers {1e3 * median_s:.1f} ms late at the median")
    if p99_s > LATE_P99_S:
        problems.append(f"saw one answer in a hundred {1e3 * p99_s:.1f} ms late or more")
    if not problems:
        return []
    sentence = f"What sends the requests {' and '.join(problems)} (the worst of {len(used)} iterations)."
    return [Flag(code="generator_bound", severity="invalid" if busiest > FULL_SHARE else "warning", sentence=sentence)]


def sent_late_flags(rows: Sequence[SequenceRow]) -> list[Flag]:
    """A flag where requests were sent so much later than they were due that it is another load."""
    late_s = sorted(row.sent_s - row.due_s for row in rows if row.sent_s is not None and row.due_s is not None)
    answered_s = [
        (row.last_token_s if row.first_token_s is None else row.first_token_s) - row.sent_s
        for row in rows
        if not row.failed and row.sent_s is not None and row.last_token_s is not None
    ]
    if not late_s or not answered_s:
        return []
    p99_s, usual_s = late_s[int(0.99 * (len(late_s) - 1))], statistics.median(answered_s)
    if p99_s <= max(LATE_P99_S, GAP_SHARE * usual_s):
        return []
    sentence = (
        f"One request in a hundred was sent {1e3 * p99_s:.1f} ms later than due, or more, where the median answer "
        f"begins after {1e3 * usual_s:.1f} ms: they did not arrive as the load says."
    )
    return [Flag(code="sent_late", severity="warning", sentence=sentence)]


def gap_flags(passes: Sequence[tuple[Iteration, Sequence[SequenceRow]]]) -> list[Flag]:
    """A flag where the client saw requests take longer than the server's own histograms, and the network, say."""
    found = [gap for iteration, rows in passes for gap in _gaps(iteration, rows)]
    if not found:
        return []
    name, ours_s, theirs_s, network_s = max(found, key=lambda gap: gap[1] - gap[2])
    sentence = (
        f"The client saw a mean {name} of {1e3 * ours_s:.1f} ms where the server counts {1e3 * theirs_s:.1f} ms, and a "
        f"round trip takes {1e3 * network_s:.1f} ms: the rest is HTTP's (the largest gap of {len(passes)} iterations)."
    )
    return [Flag(code="server_client_gap", severity="warning", sentence=sentence)]


def _gaps(iteration: Iteration, rows: Sequence[SequenceRow]) -> list[tuple[str, float, float, float]]:
    server = iteration.server
    good = [row for row in rows if not row.failed and row.sent_s is not None]
    if server is None or not good or server.requests != len(good):
        return []
    network_s = server.round_trip_s or 0.0
    gaps = []
    for name, theirs_s, ends in (
        ("TTFT", server.ttft_mean_s, [row.first_token_s for row in good]),
        ("E2EL", server.e2el_mean_s, [row.last_token_s for row in good]),
    ):
        seen = [end - (row.sent_s or 0.0) for row, end in zip(good, ends, strict=True) if end is not None]
        if theirs_s is None or len(seen) != len(good):
            continue
        ours_s = statistics.mean(seen)
        if ours_s - theirs_s > network_s + max(GAP_S, GAP_SHARE * ours_s):
            gaps.append((name, ours_s, theirs_s, network_s))
    return gaps


def preemption_flags(iterations: Sequence[Iteration]) -> list[Flag]:
    """A flag where the server preempted requests."""
    counts = [iteration.server.preemptions or 0 for iteration in iterations if iteration.server is not None]
    if not sum(counts):
        return []
    what = f"{sum(counts)} preemptions in {len(counts)} measured iterations"
    sentence = f"{what}; the KV cache does not hold all sequences at once."
    return [Flag(code="preemptions", severity="warning", sentence=sentence)]
