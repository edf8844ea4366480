"""A launch of every mode for tests, sound or a thousand times too fast, so that each table and figure has something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from synthetic_cycles import cycle_spec, cycled
from synthetic_drifts import drift_spec, save_drift
from synthetic_inside import MODES as TIMED_AND_INSIDE
from synthetic_inside import QUANTS, save_launch
from synthetic_messages import make_messages, make_messages_spec
from synthetic_online import Server, make_online, make_online_spec, save_online
from synthetic_placements import placed_record, placed_spec
from synthetic_records import in_two, make_record, make_sequences, make_spec
from synthetic_rollouts import rollout_spec, shared_out
from synthetic_starts import COLD, start_record, start_spec

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.messages import MessageRow
from rollout_bench.contracts.record import DeviceUse, Drafting, Flag, Iteration, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, write_messages, write_record

ABSURD = 1000
"""How many times too fast, or too large: no reader could overlook it."""

TAILED = "tailed"
"""The workload whose sequences differ in length."""

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}

ISSUE = make_messages_spec("issue", workers=2, steps=16, batches=(4, 8, 32))
"""With the steps that vLLM's issue 6241 has."""


def save_every_mode(results: Path, launch: int, *, absurd: bool = False, flags: Sequence[Flag] = ()) -> None:
    """Write launch `launch` of experiments in every mode, with `flags`.

    Together they are shown in every table and figure: two quants, replicas, lengths that differ, settings that go
    through a number, loads.
    """
    speed = ABSURD if absurd else 1
    for quant in QUANTS:
        for mode in TIMED_AND_INSIDE:
            save_launch(results, mode, quant, launch, slow=1 / speed, flags=flags)
        for number, spec in enumerate(_offline(quant)):
            record = _timed(spec, launch, speed, 2 * number + (quant != "bf16"), flags)
            rows = make_sequences(record)
            if spec.workload.name == TAILED:  # as many tokens as before
                longer = (3, 1, -1, -3)
                rows = [
                    row.model_copy(update={"output_tokens": row.output_tokens + longer[row.sample]}) for row in rows
                ]
            write_record(record_path(results, spec.mode, spec.experiment(), launch), record, rows)
        shared = rollout_spec(quant, "shared", engines=2)
        record = shared_out(_timed(shared, launch, speed, 20 + (quant != "bf16"), flags))
        path = record_path(results, shared.mode, shared.experiment(), launch)
        write_record(path, record, make_sequences(record))
        whole = cycle_spec(quant, workload="whole")
        record = cycled(_timed(whole, launch, speed, 30 + (quant != "bf16"), flags), (0.5 + 0.01 * launch) / speed)
        write_record(record_path(results, whole.mode, whole.experiment(), launch), record, make_sequences(record))
        save_drift(results, drift_spec(quant), launch, 0.002 * speed * (1 if quant == "bf16" else 3), flags=flags)
        server = Server(step_s=(0.01 if quant == "bf16" else 0.008) / speed, prefill_s=0.05 / speed)
        save_online(results, *(make_online(spec, launch, server, flags=flags) for spec in _online(quant)))
    for generators in (None, 1):
        spec = placed_spec(generators, workload="placed")
        slow = [factor * (1 + 0.01 * ((2 * launch + (generators or 0)) % 5)) / speed for factor in (1.0, 1.01, 1.02)]
        record = placed_record(spec, launch, slow, flags=flags)
        write_record(record_path(results, spec.mode, spec.experiment(), launch), record, make_sequences(record))
    for caches in ("cold", "warm"):
        started = start_spec(caches)
        shorter = (1 + 0.01 * ((3 * launch + (caches == "warm")) % 5)) / speed
        record = start_record(started, launch, {name: s * shorter for name, s in COLD.items()}, 0.1 / speed, flags)
        write_record(record_path(results, started.mode, started.experiment(), launch), record, make_sequences(record))
    messages, rows = make_messages(ISSUE, launch, step_s=1e-3 * (1 + launch / 100) / speed)
    path = record_path(results, ISSUE.mode, ISSUE.experiment(), launch)
    write_messages(
        path, messages.model_copy(update={"validity": list(flags)}), [_message(row, speed, launch) for row in rows]
    )


def _offline(quant: str) -> Iterator[Spec]:
    yield make_spec(quant=quant, workload="served")
    yield make_spec(quant=quant, workload="replicated", args={"data_parallel_size": 2})
    yield make_spec(quant=quant, workload=TAILED)
    yield make_spec(quant=quant, workload="policy")  # which drift launches score, too
    for prompts in (2, 8):
        plain = make_spec(quant=quant, workload=f"load{prompts}", args={"max_num_seqs": 256})
        plain = plain.model_copy(update={"workload": plain.workload.model_copy(update={"prompts": prompts})})
        engine = plain.engine.model_copy(update={"args": {**plain.engine.args, "speculative_config": NGRAM}})
        alike = make_spec().quant.model_copy(update={"name": quant})  # only drafts tell them apart
        yield plain if quant == "bf16" else plain.model_copy(update={"engine": engine, "quant": alike})
    for number in (2, 8, 32):
        spec = make_spec(quant=quant, workload="set", args={"max_num_seqs": number})
        yield spec.model_copy(update={"setting": f"seqs{number}"})


def _online(quant: str) -> Iterator[Spec]:
    yield make_online_spec(quant=quant, workload="served", points=[LoadPoint(concurrency=8)])
    yield make_online_spec(quant=quant, workload="rising", points=[LoadPoint(request_rate=r) for r in (4.0, 40.0)])


def _timed(spec: Spec, launch: int, speed: int, place: int, flags: Sequence[Flag]) -> Record:
    """Return a launch of the configuration at `place`, each of which scatters in its own way."""
    rate = speed * (400 + 20 * place) * (1 + 0.001 * ((3 * launch + 5 * place) % 7))
    record = make_record(spec, launch, [rate, 1.01 * rate, 1.02 * rate], flags=flags, kv_cache_tokens=9600 * speed)
    init_s = 3 * (1 + 0.01 * ((5 * launch + 2 * place) % 7)) / speed
    startup = record.startup.model_copy(update={"import_s": 8 / speed, "init_s": init_s})
    record = record.model_copy(update={"startup": startup})
    if spec.workload.name == "served" or "speculative_config" in spec.engine.args:
        passes = [_powered(iteration, speed) for iteration in record.iterations]
        record = record.model_copy(update={"iterations": passes})
    if "data_parallel_size" not in spec.engine.args:
        return record
    return record.model_copy(update={"iterations": [in_two(iteration) for iteration in record.iterations]})


def _powered(iteration: Iteration, speed: int) -> Iteration:
    """Return a pass on a device that takes 300 W, or as many times more, with drafts of three tokens."""
    use = DeviceUse(
        device="GPU-0", window_s=iteration.elapsed_s, energy_j=300 * speed * iteration.elapsed_s, power_limit_w=700
    )
    drafts = 100 * speed
    done = Drafting(
        drafts=drafts, draft_tokens=3 * drafts, accepted_tokens=drafts, accepted_by_position=[drafts // 2] * 2
    )
    return iteration.model_copy(update={"devices": [use], "drafting": done})


def _message(row: MessageRow, speed: int, launch: int) -> MessageRow:
    """Return `row` with its times `speed` times as short, and `speed` times as many bytes."""
    if row.encode_s is not None and row.reads is not None:
        factor, times = (1 + launch / 1000) / speed, ("transport_s", "waited_s", "decode_s")
        reads = [read.model_copy(update={name: factor * getattr(read, name) for name in times}) for read in row.reads]
        return row.model_copy(update={"encode_s": factor * row.encode_s, "reads": reads})
    if row.content is None:
        return row
    content = row.content.model_copy(
        update={
            "inline_bytes": speed * row.content.inline_bytes,
            "out_of_band_bytes": speed * row.content.out_of_band_bytes,
            "fields": {name: speed * size for name, size in row.content.fields.items()},
        }
    )
    return row.model_copy(update={"content": content})
