"""The tables of messages mode: share of a step, the issue's steps, links, what is in messages, and their law."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from rollout_bench.analysis.inside.issue_6241 import (
    PICKLED_SAMPLING_PARAMETERS_BYTES,
    PROMPTS,
    THEN,
    Exchange,
    exchanges,
    repeats_issue,
)
from rollout_bench.analysis.inside.message_comparison import ComparedMessages, compared_messages
from rollout_bench.analysis.inside.message_laws import Coefficient, Law, link_laws
from rollout_bench.analysis.inside.message_links import LinkUse, MessagesRun, link_uses
from rollout_bench.analysis.inside.message_shares import MATTERS, Crossing, RunShares, StepShare, run_shares
from rollout_bench.analysis.timed.experiments import Chosen
from rollout_bench.contracts.messages import Link
from rollout_bench.contracts.modes import MESSAGES
from rollout_bench.core.numbers import MISSING, count, number, percent, ratio
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import LAUNCHES, Column, Line, View, interval_text, verdict_text, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections


def _of(header: str, definition: str, cell: Callable[[LinkUse], str], words: bool = False, known: str = "") -> Column:
    return Column(header, definition, lambda line: cell(line["use"]), words, known)


def _whole(value: float | None) -> str:
    return MISSING if value is None else count(round(value))


def _link(link: Link) -> str:
    return link.replace("_", " ")


WORKERS = Column("TP", "Tensor parallel size: the number of workers.", lambda line: str(line["workers"]))

SHARE = (
    LAUNCHES,
    WORKERS,
    Column("batch", "Sequences of the pass.", lambda line: str(line["step"].batch)),
    Column(
        "step ms",
        "A decode step, in milliseconds: median over steps, mean over launches.",
        lambda line: number(1e3 * line["step"].estimated("step_s").value, 3),
    ),
    Column(
        "engine us",
        "Encoding, transport and decoding of a decode step's messages between core and workers, in microseconds, at "
        "the worker that answers and without the time that a reader was busy: median over steps, mean over launches.",
        lambda line: number(1e6 * line["step"].estimated("engine_s").value, 3),
    ),
    Column(
        "engine %",
        "The same over the step, with its interval over launches.",
        lambda line: _percent(line["step"], "engine"),
    ),
    Column(
        "slowest %",
        "The same at the worker that took longest. A step waits for it only where the workers wait for one another.",
        lambda line: _percent(line["step"], "slowest"),
        known="several",
    ),
    Column(
        "front end %",
        "Messages of front end to core and back, over the step: other threads and another process spend this time "
        "while the engine goes on.",
        lambda line: _percent(line["step"], "front_end"),
    ),
)
"""What messages take of a decode step."""

LINK = (
    _of("batch", "Sequences of the pass.", lambda use: str(use.batch)),
    _of("phase", "What the steps computed.", lambda use: use.phase, words=True),
    _of("link", "Who sends to whom.", lambda use: _link(use.link), words=True),
    _of("messages a step", "Median over steps.", lambda use: _whole(use.messages)),
    _of("bytes a step", "Median over steps of the bytes of all its messages.", lambda use: _whole(use.size_bytes)),
    _of(
        "distance",
        "The same of the distances to the messages before, in bytes.",
        lambda use: _whole(use.distance),
    ),
    _of(
        "us a step",
        "Encoding, transport and decoding of a step's messages, in microseconds: median over steps of all launches. "
        "Without the time that a reader was busy; of several workers at the one that answers.",
        lambda use: number(1e6 * use.busy_s, 3),
    ),
    _of("share %", "The same over the step: median over steps.", lambda use: number(100 * use.share, 2)),
)
"""What a link carries."""

CONTENT = (
    *LINK[:3],
    LINK[4],
    _of(
        "already sent",
        "Of these, bytes in runs of 8 or more that the messages before have too.",
        lambda use: _whole(use.repeated_bytes),
    ),
    _of(
        "bytes by field",
        "What the bytes are for, the most first; fields without any are left out.",
        lambda use: _parts(use),
        words=True,
    ),
    _of(
        "pickle5",
        "Bytes of the same messages, pickled (protocol 5).",
        lambda use: _whole(use.formats.get("pickle5")),
        known="pickle5",
    ),
    _of(
        "msgpack",
        "Bytes of the same messages in msgpack, in arrays without names of fields.",
        lambda use: _whole(use.formats.get("msgpack")),
        known="msgpack",
    ),
    _of(
        "difference",
        "Bytes of what differs from the messages before, compressed: what a reader that remembers would be sent.",
        lambda use: _whole(use.difference_bytes),
    ),
    _of(
        "difference us",
        "Making and applying it, in microseconds: the best of three.",
        lambda use: number(None if use.difference_s is None else 1e6 * use.difference_s, 3),
    ),
    _of(
        "coding us",
        "Encoding and decoding the messages as they are, in microseconds: what a difference could save at most.",
        lambda use: number(1e6 * use.coding_s, 3),
    ),
)
"""What is in the messages, and what else they could be."""


def _law(header: str, definition: str, cell: Callable[[Law], str]) -> Column:
    return Column(header, definition, lambda line: cell(line["law"]))


LAW = (
    WORKERS,
    Column("link", "Who sends to whom.", lambda line: _link(line["link"]), words=True),
    _law("fixed", "Bytes of any step, with the interval of the fit.", lambda law: _coefficient(law.fixed)),
    _law("per sequence", "Bytes for each sequence of a step.", lambda law: _coefficient(law.per_sequence)),
    _law(
        "per new prompt token",
        "Bytes for each token of the prompts that a step begins, and of what else comes with a new request.",
        lambda law: _coefficient(law.per_prompt_token),
    ),
    _law("steps", "Steps that the law was fitted to, of all batches and launches.", lambda law: count(law.steps)),
    _law("typical miss", "Root mean square of bytes less law.", lambda law: number(law.rms_bytes, 2)),
    _law(
        "largest miss",
        "The largest deviation from the law, in bytes, with its batch and step.",
        lambda law: f"{law.worst_bytes:+,.0f} ({law.worst.batch}, step {law.worst.index})",
    ),
)
"""Bytes of a step by what is in it."""


def _steps(header: str, definition: str, cell: Callable[[Exchange], int | None]) -> tuple[Column, Column]:
    return (
        Column(f"{header} 2024", f"{definition}, in issue 6241.", lambda line: _whole(cell(line["then"]))),
        Column(f"{header} today", f"{definition}, here.", lambda line: _whole(cell(line["now"]))),
    )


STEP = (
    Column("step", "Number of the step, from 0.", lambda line: line["step"]),
    *_steps("input", "Bytes to the workers", lambda step: step.input_bytes),
    *_steps("output", "Bytes back", lambda step: step.output_bytes),
    *_steps("input distance", "Distance of the input to the step before, in bytes", lambda step: step.input_distance),
    *_steps(
        "output distance", "Distance of the output to the step before, in bytes", lambda step: step.output_distance
    ),
)
"""The issue's steps beside today's."""

COMPARED = (
    WORKERS,
    Column("batch", "Sequences of the pass.", lambda line: str(line["compared"].batch)),
    Column("baseline", "What it is compared with.", lambda line: line["compared"].baseline.run.name, words=True),
    Column(
        "messages' speed-up",
        "The baseline's engine us over its own, above 1 being faster: geometric mean of the pairs of launches with the "
        "same index, of earlier results of all launches; then the verdict, and in brackets the interval.",
        lambda line: line["verdict"],
        words=True,
    ),
)
"""The time of messages beside the baseline's."""


def messages_part(findings: Findings) -> SummaryPart:
    """Return the answer, the tables of each platform, what their columns mean, and the lines for programs."""
    inside, collection = findings.inside, findings.collection
    runs = inside.messages
    shares = run_shares(runs, collection.comparison.confidence)
    tables = messages_views(
        runs,
        inside.left_out,
        collection.comparison,
        collection.baseline,
        inside.messages_before,
        findings.launches,
    )
    if not tables:
        return SummaryPart()
    issues = [run for run in runs if repeats_issue(run)]
    steps = steps_table(runs)
    said = sections(
        MESSAGES.name,
        shares=shares,
        share=_share_text,
        place=_crossing_text,
        matters=MATTERS,
        confidence=collection.comparison.confidence,
        issues=[(run.name, len(THEN), _ranges(THEN), _ranges(list(exchanges(run, PROMPTS)))) for run in issues[:1]],
        pickled=next((launch.record.pickled_bytes for run in runs for launch in run.launches), {}),
        pickled_then=PICKLED_SAMPLING_PARAMETERS_BYTES,
        gains=[gain for each in shares if (gain := _gain(each)) is not None],
        laws=any(LAW[-1] in table.columns for table in tables),
    )
    return SummaryPart(
        tables=tables,
        answers=said[:1] if shares else (),
        sections=said[1:] if shares else said,
        definitions=definitions("Messages", tables),
        files={"messages.csv": messages_table(runs)} | ({} if steps.empty else {"message_steps.csv": steps}),
    )


def messages_views(
    runs: Sequence[MessagesRun],
    left_out: Sequence[Chosen] = (),
    settings: ComparisonSettings | None = None,
    baseline: dict[str, str] | None = None,
    before: Sequence[MessagesRun] = (),
    launches: Mapping[str, Line] | None = None,
) -> list[View]:
    """Return the tables of each platform.

    Args:
        runs: from `message_runs`.
        left_out: experiments, of any mode, without a valid launch.
        settings: of intervals and verdicts; their defaults where None.
        baseline: axis -> value, what others are compared with.
        before: what they are compared with instead where that names earlier results.
        launches: how many each experiment has, by its place.
    """
    settings = settings or ComparisonSettings()
    launches = launches or {}
    tables: list[View] = []
    for platform in dict.fromkeys(run.chosen.experiment.platform for run in runs):
        own = [run for run in runs if run.chosen.experiment.platform == platform]
        without = [
            {**_names(each), **launches.get(each.place, {}), "empty_because": each.reason}
            for each in left_out
            if each.experiment.mode == MESSAGES.name and each.experiment.platform == platform
        ]
        title = f"messages, {platform}"
        shares = run_shares(own, settings.confidence)
        several = True if any(run.workers > 1 for run in own) else None
        lines: list[Line] = [
            {
                **_names(each.run.chosen),
                **launches.get(each.run.chosen.place, {}),
                "workers": each.run.workers,
                "step": step,
                "several": several,
            }
            for each in shares
            for step in each.steps
        ]
        uses = [(run, use) for run in own for use in link_uses(run)]
        tables.append(view("Messages, share of a decode step: ", title, SHARE, lines, without))
        theirs = run_shares([run for run in before if run.chosen.experiment.platform == platform], settings.confidence)
        compared = compared_messages(shares, baseline or {}, settings, theirs)
        if compared:
            lines = [_compared_line(each, settings) for each in compared]
            tables.append(view("Messages beside the baseline: ", title, COMPARED, lines))
        tables += [_issue_view(title, run) for run in own if repeats_issue(run)][:1]
        lines = [{**_names(run.chosen), "use": use} for run, use in uses]
        tables.append(view("Messages, by link: ", title, LINK, lines, without))
        lines = [
            {**_names(run.chosen), "use": use, **use.formats}
            for run, use in uses
            if use.batch == run.batches[-1] and use.size_bytes is not None
        ]
        if lines:
            tables.append(view("Messages, what is in them at the largest batch: ", title, CONTENT, lines))
        lines = [
            {**_names(run.chosen), "workers": run.workers, "link": link, "law": law}
            for run in own
            for link, law in link_laws(run, settings.confidence)
        ]
        if lines:
            tables.append(view("Messages, law of their bytes: ", title, LAW, lines))
    return tables


def messages_table(runs: Sequence[MessagesRun]) -> pd.DataFrame:
    """Return a line for each experiment, batch, phase and link; the columns end in their units."""
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
    """Return what the issue measured, at the smallest batch of each experiment: a line for each step."""
    return pd.DataFrame(
        {**_identity(run), "batch": run.batches[0], "step": number, **vars(step)}
        for run in runs
        for number, step in enumerate(exchanges(run, run.batches[0]))
    )


def _identity(run: MessagesRun) -> Line:
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


def _names(each: Chosen) -> Line:
    _, model, workload = each.table
    return {"model": model, "workload": workload, "quant": each.label}


def _issue_view(title: str, run: MessagesRun) -> View:
    title = f"Messages, step by step as in vLLM's issue 6241: {title}, {run.name}, TP {run.workers}, batch {PROMPTS}"
    lines = [
        {"step": str(place), "then": then, "now": now}
        for place, (then, now) in enumerate(zip(THEN, exchanges(run, PROMPTS), strict=True))
    ]
    return View(title, STEP, tuple(tuple(column.cell(line) for column in STEP) for line in lines))


def _compared_line(each: ComparedMessages, settings: ComparisonSettings) -> Line:
    found = each.comparison
    text = MISSING if found.speedup is None else f"{ratio(found.speedup)}x "
    if found.verdict is not None:
        text += verdict_text(found, settings) + interval_text(found)
    run = each.shares.run
    return {**_names(run.chosen), "workers": run.workers, "compared": each, "verdict": text}


def _percent(step: StepShare, field: str) -> str:
    found = step.estimated(field)
    ends = "" if found.low is None else f" [{number(100 * found.low, 2)}, {number(100 * (found.high or 0), 2)}]"
    return number(100 * found.value, 2) + ends


def _share_text(step: StepShare, field: str) -> str:
    found = step.estimated(field)
    ends = "" if found.low is None else f" [{percent(found.low)}, {percent(found.high or 0)}]"
    return percent(found.value) + ends


def _crossing_text(found: Crossing) -> str:
    """Return a batch with its interval, whose ends are `<1` and `>128` beyond what the law is believed for."""
    if found.low is None or found.high is None:
        return number(found.batch, 2)
    low = "<1" if found.low < 1 else number(found.low, 2)
    high = f">{found.until}" if found.high > found.until else number(found.high, 2)
    return f"{number(found.batch, 2)} [{low}, {high}]"


def _coefficient(found: Coefficient) -> str:
    half = found.high - found.value
    return f"{number(found.value, 3)} ± {number(half, 2)}"


def _parts(use: LinkUse) -> str:
    known = sorted(use.parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{part.replace('_', ' ')} {_whole(size)}" for part, size in known if size) or MISSING


def _ranges(steps: Sequence[Exchange]) -> dict[str, str]:
    """Return the least and most in decode steps: of distances where the step before decodes too."""
    return {
        "input": _range([step.input_bytes for step in steps[1:]]),
        "output": _range([step.output_bytes for step in steps[1:]]),
        "input_distance": _range([step.input_distance for step in steps[2:]]),
        "output_distance": _range([step.output_distance for step in steps[2:]]),
    }


def _range(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    return count(known[0]) if min(known) == max(known) else f"{count(min(known))} to {count(max(known))}"


def _gain(each: RunShares) -> dict[str, Any] | None:
    """Return what differences would save at the largest batch; None where contents were not looked at."""
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
