"""A messages launch on the real engine, with one worker and with two: every link, every step, nothing left behind."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from launching import Launching, own_flags, tiny_spec

from rollout_bench.contracts.messages import MessageRow, Messages, MessageStep
from rollout_bench.contracts.side_files import read_messages
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import messages_path, read_launched
from rollout_bench.core.processes import shared_memory_of

pytestmark = pytest.mark.engine

STEPS, BATCHES = 12, [2, 8]


def messages_spec(workers: int, **settings: object) -> Spec:
    """Return the tiny spec in messages mode, with so many workers; `settings` are laid over those of the mode."""
    args = {"load_format": "dummy", "max_model_len": 256, "max_num_seqs": 8, "enforce_eager": True}
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    if workers > 1:
        args["tensor_parallel_size"] = workers
    content = tiny_spec(engine={"multiprocess": True, "args": args, "environment": environment}).model_dump(mode="json")
    content["messages"] = {"steps": STEPS, "batches": BATCHES, **settings}
    return Spec.model_validate_json(json.dumps({**content, "mode": "messages"}))


@dataclass
class Measured:
    """A launch that is over."""

    launch: Launching
    record: Messages
    rows: list[MessageRow]
    shared: set[Path]

    def steps(self, look: str, batch: int) -> list[MessageStep]:
        """Return the steps of a pass."""
        return [step for step in self.record.steps if (step.look, step.batch) == (look, batch)]

    def of(self, look: str, batch: int, *links: str) -> list[MessageRow]:
        """Return the messages of a pass."""
        return [row for row in self.rows if (row.look, row.batch) == (look, batch) and row.link in links]


def measured(folder: Path, workers: int) -> Measured:
    launch = Launching(folder, messages_spec(workers))
    launch.wait_for("measuring")
    shared = shared_memory_of(process.pid for process in launch.started)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record = read_launched(launch.out, "messages")
    assert isinstance(record, Messages)
    return Measured(launch, record, read_messages(messages_path(launch.out), record), shared)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return measured(tmp_path_factory.mktemp("messages"), workers=2)


def workers_of(found: Measured) -> int:
    return int(found.record.spec.engine.args.get("tensor_parallel_size", 1))


def by_step(rows: Iterable[MessageRow]) -> dict[int, list[MessageRow]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[row.step].append(row)
    return grouped


def test_a_pass_decodes_all_sequences_together_after_one_prefill(found: Measured) -> None:
    for batch in BATCHES:
        times, contents = found.steps("times", batch), found.steps("contents", batch)
        assert [step.phase for step in times] == ["prefill", *["decode"] * (STEPS - 1)]
        assert {step.sequences for step in times} == {batch}
        assert (times[0].new_requests, times[0].new_prompt_tokens) == (batch, 130 * batch)
        counts = {"look", "began_s", "latency_s", "elapsed_s"}
        assert [s.model_dump(exclude=counts) for s in times] == [s.model_dump(exclude=counts) for s in contents]


def test_every_link_has_its_messages_in_every_step(found: Measured) -> None:
    for look in ("times", "contents"):
        for batch in BATCHES:
            to_core = found.of(look, batch, "front_end_to_core")
            assert [(row.method, row.step) for row in to_core] == [("add", 0)] * batch
            for link in ("core_to_workers", "workers_to_core"):
                grouped = by_step(found.of(look, batch, link))
                assert sorted(grouped) == list(range(STEPS))
                assert all(
                    [row.method for row in rows] == ["execute_model", "sample_tokens"] for rows in grouped.values()
                )
            outputs = Counter(row.step for row in found.of(look, batch, "core_to_front_end"))
            assert outputs == Counter(range(STEPS))


def test_each_message_is_read_by_each_of_its_readers(found: Measured) -> None:
    for row in found.rows:
        if row.look == "contents":
            assert row.reads is None
            continue
        assert row.reads is not None
        ranks = list(range(workers_of(found))) if row.link == "core_to_workers" else [None]
        assert [read.rank for read in row.reads] == ranks
        assert row.rank == (0 if row.link == "workers_to_core" else None)


def first_reader_s(row: MessageRow) -> float:
    """Return what a message cost at the worker that answers, or at the core.

    Another worker may read into the next step.
    """
    return row.busy_s((0,))


def test_the_messages_of_a_step_take_less_than_the_step(found: Measured) -> None:
    for batch in BATCHES:
        grouped = by_step(found.of("times", batch, "core_to_workers", "workers_to_core"))
        for step in found.steps("times", batch):
            busy_s = sum(first_reader_s(row) for row in grouped[step.index])
            assert 0 < busy_s < step.latency_s
            assert step.elapsed_s <= step.latency_s
            for row in grouped[step.index]:
                assert step.began_s <= row.began_s < step.began_s + step.latency_s


def test_the_same_goes_to_workers_however_many_they_are(found: Measured) -> None:
    """A request has its prompt in it, and its parameters; a decode step neither."""
    prefill, *decode = [
        row.content for row in found.of("contents", 8, "core_to_workers") if row.method == "execute_model"
    ]
    assert prefill is not None
    assert prefill.fields["prompt_token_ids"] > 8 * 130
    assert prefill.fields["sampling_parameters"] > 8 * 20
    for content in decode:
        assert content is not None
        assert content.inline_bytes < prefill.inline_bytes / 2
        assert content.fields["prompt_token_ids"] == content.fields["sampling_parameters"] == 0


def test_fields_and_formats_match_the_bytes_that_were_sent(found: Measured) -> None:
    for row in found.rows:
        if row.content is None:
            continue
        content = row.content
        own = "pickle5" if row.link in ("core_to_workers", "workers_to_core") else "msgpack"
        whole = content.inline_bytes + content.out_of_band_bytes
        assert content.formats[own].size_bytes == whole == sum(content.fields.values())
        assert set(content.formats) == {"pickle5", "msgpack"}
        assert (content.through == "ring") == (own == "pickle5")


def test_a_decode_step_repeats_most_of_the_one_before(found: Measured) -> None:
    for row in found.of("contents", 8, "core_to_workers", "workers_to_core", "core_to_front_end"):
        content = row.content
        assert content is not None
        known = (content.distance, content.repeated_bytes, content.difference)
        if row.step == 0:
            assert known == (None, None, None)
        elif row.step > 1 and row.method != "sample_tokens":
            assert content.distance is not None
            assert content.repeated_bytes is not None
            assert content.difference is not None
            assert content.distance < content.inline_bytes / 5
            assert content.repeated_bytes > content.inline_bytes * 4 / 5
            assert content.difference.size_bytes < content.inline_bytes / 3


def test_looking_costs_little_and_its_cost_is_told(found: Measured) -> None:
    record = found.record
    assert [use.batch for use in record.probes] == BATCHES
    assert all(0 < use.share < 0.03 for use in record.probes)
    assert {flag.code for flag in own_flags(record)} <= {"probe_cost"}
    assert record.pickled_bytes["SamplingParams"] > 100
    assert record.ring_bytes == 16 << 20


def test_nothing_is_left(found: Measured) -> None:
    launch, name = found.launch, found.record.spec.experiment()
    assert launch.left_behind() == [f"messages/{name}/launch-0.json", f"messages/{name}/launch-0.messages.jsonl.gz"]
    assert launch.survivors() == []
    assert len([path for path in found.shared if path.name.startswith("psm_")]) > workers_of(found)
    assert [path for path in found.shared if path.exists()] == []
