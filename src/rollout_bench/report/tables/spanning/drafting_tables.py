"""The table of speculative decoding: drafted and accepted tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.record import Drafting, Iteration
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.report.headings import Column, Line, View, tables_of, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions

ARGUMENT = "speculative_config"
"""The engine argument that enables speculative decoding."""


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
    Column(
        "method", "Drafting method, and maximum number of tokens per draft.", lambda line: line["method"], words=True
    ),
    Column(
        "drafts",
        "Number of drafts, counted per sequence, in all measured iterations of all valid launches.",
        lambda line: f"{line['drafts']:,d}",
    ),
    Column("drafted tokens", "Number of tokens in these drafts.", lambda line: f"{line['draft_tokens']:,d}"),
    _percent("accepted_share"),
    Column(
        "by position %",
        "Share of the drafts whose first, second, ... token was accepted.",
        lambda line: " / ".join(number(100 * share, 3) for share in line["by_position"]) or MISSING,
    ),
    Column(
        "tokens per draft",
        "Tokens per step with a draft: the accepted tokens, and one token that the model generates itself.",
        lambda line: number(line["tokens_per_draft"], 3),
    ),
    _percent("drafted_share"),
)


def drafting_part(findings: Findings) -> SummaryPart:
    """Return a line for each experiment with speculative decoding, and a file for programs.

    Both are empty if no valid launch has iterations with speculative decoding.
    """
    found = [(row, done) for row in findings.rows if (done := _drafted(row)) is not None]
    if not found:
        return SummaryPart()
    tables = _views(found)
    return SummaryPart(
        tables=tables,
        definitions=definitions("Definitions, speculative decoding", tables),
        files={"drafting.csv": pd.DataFrame(list(_saved(found)))},
    )


def _drafted(row: Row) -> Drafting | None:
    """Return the sum of drafts over all measured iterations of valid launches; None if any is unknown."""
    return Drafting.together([iteration.drafting for iteration in _measured(row)])


def _method_of(spec: Spec) -> str:
    """Return the engine's drafting method in a few words; empty without speculative decoding."""
    drafts = spec.engine.args.get(ARGUMENT)
    if not drafts:
        return ""
    method = drafts.get("method") or drafts.get("model") or "a model"
    tokens = drafts.get("num_speculative_tokens")
    return f"{method}, {tokens} tokens" if tokens else str(method)


def _measured(row: Row) -> list[Iteration]:
    return [i for record in row.experiment.records if record.valid for i in record.iterations if not i.warmup]


def _line(row: Row, done: Drafting) -> Line:
    return {
        **row.axes,
        "mode": row.experiment.mode,
        "platform": row.experiment.platform,
        "method": _method_of(row.experiment.records[0].spec),
        "drafts": done.drafts,
        "draft_tokens": done.draft_tokens,
        "accepted_tokens": done.accepted_tokens,
        "accepted_share": done.accepted_tokens / done.draft_tokens if done.draft_tokens else None,
        "by_position": [accepted / done.drafts for accepted in done.accepted_by_position] if done.drafts else [],
        "tokens_per_draft": 1 + done.accepted_tokens / done.drafts if done.drafts else None,
        "drafted_share": done.accepted_tokens / max(1, sum(iteration.output_tokens for iteration in _measured(row))),
    }


def _views(found: Sequence[tuple[Row, Drafting]]) -> list[View]:
    lines = [_line(row, done) for row, done in found]
    return [view("Speculative decoding: ", title, COLUMNS, group) for title, group in tables_of(lines)]


def _saved(found: Sequence[tuple[Row, Drafting]]) -> Iterator[Line]:
    for row, done in found:
        line = _line(row, done)
        by_position = line.pop("by_position")
        yield line | {f"accepted_share_{place}": share for place, share in enumerate(by_position, 1)}
