"""The tables of messages mode: share of a step, links, and contents of messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from rollout_bench.analysis.inside.message_links import LinkUse, MessagesRun, exchanges, link_uses
from rollout_bench.analysis.inside.message_shares import RunShares, StepShare, run_shares
from rollout_bench.contracts.messages import Link
from rollout_bench.contracts.modes import MESSAGES
from rollout_bench.core.numbers import MISSING, count, number, percent
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.views import LAUNCHES, Column, Entry, View, view


def _whole(value: float | None) -> str:
    return MISSING if value is None else count(round(value))


def _link(link: Link) -> str:
    return link.replace("_", " ")


def _parts(use: LinkUse) -> str:
    known = sorted(use.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{part.replace('_', ' ')} {_whole(size)}" for part, size in known if size) or MISSING


WORKERS = Column[object]("TP", "Tensor parallel size: the number of workers.")

SLOWEST = Column[StepShare](
    "slowest %",
    "The same share at the slowest worker. A step waits for it only if the workers wait for one another.",
    lambda step: _percent(step, "slowest"),
)

SHARE: tuple[Column[StepShare], ...] = (
    LAUNCHES,
    WORKERS,
    Column("batch", "Number of sequences in the pass.", lambda step: str(step.batch)),
    Column(
        "step ms",
        "Time of a decode step, in milliseconds: median over steps, mean over launches.",
        lambda step: number(1e3 * step.estimated("step_s").value, 3),
    ),
    Column(
        "engine us",
        "Encoding, transport and decoding of the messages between core and workers in a decode step, in "
        "microseconds, at the worker that answers. It excludes the time in which a reader was busy. Median over "
        "steps, mean over launches.",
        lambda step: number(1e6 * step.estimated("engine_s").value, 3),
    ),
    Column(
        "engine %",
        "Engine us as a share of the step, with its interval over launches.",
        lambda step: _percent(step, "engine"),
    ),
    SLOWEST,
    Column(
        "front end %",
        "Messages between front end and core, as a share of the step. Other threads and another process spend "
        "this time while the engine continues.",
        lambda step: _percent(step, "front_end"),
    ),
)
"""Columns on the share of messages in a decode step."""

LINK: tuple[Column[LinkUse], ...] = (
    Column("batch", "Number of sequences in the pass.", lambda use: str(use.batch)),
    Column("phase", "Phase of the steps: prefill, decode or mixed.", lambda use: use.phase, words=True),
    Column("link", "Sender and receiver.", lambda use: _link(use.link), words=True),
    Column("messages a step", "Number of messages in a step; median over steps.", lambda use: _whole(use.messages)),
    Column("bytes a step", "Bytes of all messages of a step; median over steps.", lambda use: _whole(use.size_bytes)),
    Column(
        "distance",
        "Distances to the previous messages, in bytes per step; median over steps.",
        lambda use: _whole(use.distance),
    ),
    Column(
        "us a step",
        "Encoding, transport and decoding of a step's messages, in microseconds; median over steps of all "
        "launches. It excludes the time in which a reader was busy. With several workers, the times are from the "
        "worker that answers.",
        lambda use: number(1e6 * use.busy_s, 3),
    ),
    Column(
        "share %",
        "Share of the step: us a step / step time; median over steps.",
        lambda use: number(100 * use.share, 2),
    ),
)
"""Columns on the messages of a link."""

CONTENT: tuple[Column[LinkUse], ...] = (
    *LINK[:3],
    LINK[4],
    Column(
        "already sent",
        "Bytes in runs of 8 or more that are also in the previous messages.",
        lambda use: _whole(use.repeated_bytes),
    ),
    Column(
        "bytes by field",
        "Bytes of each field, largest first, without empty fields.",
        _parts,
        words=True,
    ),
    Column(
        "pickle5",
        "Bytes of the same messages, pickled (protocol 5).",
        lambda use: _whole(use.formats.get("pickle5")),
    ),
    Column(
        "msgpack",
        "Bytes of the same messages in msgpack, as arrays without field names.",
        lambda use: _whole(use.formats.get("msgpack")),
    ),
    Column(
        "difference",
        "Compressed bytes of the difference to the previous messages: the size of a message to a reader that "
        "keeps them.",
        lambda use: _whole(use.difference_bytes),
    ),
    Column(
        "difference us",
        "Making and applying the difference, in microseconds: the best of three.",
        lambda use: number(None if use.difference_s is None else 1e6 * use.difference_s, 3),
    ),
    Column(
        "coding us",
        "Encoding and decoding the unchanged messages, in microseconds: the maximum saving by a difference.",
        lambda use: number(1e6 * use.coding_s, 3),
    ),
)
"""Columns on the contents of messages and on alternative encodings."""


def messages_part(findings: Findings) -> SummaryPart:
    """Return the answer, the tables of each platform, the definitions of their columns, and the files for programs."""
    inside, confidence = findings.inside, findings.collection.comparison.confidence
    runs = inside.messages
    shares = run_shares(runs, confidence)
    tables = messages_views(findings)
    if not tables:
        return SummaryPart()
    steps = steps_table(runs)
    said = sections(
        MESSAGES.name,
        shares=shares,
        share=_share_text,
        confidence=confidence,
        pickled=next((launch.record.pickled_bytes for run in runs for launch in run.launches), {}),
        gains=[gain for each in shares if (gain := _gain(each)) is not None],
    )
    return SummaryPart(
        tables=tables,
        answers=said[:1] if shares else (),
        sections=said[1:] if shares else said,
        definitions=definitions("Messages", tables),
        files={"messages.csv": messages_table(runs)} | ({} if steps.empty else {"message_steps.csv": steps}),
    )


def messages_views(findings: Findings) -> list[View]:
    """Return the tables of each platform."""
    runs, left_out = findings.inside.messages, findings.inside.left_out
    tables: list[View] = []
    for platform in dict.fromkeys(run.chosen.experiment.platform for run in runs):
        own = [run for run in runs if run.chosen.experiment.platform == platform]
        without: list[Entry[Any]] = [
            Entry(findings.texts_of(each))
            for each in left_out
            if each.experiment.mode == MESSAGES.name and each.experiment.platform == platform
        ]
        title = f"messages, {platform}"
        shares = [
            Entry({**findings.texts_of(each.run.chosen), WORKERS.header: str(each.run.workers)}, step)
            for each in run_shares(own, findings.collection.comparison.confidence)
            for step in each.steps
        ]
        several = any(run.workers > 1 for run in own)
        columns = [column for column in SHARE if several or column is not SLOWEST]
        uses = [(run, Entry(findings.texts_of(run.chosen), use)) for run in own for use in link_uses(run)]
        contents = [
            entry
            for run, entry in uses
            if entry.of and entry.of.batch == run.batches[-1] and entry.of.size_bytes is not None
        ]
        tables.append(view("Messages, share of a decode step: ", title, columns, [*shares, *without]))
        tables.append(view("Messages, by link: ", title, LINK, [*(entry for _, entry in uses), *without]))
        tables.append(view("Messages, what is in them at the largest batch: ", title, CONTENT, contents))
    return tables


def messages_table(runs: Sequence[MessagesRun]) -> pd.DataFrame:
    """Return a line for each experiment, batch size, phase and link; the columns end in their units."""
    lines = []
    for run in runs:
        for use in link_uses(run):
            lines.append(
                {
                    **_identity(run),
                    "batch": use.batch,
                    "phase": use.phase,
                    "link": use.link,
                    "launches": len(run.launches),
                    "steps": use.steps,
                    "messages_per_step": use.messages,
                    "step_bytes": use.size_bytes,
                    "repeated_bytes": use.repeated_bytes,
                    "distance_bytes": use.distance,
                    "difference_bytes": use.difference_bytes,
                    "difference_s": use.difference_s,
                    "busy_s": use.busy_s,
                    "slowest_s": use.slowest_s,
                    "coding_s": use.coding_s,
                    "step_share": use.share,
                    **{f"{part}_bytes": size for part, size in use.parts.items()},
                    **{f"{name}_bytes": size for name, size in use.formats.items()},
                }
            )
    return pd.DataFrame(lines)


def steps_table(runs: Sequence[MessagesRun]) -> pd.DataFrame:
    """Return bytes and distances at the smallest batch size of each experiment: a line for each step."""
    return pd.DataFrame(
        {**_identity(run), "batch": run.batches[0], "step": number, **vars(step)}
        for run in runs
        for number, step in enumerate(exchanges(run, run.batches[0]))
    )


def _identity(run: MessagesRun) -> dict[str, object]:
    experiment = run.chosen.experiment
    return {
        "platform": experiment.platform,
        "model": experiment.model,
        "quant": experiment.quant,
        "workload": experiment.workload,
        "setting": experiment.setting,
        "key": experiment.key,
        "tensor_parallel_size": run.workers,
    }


def _percent(step: StepShare, field: str) -> str:
    found = step.estimated(field)
    ends = "" if found.low is None else f" [{number(100 * found.low, 2)}, {number(100 * (found.high or 0), 2)}]"
    return number(100 * found.value, 2) + ends


def _share_text(step: StepShare, field: str) -> str:
    found = step.estimated(field)
    ends = "" if found.low is None else f" [{percent(found.low)}, {percent(found.high or 0)}]"
    return percent(found.value) + ends


def _gain(each: RunShares) -> dict[str, Any] | None:
    """Return the saving from differences at the largest batch size; None without such a step in the contents pass."""
    step = each.steps[-1]
    for use in _decode_uses(each.run, step.batch):
        if use.link == "core_to_workers" and use.size_bytes is not None and use.difference_bytes is not None:
            assert use.difference_s is not None
            saved_s = use.coding_s - use.difference_s
            return {
                "name": each.run.name,
                "batch": use.batch,
                "size_bytes": round(use.size_bytes),
                "difference_bytes": round(use.difference_bytes),
                "coding_s": use.coding_s,
                "difference_s": use.difference_s,
                "saved_s": saved_s,
                "saved_share": saved_s / step.estimated("step_s").value,
            }
    return None


def _decode_uses(run: MessagesRun, batch: int) -> Iterator[LinkUse]:
    return (use for use in link_uses(run) if use.batch == batch and use.phase == "decode")
