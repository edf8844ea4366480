"""From what became of the requests of a pass to its iteration, its rows, and the doubts about it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from rollout_bench.plan.loads import LoadPoint
from rollout_bench.plan.spec import Spec
from rollout_bench.records.online import ClientUse, ServerUse
from rollout_bench.records.record import Flag, Iteration, SequenceRow
from rollout_bench.serving.target import Outcome, Pass
from rollout_bench.workloads.requests import Request

FAILED_SHARE = 0.01
"""Share of requests that may fail before a launch takes no part in comparisons: the rest had the server to itself."""

BUSY_SHARE, FULL_SHARE = 0.8, 0.95
"""CPU share of the sending process from which on it is a doubt, and from which on it is what was measured."""

LATE_MEDIAN_S, LATE_P99_S = 0.001, 0.005
"""How late the sending process may see an answer, at the median and 99 times in 100."""

GAP_S, GAP_SHARE = 0.005, 0.1
"""How much longer than the server a client may see a request take, besides the network: what HTTP itself costs."""


def iteration_of(
    index: int, warmup: bool, point: LoadPoint, done: Pass, rows: Sequence[SequenceRow], server: ServerUse | None
) -> Iteration:
    """The iteration: what failed is not counted, neither its tokens nor its sequences."""
    good = [row for row in rows if not row.failed]
    return Iteration(
        index=index,
        warmup=warmup,
        elapsed_s=done.elapsed_s,
        requests=len(rows),
        sequences=len(good),
        prompt_tokens=sum(row.prompt_tokens for row in good),
        cached_prompt_tokens=None if server is None else server.prefix_cache_hits,
        output_tokens=sum(row.output_tokens for row in good),
        point=point,
        failed=len(rows) - len(good),
        client=done.client,
        server=server,
    )


def rows_of(requests: Sequence[Request], done: Pass, index: int) -> list[SequenceRow]:
    """One row for each request, in their order; times in seconds after the pass began."""
    return [
        _row(request, outcome, done.began_s, index) for request, outcome in zip(requests, done.outcomes, strict=True)
    ]


def _row(request: Request, outcome: Outcome, began_s: float, index: int) -> SequenceRow:
    def since(moment: float | None) -> float | None:
        return None if moment is None else round(moment - began_s, 6)

    pieces, tokens = outcome.pieces_s, outcome.piece_tokens
    return SequenceRow(
        iteration=index,
        prompt=request.prompt,
        sample=request.sample,
        prompt_tokens=len(request.prompt_token_ids) if outcome.prompt_tokens is None else outcome.prompt_tokens,
        output_tokens=outcome.output_tokens,
        finish_reason=outcome.finish_reason,
        first_token_s=since(pieces[0]) if pieces and outcome.streamed else None,
        last_token_s=since(pieces[-1]) if pieces else None,
        due_s=since(outcome.due_s),
        sent_s=since(outcome.sent_s),
        gaps_us=[round(1e6 * (b - a)) for a, b in itertools.pairwise(pieces)] if outcome.streamed else None,
        gap_tokens=tokens if outcome.streamed and any(count != 1 for count in tokens) else None,
        status=outcome.status,
        error=outcome.error,
    )


def failure_flags(iteration: Iteration, rows: Sequence[SequenceRow]) -> list[Flag]:
    """A flag where requests failed, with what was said most often."""
    failed = [row for row in rows if row.failed]
    if not failed:
        return []
    said = [row.error or "" for row in failed]
    often = max(set(said), key=said.count)
    share = len(failed) / len(rows)
    sentence = (
        f"Iteration {iteration.index}: {len(failed)} of {len(rows)} requests failed ({100 * share:.0f} %), "
        f"{said.count(often)} with: {often}"
    )
    return [Flag(code="requests_failed", severity="invalid" if share > FAILED_SHARE else "warning", sentence=sentence)]


def client_flags(iteration: Iteration, client: ClientUse) -> list[Flag]:
    """A flag where what sends the requests may be what was measured."""
    problems = []
    if client.cpu_share > BUSY_SHARE:
        problems.append(f"used {100 * client.cpu_share:.0f} % of a core")
    if client.loop_delay_median_s is not None and client.loop_delay_median_s > LATE_MEDIAN_S:
        problems.append(f"saw answers {1e3 * client.loop_delay_median_s:.1f} ms late at the median")
    if client.loop_delay_p99_s is not None and client.loop_delay_p99_s > LATE_P99_S:
        problems.append(f"saw one answer in a hundred {1e3 * client.loop_delay_p99_s:.1f} ms late or more")
    if not problems:
        return []
    sentence = f"Iteration {iteration.index}: what sends the requests {' and '.join(problems)}."
    severity = "invalid" if client.cpu_share > FULL_SHARE else "warning"
    return [Flag(code="generator_bound", severity=severity, sentence=sentence)]


def gap_flags(iteration: Iteration, rows: Sequence[SequenceRow]) -> list[Flag]:
    """A flag where the client saw requests take longer than the server's own histograms, and the network, say."""
    server = iteration.server
    good = [row for row in rows if not row.failed and row.sent_s is not None and row.last_token_s is not None]
    if server is None or not good or server.requests != len(good):
        return []
    network_s = server.round_trip_s or 0.0
    problems = []
    for name, theirs_s, end in (
        ("TTFT", server.ttft_mean_s, [row.first_token_s for row in good]),
        ("E2EL", server.e2el_mean_s, [row.last_token_s for row in good]),
    ):
        seen = [at - (row.sent_s or 0.0) for row, at in zip(good, end, strict=True) if at is not None]
        if theirs_s is None or len(seen) != len(good):
            continue
        ours_s = statistics.mean(seen)
        if ours_s - theirs_s > network_s + max(GAP_S, GAP_SHARE * ours_s):
            problems.append(f"a mean {name} of {1e3 * ours_s:.1f} ms where the server counts {1e3 * theirs_s:.1f} ms")
    if not problems:
        return []
    seen_s = f"Iteration {iteration.index}: the client saw {' and '.join(problems)}"
    sentence = f"{seen_s}; a round trip takes {1e3 * network_s:.1f} ms."
    return [Flag(code="server_client_gap", severity="warning", sentence=sentence)]


def token_flags(
    spec: Spec, requests: Sequence[Request], iteration: Iteration, rows: Sequence[SequenceRow]
) -> list[Flag]:
    """A flag where what came back is not what was asked for; requests that failed are told of elsewhere."""
    wrong_prompt, wrong_output = [], []
    for request, row in zip(requests, rows, strict=True):
        if row.failed:
            continue
        if row.prompt_tokens != len(request.prompt_token_ids):
            wrong_prompt.append((row.prompt_tokens, len(request.prompt_token_ids)))
        exact = spec.workload.ignore_eos
        if not (0 < row.output_tokens <= request.output_tokens) or (
            exact and row.output_tokens != request.output_tokens
        ):
            wrong_output.append((row.output_tokens, request.output_tokens))
    problems = [
        f"{len(wrong)} sequences with other {what} counts than asked (the first {wrong[0][0]} instead of {wrong[0][1]})"
        for what, wrong in (("prompt token", wrong_prompt), ("output token", wrong_output))
        if wrong
    ]
    if not problems:
        return []
    # Text tokenizes as it likes, and another's server may not know ignore_eos: the counts are right, the load is not.
    loose = spec.endpoint is not None or (spec.load is not None and not spec.load.token_ids and not wrong_output)
    sentence = f"Iteration {iteration.index} brought {'; '.join(problems)}."
    return [Flag(code="token_count", severity="warning" if loose else "invalid", sentence=sentence)]
