"""The record of an online launch."""

import re
import statistics
from collections import Counter
from collections.abc import Sequence

from rollout_bench.contracts.failures import SERVER_GONE
from rollout_bench.contracts.record import EngineFacts, Flag, Iteration, SequenceRow
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import number
from rollout_bench.measure.launch.flags import LATE_P99_S, client_flags, invalid
from rollout_bench.measure.launch.recorder import Measurement


class Collector(Measurement):
    """Collects the iterations of a launch behind a server."""

    def doubts(self, facts: EngineFacts, log: str) -> list[Flag]:
        """Return the flags that need the whole launch."""
        measured = [iteration for iteration in self.iterations if not iteration.warmup]
        return [*super().doubts(facts, log), *load_flags(measured, self.sequences)]


def load_flags(measured: Sequence[Iteration], sequences: Sequence[SequenceRow]) -> list[Flag]:
    """Return the flags of the requests of each load; of a sweep they name their load, unless no load is valid."""
    flags_of: dict[str, list[Flag]] = {}
    for label, iterations in grouped((it.point.label if it.point else "", it) for it in measured).items():
        counted = {iteration.index for iteration in iterations}
        rows = [row for row in sequences if row.iteration in counted]
        failed = failure_flags(rows)
        is_gone = any(flag.code == SERVER_GONE for flag in failed)  # and nothing else says anything of its load
        of_sender = [] if is_gone else [*cut_flags(rows), *client_flags(iterations), *sent_late_flags(rows)]
        flags_of[label] = [*failed, *of_sender]
    whole = all(any(flag.severity == "invalid" for flag in flags) for flags in flags_of.values())
    alone = whole or len(flags_of) < 2
    return [
        flag if alone else flag.model_copy(update={"load": label})
        for label, flags in flags_of.items()
        for flag in flags
    ]


FAILED_SHARE = 0.01
"""Share of failed requests above which a launch is invalid: the other requests had less competition."""


def failure_flags(rows: Sequence[SequenceRow]) -> list[Flag]:
    """Return a flag if requests failed, with the most frequent error."""
    errors = Counter(row.error for row in rows if row.error is not None)
    if not errors:
        return []
    often, times = errors.most_common(1)[0]
    failed = errors.total()
    share = failed / len(rows)
    if share > FAILED_SHARE and (lost := _lost_in_words(rows, failed)):
        return [invalid(SERVER_GONE, lost)]
    sentence = (
        f"{failed} of {len(rows)} measured requests failed ({number(100 * share, 2)} %), {times} of them with: {often}"
    )
    return [Flag(code="requests_failed", severity="invalid" if share > FAILED_SHARE else "warning", sentence=sentence)]


REFUSED = re.compile(r"connection refused|connect call failed|connection attempts failed", re.IGNORECASE)
"""Errors of requests to an address where no server is, in our words and those of other harnesses."""

LOST = re.compile(
    rf"{REFUSED.pattern}|connection (was )?reset|server disconnected|peer closed|the server closed the connection|"
    "^the answer broke off",
    re.IGNORECASE,
)
"""Errors of requests whose server may have gone away; an overloaded one may also close some connections."""

LOST_SHARE = 0.5
"""Share of the failed requests that a server which went away must have lost; without a refusal, of all requests."""


def _lost_in_words(rows: Sequence[SequenceRow], failed: int) -> str:
    """Return how the server of `rows` went away, `failed` of which failed; empty if it did not."""
    lost = [row.error for row in rows if row.error and row.status in (None, 200) and LOST.search(row.error)]
    refused = sum(bool(REFUSED.search(error)) for error in lost)
    if len(lost) < LOST_SHARE * (failed if refused else len(rows)):
        return ""
    if refused == len(rows):
        return "Nothing listened any more when the load began."
    how = f"to {refused} nothing listened any more" if refused else f"of {len(lost)} the connection was closed"
    return f"{failed} of {len(rows)} measured requests failed: {how}."


CUT_SHARE = 0.1
"""Share of requests cut at the end of the load above which latencies favour short requests."""


def cut_flags(rows: Sequence[SequenceRow]) -> list[Flag]:
    """Return a flag if many requests were cut because the load's time was over."""
    cut = sum(row.cut_s is not None for row in rows)
    if not cut or cut <= CUT_SHARE * len(rows):
        return []
    share = (
        f"{cut} of {len(rows)} measured requests were cut at the end of the time ({number(100 * cut / len(rows), 2)} %)"
    )
    if not any(row.complete for row in rows):
        return [invalid("cut_at_end", f"{share}: none came to its end, so no latency is known.")]
    sentence = (
        f"{share}: latencies are of those that came to their end before, the shorter ones rather than the longer."
    )
    return [Flag(code="cut_at_end", severity="warning", sentence=sentence)]


LATE_SHARE = 0.1
"""Largest allowed 99th percentile of lateness, as a share of a usual request, if that is more than `LATE_P99_S`."""


def sent_late_flags(rows: Sequence[SequenceRow]) -> list[Flag]:
    """Return a flag if requests were sent so late that the load differs from the requested load."""
    late_s = sorted(row.sent_s - row.due_s for row in rows if row.sent_s is not None and row.due_s is not None)
    answered_s = [
        (row.last_token_s if row.first_token_s is None else row.first_token_s) - row.sent_s
        for row in rows
        if not row.failed and row.sent_s is not None and row.last_token_s is not None
    ]
    if not late_s or not answered_s:
        return []
    p99_s, usual_s = late_s[int(0.99 * (len(late_s) - 1))], statistics.median(answered_s)
    if p99_s <= max(LATE_P99_S, LATE_SHARE * usual_s):
        return []
    sentence = (
        f"One request in a hundred was sent {1e3 * p99_s:.1f} ms later than due, or more, where the median answer "
        f"begins after {1e3 * usual_s:.1f} ms: they did not arrive as the load says."
    )
    return [Flag(code="sent_late", severity="warning", sentence=sentence)]
