"""Profiled experiments: records and traces read, and how many steps a pass takes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.experiments import Chosen, Collection, Selected, no_valid_launch
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.analysis.timed.service import at_a_rate
from rollout_bench.analysis.traces.categories import categorise
from rollout_bench.analysis.traces.events import read_events, write_events
from rollout_bench.analysis.traces.trace import read_traces
from rollout_bench.analysis.traces.trace_steps import step_times
from rollout_bench.contracts.axes import Table, names_of, table_of
from rollout_bench.contracts.inside import Phase, Profile, Step
from rollout_bench.contracts.metrics import MetricName
from rollout_bench.contracts.modes import OFFLINE, ONLINE, PROFILE
from rollout_bench.contracts.record import Iteration, Launched, Record, SequenceRow
from rollout_bench.contracts.side_files import known_sequences
from rollout_bench.contracts.store import operators_path, record_path, sequences_path, traces_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole

PHASES: tuple[Phase, ...] = ("prefill", "mixed", "decode")
"""In the order in which a pass goes through them."""

LINEAR, QUANTIZE, HOST_GAP, OTHER = "linear", "quantize", "host_gap", "other"

CATEGORIES = (
    LINEAR,
    QUANTIZE,
    "attention",
    "kv_cache",
    "norm",
    "activation",
    "rotary",
    "embedding",
    "sampling",
    "communication",
    "memory_copy",
    OTHER,
    HOST_GAP,
)
"""What an operator can be, in the order of tables and figures; `host_gap` is the time without any."""

ROLES = ("qkv", "o", "gate_up", "down", "lm_head", "router", "experts", "other")
"""Of linear layers, in the order of the model."""

Part = tuple[str, str]
"""Category and role, which is empty but for linear layers."""


@dataclass(frozen=True)
class MeasuredPass:
    """What a pass was like where it was measured, without any profiler.

    `elapsed_s` is its mean duration in seconds. `steps` are the engine's steps in it by phase.
    """

    elapsed_s: float
    steps: Mapping[Phase, float]


@dataclass(frozen=True, eq=False)
class ProfiledExperiment:
    """One profiled experiment.

    `place` is unique, `quant` the label that tables show. `baseline` is the place of what it is compared with, None
    where it is a baseline itself or has none. `events` are categorised, `times` what `step_times` makes of them, in
    microseconds. `measured` and `comparison` are those of the experiment of the same model, quant and workload that
    was measured: its pass, and its throughput over that of the baseline. Where it was and has no valid launch,
    `unmeasured` says so. `traces` is the folder of the traces relative to the summary, `warnings` what reading and
    categorising had to say.
    """

    platform: str
    model: str
    quant: str
    workload: str
    place: str
    record: Profile
    events: pd.DataFrame
    times: pd.DataFrame
    baseline: str | None = None
    measured: MeasuredPass | None = None
    comparison: Comparison | None = None
    unmeasured: str = ""
    traces: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """Platform, model and workload: what stands side by side."""
        return table_of(self)

    @property
    def device_has_a_clock(self) -> bool:
        """Whether durations are the device's own, which the profiler slows little; on CPU it slows all alike."""
        return self.platform != "cpu"


@dataclass(frozen=True)
class LeftOut:
    """A profiled experiment without a valid launch: `reason` says why, the other fields are those of `Profiled`."""

    platform: str
    model: str
    quant: str
    workload: str
    place: str
    baseline: str | None
    reason: str


@dataclass(frozen=True)
class StepSample:
    """The steps of one phase as the launch timed them: seconds, in order, without and with the profiler.

    `tokens` is the mean over those without, or over all where there are none.
    """

    unprofiled_s: tuple[float, ...]
    profiled_s: tuple[float, ...]
    tokens: float

    @property
    def overhead(self) -> float | None:
        """Mean profiled over mean unprofiled step time; None where one is not known."""
        return mean(self.profiled_s) / mean(self.unprofiled_s) if self.unprofiled_s and self.profiled_s else None

    @property
    def step_s(self) -> float:
        """Mean time of a step: without the profiler, or with it where that is all there is."""
        return mean(self.unprofiled_s or self.profiled_s)


def step_samples(steps: Sequence[Step]) -> dict[Phase, StepSample]:
    """Return the steps by phase, those phases that have some."""
    return {
        phase: _sample([step for step in steps if step.phase == phase])
        for phase in PHASES
        if any(step.phase == phase for step in steps)
    }


def _sample(steps: Sequence[Step]) -> StepSample:
    unprofiled = [step for step in steps if not step.profiled]
    shown = unprofiled or steps
    return StepSample(
        unprofiled_s=tuple(step.elapsed_s for step in unprofiled),
        profiled_s=tuple(step.elapsed_s for step in steps if step.profiled),
        tokens=mean([step.tokens for step in shown]),
    )


def measured_pass(records: Sequence[Record], sequences: Sequence[SequenceRow] = ()) -> MeasuredPass | None:
    """Return the mean pass of valid launches of one experiment, its steps by `pass_steps`.

    None where they can't be told.

    Nobody counts the engine's steps where throughput is measured; they follow from the engine's settings. They do not
    where requests arrive at a rate, nor where several replicas make the pass, nor where the engine's
    `max_num_batched_tokens` is unknown.

    Args:
        records: the launches, offline or online.
        sequences: those of one iteration; without them all count as alike, which makes the decode steps of sequences
            of different lengths too few.
    """
    counted = [record for record in records if record.valid]
    iterations = [iteration for record in counted for iteration in record.iterations if not iteration.warmup]
    if not iterations:
        return None
    first, engine = iterations[0], counted[0].engine
    batched_tokens = engine.resolved.get("max_num_batched_tokens")
    if first.point is not None and first.point.duration_s is not None:
        return None
    if at_a_rate(first.point) or first.replicas or not isinstance(batched_tokens, int) or not first.sequences:
        return None
    rows = sequences or [_mean_sequence(first)] * first.sequences
    limits = [first.sequences, engine.resolved.get("max_num_seqs"), first.point and first.point.concurrency]
    if engine.kv_cache_tokens is not None:
        limits.append(engine.kv_cache_tokens // max(row.prompt_tokens + row.output_tokens for row in rows))
    tokens = pass_steps(
        [row.prompt_tokens for row in rows],
        [max(1, row.output_tokens) for row in rows],
        batched_tokens,
        max(1, min(limit for limit in limits if isinstance(limit, int))),
        [row.cached_prompt_tokens or 0 for row in rows],
    )
    return MeasuredPass(
        elapsed_s=mean([iteration.elapsed_s for iteration in iterations]),
        steps={phase: len(of_steps) for phase, of_steps in tokens.items()},
    )


def _mean_sequence(iteration: Iteration) -> SequenceRow:
    amount = iteration.sequences
    return SequenceRow(
        iteration=iteration.index,
        prompt=0,
        sample=0,
        prompt_tokens=round(iteration.prompt_tokens / amount),
        cached_prompt_tokens=round((iteration.cached_prompt_tokens or 0) / amount),
        output_tokens=round(iteration.output_tokens / amount),
        finish_reason=None,
    )


def pass_steps(
    prompts: Sequence[int],
    outputs: Sequence[int],
    batched_tokens: int,
    at_once: int,
    cached: Sequence[int] = (),
) -> dict[Phase, list[int]]:
    """Return the tokens of each step that a pass takes whose requests are all there at its beginning.

    As vLLM's scheduler does with chunked prefill: sequences that run come first, one token each, or what is left of
    their prompt; what remains of `batched_tokens` goes to waiting ones in order, as long as no more than `at_once` run.
    The step that ends a prompt gives the first token. Preemption, speculation and a KV cache that runs full are left
    out.

    Args:
        prompts: tokens of each sequence's prompt.
        outputs: tokens generated for each, at least 1.
        batched_tokens: most tokens of one step (max_num_batched_tokens).
        at_once: most sequences that run (max_num_seqs, or what the KV cache holds).
        cached: tokens of each prompt that came from the prefix cache; none where empty.
    """
    if not (batched_tokens > 0 and at_once > 0):
        raise ValueError("a step takes at least one token of one sequence")
    known = cached or [0] * len(prompts)
    # [prompt tokens to compute, output tokens to come]
    waiting = deque([max(1, prompt - hit), output] for prompt, hit, output in zip(prompts, known, outputs, strict=True))
    running: list[list[int]] = []
    tokens: dict[Phase, list[int]] = {phase: [] for phase in PHASES}
    while waiting or running:
        budget, prompted, decoded = batched_tokens, 0, 0
        for sequence in running:
            share = min(budget, sequence[0] or 1)
            prompted += share if sequence[0] else 0
            decoded += 0 if sequence[0] else share
            budget -= share
            _advance(sequence, share)
        while waiting and budget and len(running) < at_once:
            sequence = waiting.popleft()
            share = min(budget, sequence[0])
            prompted, budget = prompted + share, budget - share
            _advance(sequence, share)
            running.append(sequence)
        running = [sequence for sequence in running if sequence[1] > 0]
        phase: Phase = "decode" if not prompted else "mixed" if decoded else "prefill"
        tokens[phase].append(prompted + decoded)
    return {phase: found for phase, found in tokens.items() if found}


def _advance(sequence: list[int], share: int) -> None:
    """Compute `share` tokens of a sequence; the last of its prompt, and each one after it, give a new token."""
    prompt = sequence[0]
    sequence[0] = max(0, prompt - share)
    if share and sequence[0] == 0:
        sequence[1] -= 1


READER = "read by version 1"
"""Raised when traces are read in another way; tables of earlier versions are then made again."""

THROUGHPUT: MetricName = "output_tokens_per_s"


@dataclass(frozen=True)
class Read:
    """The profiles whose traces can be read, those without a valid launch, and of each other one why and what to do.

    A profile that can't be read is no reason to keep back what was timed.
    """

    profiled: tuple[ProfiledExperiment, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    problems: tuple[str, ...] = ()


def read_profiled(results: Path, inside: Sequence[Chosen], collection: Collection, rows: Sequence[Row]) -> Read:
    """Return the profiles among `inside`, of `collection`, read from `results` and summarised in `rows`."""
    of_profiles = [each for each in inside if each.experiment.mode == PROFILE.name]
    named = Counter(names_of(each.experiment) for each in of_profiles)
    places = {names: each.place for each in of_profiles if named[names := names_of(each.experiment)] == 1}
    found, problems = [], []
    for each in of_profiles:
        if not each.reason:
            try:
                found.append(_profiled(results, each, places, collection, rows))
            except UserError as error:
                problems.append(f"{error.problem}; {error.remedy}")
    left_out = [
        LeftOut(e.platform, e.model, each.label, e.workload, each.place, _baseline(e, places, collection), each.reason)
        for each in of_profiles
        for e in [each.experiment]
        if each.reason
    ]
    return Read(tuple(found), tuple(left_out), tuple(problems))


def _baseline(
    experiment: Selected[Launched], places: Mapping[tuple[str, ...], str], collection: Collection
) -> str | None:
    """Return the place of what it is compared with; None where it is a baseline itself or have none."""
    own, baseline = names_of(experiment), names_of(experiment, collection.baseline)
    return places.get(baseline) if baseline != own else None


def _profiled(
    results: Path,
    each: Chosen,
    places: Mapping[tuple[str, ...], str],
    collection: Collection,
    rows: Sequence[Row],
) -> ProfiledExperiment:
    experiment = each.experiment
    record = experiment.records[0]
    assert isinstance(record, Profile), "the records of profile mode are profiles"
    path = record_path(results, experiment.mode, experiment.experiment, record.launch)
    raw, warnings = events_of(path, record)
    platform = record.spec.platform
    raw = of_their_windows(raw, record)
    events = categorise(
        raw,
        record.linears,
        platform=None if platform == "unknown" else platform,
        quantized=_is_quantized(record),
    )
    row, unmeasured = _timed(experiment, rows)
    return ProfiledExperiment(
        platform=experiment.platform,
        model=experiment.model,
        quant=each.label,
        workload=experiment.workload,
        place=each.place,
        record=record,
        events=events,
        times=step_times(events),
        baseline=_baseline(experiment, places, collection),
        measured=None if row is None else _measured(results, row),
        comparison=None if row is None else row.comparisons.get(THROUGHPUT),
        unmeasured=unmeasured,
        traces=str(traces_path(path).relative_to(results)),
        warnings=tuple(warnings),
    )


def _is_quantized(record: Profile) -> bool:
    held = record.engine.weights_bytes_by_dtype
    return held is not None and any(dtype not in ("bfloat16", "float16", "float32") for dtype in held.linear)


def of_their_windows(events: pd.DataFrame, record: Profile) -> pd.DataFrame:
    """Return `events` without the steps that are not of the phase that their trace is of.

    A window lets the engine go on for a step or two before it closes, and between the passes of a window the engine
    waits for the next one: a decode step in the trace of prefill is none that was looked for, and lasts too long.
    """
    decodes = {trace.name for trace in record.traces if trace.phase == "decode"}
    others = {trace.name for trace in record.traces if trace.phase == "prefill"}
    if not decodes or not others:
        return events
    strays = (events["trace"].isin(others) & (events["phase"] == "decode")) | (
        events["trace"].isin(decodes) & events["phase"].isin(["prefill", "mixed"])
    )
    return events[~strays]


def events_of(path: Path, record: Profile) -> tuple[pd.DataFrame, list[str]]:
    """Return the events of the traces of `record`, which lies at `path`, and what reading them had to say.

    They are read once and kept in a table beside the record, where that can be written.

    Raises:
        UserError: a trace is missing or damaged.
    """
    table, folder, said = operators_path(path), traces_path(path), operators_path(path).with_suffix(".txt")
    kept = said.read_text().splitlines() if said.is_file() else []
    if (
        kept[:1] == [READER]
        and table.is_file()
        and not (folder.is_dir() and folder.stat().st_mtime_ns > table.stat().st_mtime_ns)
    ):
        return read_events(table), kept[1:]
    events, warnings = read_traces(folder, record.traces, record.linears)
    try:
        write_events(table, events)
        write_whole(said, "".join(f"{line}\n" for line in (READER, *warnings)).encode())
    except UserError as error:
        warnings.append(f"the table of operators is not kept: {error.problem}")
    return events, warnings


def _timed(experiment: Selected[Launched], rows: Sequence[Row]) -> tuple[Row | None, str]:
    """Return the experiment that was timed of the same names: offline, or else online with all requests at once.

    Where it has no valid launch, instead of it why: a pass of another mode beside the other side's would not compare.
    """
    named = [row for row in rows if names_of(row.experiment) == names_of(experiment) and row.launches]
    offline = [row for row in named if row.experiment.mode == OFFLINE.name]
    online = [row for row in named if row.experiment.mode == ONLINE.name and _at_once(row.experiment.records[0])]
    found = offline or online
    if len(found) != 1:  # of several nobody can say which the profile belongs to
        return None, ""
    (row,) = found
    return (row, "") if row.valid else (None, f"{row.experiment.mode}: {no_valid_launch(row.experiment.records)}")


def _at_once(record: Record) -> bool:
    point = record.iterations[0].point
    return point is not None and point.concurrency is None and point.request_rate == "inf"


def _measured(results: Path, row: Row) -> MeasuredPass | None:
    """Return the pass of a timed experiment: how long it took, and the steps that its sequences make."""
    experiment = row.experiment.whole
    valid = [record for record in row.experiment.records if record.valid]
    path = record_path(results, experiment.mode, experiment.experiment, valid[0].launch)
    first = next(iteration.index for iteration in valid[0].iterations if not iteration.warmup)
    whole = next(record for record in experiment.records if record.launch == valid[0].launch)
    sequences = known_sequences(sequences_path(path), whole)
    return measured_pass(valid, [row for row in sequences if row.iteration == first and not row.failed])
