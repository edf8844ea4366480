"""Sentence and column on the accepted length from which speculative decoding pays."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from rollout_bench.analysis.timed.answers import compared_rows
from rollout_bench.analysis.timed.drafting import TAIL, BreakEven, break_evens
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.report.views import Column

NOT_REAL = "accepted by chance, so the text is not real"


def pays_sentences(others: Sequence[Row], confidence: float, name: Callable[[Row], str]) -> Iterator[str]:
    """Yield a sentence on each kind of drafts among `others`, which share a baseline; `name` returns that of a row."""
    ends = {each.rows[0].experiment.place: each for each in break_evens(others, confidence, TAIL)}
    for found in break_evens(others, confidence):
        drafts, measured = found.drafts, [_length(row.values.get("tokens_per_draft")) for row in found.rows]
        limit = "" if drafts.tokens is None else f", {drafts.tokens} tokens"
        text = f"{', '.join(map(name, found.rows))}: drafts ({drafts.method}{limit}) {_from(found)}"
        here = f"here it was {', '.join(measured)}" if found.share else "here no step had a draft"
        if 0 < found.share < 1:
            here += f", in {number(100 * found.share, 2)} % of the steps"
        end = ends.get(found.rows[0].experiment.place)
        # real drafts may be accepted otherwise at the end, of which nothing is known
        tail = f"; from t90 on, they {_from(end)}" if end and drafts.rates else ""
        yield f"{text}{tail}; {here}{f' ({NOT_REAL})' if drafts.rates else ''}."


def _from(found: BreakEven) -> str:
    if found.unknown:
        return "pay from an accepted length on that is not known"
    ends = _ends(found)
    if found.never:
        most = (found.drafts.tokens or 0) + 1
        return f"cannot pay: they need an accepted length of {ends} tokens per step, and {most} is the highest"
    if found.always:
        return f"pay at any accepted length: break-even at {ends} tokens per step"
    return f"pay from an accepted length of {ends} tokens per step {'with a draft ' if found.share < 1 else ''}on"


def _ends(found: BreakEven) -> str:
    """Return the estimate and its interval; unless drafts always or never pay, a step can have these lengths."""
    at, low, high = map(_length, (found.at, found.low, found.high))
    if not (found.always or found.never):
        most = math.inf if found.drafts.tokens is None else found.drafts.tokens + 1
        at, low = (_length(max(1, end)) for end in (found.at, found.low))
        at, high = (text if end <= most else "never" for text, end in ((at, found.at), (high, found.high)))
    return f"{at} [{low}, {high}]"


def _length(value: float | None) -> str:
    return number(value, 3)


def break_even_column(rows: Sequence[Row], confidence: float) -> Column[Row]:
    """Return the column of the accepted length from which the drafts of each of `rows` pay."""
    texts: Mapping[str, str] = {
        row.experiment.place: _ends(found)
        for _, others in compared_rows(rows)
        for found in break_evens(others, confidence)
        if not found.unknown
        for row in found.rows
    }
    return Column(
        "pays from",
        "Accepted length from which drafts pay, with its interval, where the baseline has none: the accepted length "
        "divided by the speed-up, because a step costs the same whatever it accepts. If rows differ only in a "
        "synthetic acceptance, it is interpolated between the two on both sides of a speed-up of 1. From one length, "
        "if prefill is a share p of the baseline's time, it is too near to that length by p of their distance. Of "
        "n-grams and suffixes it is the length of steps with a draft.",
        lambda row: texts.get(row.experiment.place, MISSING),
    )
