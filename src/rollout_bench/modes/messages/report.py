"""The tables of messages mode: share of a step, and the messages of a step by batch, phase and way."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.timed.experiments import ResultSet, ValidExperiment
from rollout_bench.contracts.mode import Mode
from rollout_bench.core.numbers import MISSING, count, number, percent
from rollout_bench.modes.messages import MODE
from rollout_bench.modes.messages.links import (
    FormatUse,
    MessagesRun,
    MessageUse,
    StepShare,
    format_uses,
    message_of,
    message_runs,
    message_uses,
    step_shares,
)
from rollout_bench.modes.messages.record import FormatName, Way
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.views import LAUNCHES, Column, Entry, View, view

WAYS: dict[Way, str] = {"to_workers": "core to workers", "to_core": "back to core"}

WORKERS = Column[object]("TP", "Tensor parallel size: the number of workers.")

SHARE: tuple[Column[StepShare], ...] = (
    LAUNCHES,
    WORKERS,
    Column("batch", "Number of sequences in the pass.", lambda found: str(found.batch)),
    Column(
        "share %",
        "Pickling and unpickling of both messages of a decode step as a share of its time, with its interval over "
        "launches. Medians over steps, mean over launches.",
        lambda found: f"{number(100 * found.value, 2)}{_interval(found)}",
    ),
)


def _interval(found: StepShare) -> str:
    ends = [number(100 * end, 2) for end in found.ends]
    return f" [{', '.join(ends)}]" if ends else ""


def _fields(use: MessageUse) -> str:
    known = sorted(use.fields.items(), key=lambda field: -field[1])[:3]
    return ", ".join(f"{name} {count(round(size))}" for name, size in known) or MISSING


USES: tuple[Column[MessageUse], ...] = (
    WORKERS,
    Column("batch", "Number of sequences in the pass.", lambda use: str(use.batch)),
    Column("phase", "Phase of the steps: prefill, decode or mixed.", lambda use: use.phase, words=True),
    Column("way", "Sender and receiver.", lambda use: WAYS[use.way], words=True),
    Column("bytes a step", "Bytes of the message; median over steps.", lambda use: count(round(use.size_bytes))),
    Column(
        "distance",
        "Distance to the message of the previous step, in bytes; median over steps.",
        lambda use: MISSING if use.distance is None else count(round(use.distance)),
    ),
    Column(
        "coding us",
        "Pickling and unpickling the message, in microseconds, each as the best of three; median over steps.",
        lambda use: number(1e6 * use.coding_s, 3),
    ),
    Column(
        "broadcast us",
        "A broadcast of as many bytes among the workers by torch.distributed (gloo or NCCL), in microseconds; median "
        "over steps.",
        lambda use: MISSING if use.broadcast_s is None else number(1e6 * use.broadcast_s, 3),
    ),
    Column(
        "of step %",
        "Coding us as a share of the step, which was timed in another pass without looking at messages.",
        lambda use: number(100 * use.share, 2),
    ),
    Column(
        "largest fields",
        "Bytes of the largest fields of vLLM's SchedulerOutput or ModelRunnerOutput, each pickled by itself.",
        _fields,
        words=True,
    ),
)


FORMATS: dict[FormatName | None, str] = {
    None: "pickle, as vLLM sends it",
    "pickle_values": "pickle, values without names",
    "msgpack_values": "msgpack, values without names",
    "msgpack_vllm": "msgpack of vLLM's front end",
    "pickle_changes": "pickle, changed fields only",
}

COSTS: tuple[Column[FormatUse], ...] = (
    WORKERS,
    Column("batch", "Number of sequences in the pass.", lambda use: str(use.batch)),
    Column(
        "format",
        "Format of both messages of a decode step, computed after the pass from the messages that were sent. Names are "
        "those of classes and fields. For all but the first, times are estimates: names are left out in Python, which "
        "is slow; decoding gives values, not vLLM's objects; the changed fields were known.",
        lambda use: FORMATS[use.name],
        words=True,
    ),
    *(
        Column[FormatUse](
            f"bytes a step, {text}",
            f"Bytes of the message {text}; median over steps.",
            lambda use, way=way: count(round(use.size_bytes[way])),  # type: ignore[misc]
        )
        for way, text in WAYS.items()
    ),
    Column(
        "encode + decode us",
        "Encoding and decoding both messages, in microseconds, each as the best of three; median over steps.",
        lambda use: number(1e6 * use.coding_s, 3),
    ),
    Column("of a step %", "Encode + decode as a share of the step.", lambda use: number(100 * use.share, 2)),
)


def analyse(results: Path, inside: Sequence[ValidExperiment], collection: ResultSet) -> tuple[MessagesRun, ...]:
    """Return the runs of the experiments `inside`."""
    return tuple(message_runs(inside))


def found_in(findings: Findings) -> tuple[MessagesRun, ...]:
    """Return the runs in `findings`."""
    return findings.results_of_mode(MODE.name, ())


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the answer, the tables of each platform, the definitions of their columns, and the files for programs."""
    runs, confidence = found_in(findings), findings.collection.comparison.confidence
    if not runs:
        return SummaryPart()
    tables = messages_views(findings)
    texts = sections(
        f"{mode.name}/report",
        shares=[(run, shares) for run in runs if (shares := step_shares(run, confidence))],
        share=_share_text,
        confidence=confidence,
        pickled=runs[0].launches[0].pickled_bytes,
    )
    return SummaryPart(
        tables=tables,
        answers=texts,
        definitions=definitions("Messages", tables),
        files={"messages.csv": messages_table(runs), "message_steps.csv": steps_table(runs)},
    )


def messages_views(findings: Findings) -> list[View]:
    """Return the tables of each platform."""
    runs = found_in(findings)
    tables: list[View] = []
    confidence = findings.collection.comparison.confidence
    for platform in dict.fromkeys(run.valid.experiment.platform for run in runs):
        texts = [
            (run, {**findings.texts_of(run.valid), WORKERS.header: str(run.workers)})
            for run in runs
            if run.valid.experiment.platform == platform
        ]
        shares = [Entry(names, share) for run, names in texts for share in step_shares(run, confidence)]
        shares += [
            Entry(findings.texts_of(each))
            for each in findings.left_out
            if each.experiment.mode == MODE.name and each.experiment.platform == platform
        ]
        uses = [Entry(names, use) for run, names in texts for use in message_uses(run)]
        title = f"messages, {platform}"
        tables.append(view("Messages, share of a decode step: ", title, SHARE, shares))
        tables.append(view("Messages of a step: ", title, USES, uses))
        costs = [Entry(names, use) for run, names in texts for use in format_uses(run)]
        tables.append(view("What would each format cost? ", title, COSTS, costs))
    return tables


def messages_table(runs: Sequence[MessagesRun]) -> pd.DataFrame:
    """Return a line for each experiment, batch size, phase and way; the columns end in their units."""
    return pd.DataFrame(
        {
            **_identity(run),
            "batch": use.batch,
            "phase": use.phase,
            "way": use.way,
            "steps": use.steps,
            "step_bytes": use.size_bytes,
            "distance_bytes": use.distance,
            "coding_s": use.coding_s,
            "broadcast_s": use.broadcast_s,
            "step_share": use.share,
            **{f"{name}_bytes": size for name, size in use.fields.items()},
        }
        for run in runs
        for use in message_uses(run)
    )


def steps_table(runs: Sequence[MessagesRun]) -> pd.DataFrame:
    """Return bytes and distances at the smallest batch size of each experiment's first launch: a line for each step."""
    return pd.DataFrame(
        {**_identity(run), "batch": step.batch, "step": step.index}
        | {f"{way}_bytes": message_of(step, way).size_bytes for way in WAYS}
        | {f"{way}_distance_bytes": message_of(step, way).distance for way in WAYS}
        for run in runs
        for step in run.launches[0].steps
        if (step.purpose, step.batch) == ("contents", run.batches[0])
    )


def _identity(run: MessagesRun) -> dict[str, object]:
    experiment = run.valid.experiment
    names = ("platform", "model", "quant", "workload", "setting", "key")
    return {name: getattr(experiment, name) for name in names} | {"tensor_parallel_size": run.workers}


def _share_text(found: StepShare) -> str:
    ends = f" [{', '.join(map(percent, found.ends))}]" if found.ends else ""
    return percent(found.value) + ends
