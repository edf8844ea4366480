"""What messages mode adds to the plan: a key of its own, an engine core of its own, and an engine that it fits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from launching import tiny_spec
from planned import REPOSITORY, merged_with, planned

from rollout_bench.contracts.spec import MessagesSettings, Spec
from rollout_bench.core import message_places
from rollout_bench.core.errors import UserError
from rollout_bench.core.message_places import PLACES, installed, moved
from rollout_bench.measure.launch.preflight import check_before_start
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand

SMALL = "quants: [bf16], messages: {batches: [4]}"


def specs(overlay: str) -> list[Spec]:
    return [experiment.spec for experiment in planned(overlay).experiments]


def test_messages_have_a_key_of_their_own_and_leave_that_of_the_timed_experiment_alone():
    timed, messages = specs(f"{{modes: [offline, messages], {SMALL}}}")
    (alone,) = specs("{quants: [bf16], modes: [offline]}")
    assert timed.key() == alone.key() != messages.key()
    assert "messages" not in alone.canonical_json()


def test_the_core_is_a_process_of_its_own_in_this_mode_alone():
    timed, messages = specs(f"{{modes: [offline, messages], {SMALL}}}")
    assert (timed.engine.multiprocess, messages.engine.multiprocess) == (False, True)


def test_the_order_of_batches_is_no_setting():
    assert MessagesSettings(batches=[32, 4]) == MessagesSettings(batches=[4, 32])


def test_its_example_has_the_set_up_of_the_issue_and_a_rollout_with_one_worker_and_with_two():
    experiments = specs((REPOSITORY / "configs/messages.yaml").read_text())
    sizes = {e.workload.name: e.engine.args.get("tensor_parallel_size", 1) for e in experiments}
    assert sizes == {"issue-6241": 2, "rollout-tp1": 1, "rollout-tp2": 2}
    (issue,) = [e.workload for e in experiments if e.workload.name == "issue-6241"]
    assert (issue.prompts, issue.temperature, issue.top_p, issue.output_tokens) == (4, 0.8, 0.95, 16)


@pytest.mark.parametrize(
    ("overlay", "problem", "remedy"),
    [
        ("{modes: [message]}", "mode 'message' is not defined", "did you mean 'messages'?"),
        ("{modes: [messages], messages: {batch: [4]}}", "messages.batch", "did you mean 'batches'?"),
        ("{modes: [messages], messages: {batches: []}}", "messages.batches", ""),
        ("{modes: [messages], messages: {batches: [0]}}", "messages.batches", ""),
        ("{modes: [messages], messages: {batches: 4}}", "messages.batches", "[4]"),
        ("{modes: [messages], messages: {steps: 1}}", "messages.steps", ""),
        ("{modes: [messages]}", "256 sequences are more than max_num_seqs 64", "raise max_num_seqs"),
        (
            f"{{modes: [messages], {SMALL}, engine_args: {{distributed_executor_backend: ray}}}}",
            "engine_args.distributed_executor_backend: 'ray'",
            "leave it out",
        ),
        (
            f"{{modes: [messages], {SMALL}, engine_args: {{pipeline_parallel_size: 2}}}}",
            "engine_args.pipeline_parallel_size",
            "set tensor_parallel_size instead",
        ),
        (
            f"{{modes: [messages], {SMALL}, workload_settings: {{demo: {{output_tokens: 1}}}}}}",
            "workload demo generates one token",
            "ask for more output_tokens",
        ),
    ],
)
def test_messages_that_cannot_be_had_are_told_in_two_lines(overlay: str, problem: str, remedy: str):
    with pytest.raises(UserError) as raised:
        planned(overlay)
    first, second = str(raised.value).split("\n")
    assert problem in first
    assert remedy in f"{first}\n{second}"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return the files of the installed vLLM that the probes rest on."""
    vllm = installed()
    assert vllm is not None
    for file in PLACES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(vllm / file, tmp_path / file)
    return tmp_path


def test_the_installed_engine_has_all_that_the_probes_rest_on(copied: Path):
    assert moved(copied) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "lacks"),
    [
        ("v1/serial_utils.py", "def encode_into(", "def encode_to(", "v1/serial_utils.py: MsgpackEncoder.encode_into"),
        ("v1/engine/core.py", "MsgpackDecoder, ", "", "v1/engine/core.py: MsgpackDecoder"),
        ("v1/core/sched/scheduler.py", "class Scheduler(", "class Planner(", "v1/core/sched/scheduler.py: Scheduler"),
        (
            "v1/executor/multiproc_executor.py",
            "    def collective_rpc(",
            "    def call(",
            "v1/executor/multiproc_executor.py: MultiprocExecutor.collective_rpc",
        ),
    ],
)
def test_an_engine_that_has_moved_it_is_told_before_anything_is_planned(
    copied: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, lacks: str
):
    text = (copied / file).read_text()
    assert old in text
    (copied / file).write_text(text.replace(old, new))
    assert moved(copied) == [lacks]
    config = read_config(merged_with(f"{{modes: [messages], {SMALL}}}"))
    with pytest.raises(UserError) as raised:
        expand(config, replace(probe_engine(None), folder=copied))
    first, second = str(raised.value).split("\n")
    assert lacks in first
    assert "leave messages out of modes" in second
    expand(read_config(merged_with("{modes: [offline]}")), replace(probe_engine(None), folder=copied))

    monkeypatch.setattr(message_places, "installed", lambda: copied)
    content = tiny_spec(engine={"multiprocess": True}).model_dump(mode="json")
    spec = Spec.model_validate({**content, "mode": "messages", "messages": {"batches": [4]}})
    cause = check_before_start(spec, "hub/model", None)
    assert cause is not None
    assert (cause.category, lacks in cause.cause) == ("messages_moved", True)


def test_an_engine_without_a_file_of_it_is_told_too(copied: Path):
    (copied / "v1/serial_utils.py").unlink()
    assert moved(copied) == ["v1/serial_utils.py: MsgpackEncoder", "v1/serial_utils.py: MsgpackDecoder"]
