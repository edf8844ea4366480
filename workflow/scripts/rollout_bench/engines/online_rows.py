"""From what became of the requests of a pass to its iteration and its rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rollout_bench.plan.loads import LoadPoint
from rollout_bench.records.online import ServerUse
from rollout_bench.records.record import Iteration, SequenceRow
from rollout_bench.serving.target import Outcome, Pass
from rollout_bench.workloads.requests import Request


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
