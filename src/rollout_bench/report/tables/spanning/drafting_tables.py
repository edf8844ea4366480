"""The tables of speculative decoding: what was drafted, what was accepted, and with how many sequences it pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from rollout_bench.analysis.speculation.draft_gains import (
    DraftGain,
    GainCourse,
    Over,
    compared_with_plain,
    courses_of,
    drafted,
    method_of,
)
from rollout_bench.analysis.timed.comparison import Verdict
from rollout_bench.analysis.timed.precision import stop_of
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Drafting
from rollout_bench.core.numbers import MISSING, number, ratio
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import Column, Line, View, interval_text, tables_of, verdict_text, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections

MOST = 6
"""Sentences; the table has all."""


def _percent(field: str) -> Column:
    header, definition = _SHARES[field]
    return Column(
        header, definition, lambda line: MISSING if line[field] is None else number(100 * line[field], 3), known=field
    )


_SHARES = {
    "accepted_share": (
        "accepted %",
        "Share of the drafted tokens that the model accepted, over all measured iterations of all valid launches.",
    ),
    "drafted_share": ("from drafts %", "Accepted tokens as a share of the output tokens."),
}

COLUMNS = (
    Column("method", "How tokens are drafted, and how many at once, at most.", lambda line: line["method"], words=True),
    Column(
        "drafts",
        "How often tokens were drafted for a sequence, in all measured iterations of all valid launches.",
        lambda line: f"{line['drafts']:,d}",
    ),
    Column("drafted tokens", "Tokens of these drafts.", lambda line: f"{line['draft_tokens']:,d}"),
    _percent("accepted_share"),
    Column(
        "by position %",
        "Drafts of which the first, the second, ... token was accepted, as a share of all drafts.",
        lambda line: " / ".join(number(100 * share, 3) for share in line["by_position"]) or MISSING,
    ),
    Column(
        "tokens per draft",
        "Tokens that a step with a draft gives: those accepted, and the one that the model generates itself.",
        lambda line: number(line["tokens_per_draft"], 3),
    ),
    _percent("drafted_share"),
)


@dataclass(frozen=True)
class Speculation:
    """Whether speculative decoding pays for an experiment.

    Attributes:
        name: the experiment.
        method: how tokens are drafted.
        accepted: share of the drafted tokens that was accepted; None where nothing was drafted.
        from_drafts: accepted tokens as a share of the output tokens.
        other: what it is compared with, which decodes without; empty where there is nothing of that kind.
        speed: its output tok/s over the other's, with its interval as tables have it.
        verdict: on that.
    """

    name: str
    method: str
    accepted: float | None
    from_drafts: float
    other: str
    speed: str
    verdict: Verdict | None


@dataclass(frozen=True)
class WhereItPays:
    """Where speculative decoding pays, in words; empty where a word has nothing to say.

    Attributes:
        name: the experiment, without its load where that has several sizes.
        over: what the number of sequences is of.
        pays: up to how many sequences, or at which numbers of them.
        costs: the same of where it costs more than it saves.
        rest: where neither is known.
        share: of the engines' time, in %, that steps take in which it pays; in a step only.
    """

    name: str
    over: Over
    pays: str
    costs: str
    rest: str
    share: str


def drafting_part(findings: Findings) -> SummaryPart:
    """Return where it pays, a sentence and a line on each experiment whose engine drafts, and files for programs.

    Nothing where no valid launch has passes with speculative decoding.
    """
    found = [(row, done) for row in findings.rows if (done := drafted(row)) is not None]
    if not found:
        return SummaryPart()
    courses = courses_in(findings)
    tables = [*_gain_views(courses, findings.collection.comparison), *_views(found)]
    said = [_speculation(row, done) for row, done in found]
    made = sections(
        "drafting", found=said[:MOST], more=max(0, len(said) - MOST), courses=list(map(where_it_pays, courses))[:MOST]
    )
    gains = pd.DataFrame([saved for course in courses for saved in _saved_gains(course)])
    return SummaryPart(
        answers=made,
        tables=tables,
        definitions=definitions("Definitions, speculative decoding", tables),
        files={"drafting.csv": pd.DataFrame(list(_saved(found)))}
        | ({} if gains.empty else {"drafting_gains.csv": gains}),
    )


def courses_in(findings: Findings) -> list[GainCourse]:
    """Return what drafting gains by the number of sequences, as far as that was measured."""
    collection = findings.collection
    settings, precision = collection.comparison, collection.precision
    return courses_of(findings.rows, settings, None if precision is None else stop_of(precision, settings.confidence))


def _times(gain: DraftGain) -> str:
    assert gain.comparison.speedup is not None, "has a comparison"
    return f"{ratio(gain.comparison.speedup)}x{interval_text(gain.comparison)}"


def sizes_of(gain: DraftGain) -> str:
    """Return for how many sequences a gain holds: `8`, `5 to 8`."""
    return f"{gain.low:,d}" if gain.low == gain.high else f"{gain.low:,d} to {gain.high:,d}"


def where_it_pays(course: GainCourse) -> WhereItPays:
    """Return up to how many sequences drafting pays, and from how many on it costs, where that is how they lie."""
    gains = course.gains
    pays = [gain for gain in gains if gain.comparison.verdict == "faster"]
    costs = [gain for gain in gains if gain.comparison.verdict == "slower"]
    rest = [gain for gain in gains if gain not in pays and gain not in costs]
    return WhereItPays(
        name=_course_name(course),
        over=course.over,
        pays=_range_of(pays, list(gains[: len(pays)]), len(gains), "up to", "high"),
        costs=_range_of(costs, list(gains[len(gains) - len(costs) :]), len(gains), "from", "low"),
        rest=" and ".join(filter(None, [", ".join(map(sizes_of, rest[:-1])), *map(sizes_of, rest[-1:])])),
        share=number(100 * sum(gain.share or 0 for gain in pays), 2) if pays and course.over == "tail" else "",
    )


def _range_of(some: list[DraftGain], end: list[DraftGain], every: int, word: str, edge: str) -> str:
    """Return where `some` gains lie: at one `end` of the course, at all of its sizes, or here and there."""
    if not some:
        return ""
    if len(some) == every and every > 1:
        return f"at every number measured, {_told(some[0])} to {_told(some[-1])}"
    if some == end:
        outer = some[-1] if word == "up to" else some[0]
        return f"{word} {getattr(outer, edge):,d}{' on' if word == 'from' else ''} ({_times(outer)})"
    return f"at {', '.join(map(_told, some))}"


def _told(gain: DraftGain) -> str:
    return f"{sizes_of(gain)} ({_times(gain)})"


def _course_name(course: GainCourse) -> str:
    own = course.row.experiment
    if course.over == "tail":
        return course.row.name
    return f"{own.model} {course.row.label}, {own.mode}"


_SEQUENCES = {
    "batch": Column(
        "sequences at once",
        "Sequences that one engine decodes at once, at most: those of the load, as far as max_num_seqs allows.",
        lambda line: line["sequences"],
    ),
    "tail": Column(
        "sequences left",
        "Sequences that one engine decoded in a step, of which there are fewer and fewer towards the end of a rollout. "
        "Steps that computed prompts are left out.",
        lambda line: line["sequences"],
    ),
}

_OF_ONE = {"batch": "", "tail": " of a sequence"}


def _gain_columns(over: Over, settings: ComparisonSettings) -> tuple[Column, ...]:
    rate = "Output tokens per second"
    if over == "tail":
        rate += " of one sequence in these steps, on the front end's clock"
    return (
        _SEQUENCES[over],
        Column(
            f"plain tok/s{_OF_ONE[over]}",
            f"{rate}, without drafts: mean over launches.",
            lambda line: number(line["plain_rate"]),
        ),
        Column(f"tok/s{_OF_ONE[over]}", f"{rate}, with drafts: mean over launches.", lambda line: number(line["rate"])),
        Column(
            "speed-up by drafts",
            "Their ratio, of each pair of launches, and of these the geometric mean; then the verdict, and in brackets "
            "the interval.",
            lambda line: (
                f"{ratio(line['comparison'].speedup)}x {verdict_text(line['comparison'], settings)}"
                f"{interval_text(line['comparison'])}"
            ),
            words=True,
        ),
        _percent("accepted_share"),
        Column(
            "of the time %",
            "Share of the engines' time that such steps took, with drafts.",
            lambda line: number(100 * line["time_share"], 3),
            known="time_share",
        ),
    )


def _gain_views(courses: Sequence[GainCourse], settings: ComparisonSettings) -> Iterator[View]:
    kinds: dict[Over, str] = {
        "batch": "Speculative decoding over the batch: ",
        "tail": "Speculative decoding as a step ends: ",
    }
    for over, kind in kinds.items():
        lines = [line for course in courses if course.over == over for line in _gain_lines(course)]
        for title, group in tables_of(lines):
            yield view(kind, title, _gain_columns(over, settings), group)


def _gain_lines(course: GainCourse) -> Iterator[Line]:
    for gain in course.gains:
        yield {
            **gain.row.axes,
            "mode": course.row.experiment.mode,
            "platform": course.row.experiment.platform,
            "sequences": sizes_of(gain),
            "plain_rate": gain.rates[0],
            "rate": gain.rates[1],
            "comparison": gain.comparison,
            "accepted_share": gain.accepted,
            "time_share": gain.share,
        }


def _saved_gains(course: GainCourse) -> Iterator[Line]:
    for gain, line in zip(course.gains, _gain_lines(course), strict=True):
        comparison = line.pop("comparison")
        line |= {"over": course.over, "sequences_low": gain.low, "sequences_high": gain.high}
        line |= {"speedup": comparison.speedup, "low": comparison.low, "high": comparison.high}
        del line["sequences"]
        yield line | {"verdict": comparison.verdict}


def _output_tokens(row: Row) -> int:
    return sum(iteration.output_tokens for launch in row.used for iteration in launch.passes)


def _line(row: Row, done: Drafting) -> Line:
    return {
        **row.axes,
        "mode": row.experiment.mode,
        "platform": row.experiment.platform,
        "method": method_of(row.experiment.records[0].spec),
        "drafts": done.drafts,
        "draft_tokens": done.draft_tokens,
        "accepted_tokens": done.accepted_tokens,
        "accepted_share": done.accepted_tokens / done.draft_tokens if done.draft_tokens else None,
        "by_position": [accepted / done.drafts for accepted in done.accepted_by_position] if done.drafts else [],
        "tokens_per_draft": 1 + done.accepted_tokens / done.drafts if done.drafts else None,
        "drafted_share": done.accepted_tokens / max(1, _output_tokens(row)),
    }


def _views(found: Sequence[tuple[Row, Drafting]]) -> list[View]:
    lines = [_line(row, done) for row, done in found]
    return [view("Speculative decoding: ", title, COLUMNS, group) for title, group in tables_of(lines)]


def _speculation(row: Row, done: Drafting) -> Speculation:
    line = _line(row, done)
    other, comparison = row.against.other, compared_with_plain(row)
    compared = comparison is not None and comparison.speedup is not None
    return Speculation(
        name=row.name,
        method=line["method"],
        accepted=line["accepted_share"],
        from_drafts=line["drafted_share"],
        other=f"{other.quant} {other.setting}" if compared and other is not None else "",
        speed=f"{ratio(comparison.speedup)}x{interval_text(comparison)}"
        if compared and comparison is not None and comparison.speedup is not None
        else "",
        verdict=comparison.verdict if compared and comparison is not None else None,
    )


def _saved(found: Sequence[tuple[Row, Drafting]]) -> Iterator[Line]:
    for row, done in found:
        line = _line(row, done)
        by_position = line.pop("by_position")
        yield line | {f"accepted_share_{place}": share for place, share in enumerate(by_position, 1)}
