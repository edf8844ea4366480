"""A messages launch on the real engine with two workers: every step, its two messages, nothing left behind."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import get_args

import pytest
from launching import SETTINGS, Launching, own_flags, tiny_spec

from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_launched
from rollout_bench.core.processes import shared_memory_of
from rollout_bench.modes.messages.record import FormatName, Messages, MessageStep

pytestmark = pytest.mark.engine

STEPS, BATCHES = 12, [2, 8]


ARGS = {**SETTINGS["engine"]["args"], "tensor_parallel_size": 2}
ENVIRONMENT = {**SETTINGS["engine"]["environment"], "VLLM_CPU_OMP_THREADS_BIND": "0|1"}


@dataclass
class Measured:
    """A launch that is over."""

    launch: Launching
    record: Messages
    shared: set[Path]

    def steps(self, purpose: str, batch: int) -> list[MessageStep]:
        """Return the steps of a pass."""
        return [step for step in self.record.steps if (step.purpose, step.batch) == (purpose, batch)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    spec = tiny_spec(engine={"multiprocess": True, "args": ARGS, "environment": ENVIRONMENT}).model_dump(mode="json")
    spec |= {"mode": "messages", "messages": {"steps": STEPS, "batches": BATCHES}}
    launch = Launching(tmp_path_factory.mktemp("messages"), Spec.model_validate(spec), is_second=True)
    launch.wait_for("measuring")
    shared = shared_memory_of(process.pid for process in launch.started)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return Measured(launch, read_launched(launch.out, "messages"), shared)


def test_a_pass_decodes_all_sequences_together_after_one_prefill(found: Measured) -> None:
    own = {"purpose", "elapsed_s", "to_workers", "to_core"}
    for batch in BATCHES:
        times, contents = found.steps("times", batch), found.steps("contents", batch)
        assert [step.phase for step in times] == ["prefill", *["decode"] * (STEPS - 1)]
        assert {step.sequences for step in times} == {batch}
        assert (times[0].new_requests, times[0].new_prompt_tokens) == (batch, 130 * batch)
        assert [s.model_dump(exclude=own) for s in times] == [s.model_dump(exclude=own) for s in contents]
        assert {(step.to_workers, step.to_core) for step in times} == {(None, None)}


def test_a_decode_step_repeats_the_one_before(found: Measured) -> None:
    for batch in BATCHES:
        prefill, first, *decode = found.steps("contents", batch)
        assert prefill.to_workers.fields["scheduled_new_reqs"] > 130 * batch
        assert (prefill.to_workers.distance, prefill.to_core.distance) == (None, None)
        assert first.to_workers.size_bytes < prefill.to_workers.size_bytes / 2
        messages = [message for step in decode for message in (step.to_workers, step.to_core)]
        assert all(message.distance < message.size_bytes / 5 for message in messages)


def test_the_messages_of_a_step_take_less_than_the_step(found: Measured) -> None:
    for batch in BATCHES:
        contents = found.steps("contents", batch)[1:]
        coding_s = median(s.to_workers.coding_s + s.to_core.coding_s for s in contents if s.to_workers and s.to_core)
        assert 0 < coding_s < median(step.elapsed_s for step in found.steps("times", batch)[1:]) / 5
        assert all(0 < s.to_workers.broadcast_s < 1 and 0 < s.to_core.broadcast_s < 1 for s in contents)
    assert found.record.pickled_bytes["SamplingParams"] > 100
    assert own_flags(found.record) == []


def test_each_message_of_the_engine_can_be_sent_in_each_format(found: Measured) -> None:
    for batch in BATCHES:
        for step in found.steps("contents", batch)[1:]:
            for message in (step.to_workers, step.to_core):
                sizes = {name: cost.size_bytes for name, cost in message.formats.items()}
                assert sizes.keys() == {*get_args(FormatName)}
                assert sizes["pickle_values"] < message.size_bytes
                assert sizes["pickle_changes"] < message.size_bytes


def test_nothing_is_left(found: Measured) -> None:
    launch, (first,) = found.launch, found.record.after or ()
    names = [first, f"messages/{found.record.spec.experiment()}"]
    assert (launch.left_behind(), launch.survivors()) == ([f"{name}/launch-0.json" for name in names], [])
    assert len([path for path in found.shared if path.name.startswith("psm_")]) > 2
    assert any(path.name.startswith("vllm_dist_") for path in found.shared), "of the workers' own messages"
    assert [path for path in found.shared if path.exists()] == []
