"""A replay makes the steps of vLLM's engine core, with a small part of its calls of the scheduler."""

import json
import os
import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import TINY_MODEL

from rollout_bench.contracts.steps import StepWork
from rollout_bench.core.errors import UserError
from rollout_bench.modes.steps.predict.replay import EngineReplay, ReplayJob, WaitingSequence, engine_config, replay

# vLLM's own imports warn, and its CPU platform sets variables.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

BLOCK, LONGEST = 4, 128
ASYNC = pytest.mark.parametrize("ahead", [False, True], ids=["one step", "a step ahead"])


@pytest.fixture(autouse=True, scope="module")
def _variables() -> Iterator[None]:
    before = dict(os.environ)
    os.environ["VLLM_TARGET_DEVICE"] = "cpu"
    from vllm.model_executor.models import registry

    vars(registry)["_run_in_subprocess"] = lambda look: look()  # as in test_vllm_itself.py
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(TINY_MODEL))
    return str(folder)


def job_of(model: str, sequences: list[tuple[list[int], int]], blocks: int = 1000, **args: Any) -> ReplayJob:
    args = {"max_model_len": LONGEST, "max_num_seqs": 8, "max_num_batched_tokens": 64, **args}
    asked = [WaitingSequence(prompt_token_ids=prompt, output_tokens=tokens) for prompt, tokens in sequences]
    return ReplayJob(model=model, args=args, kv_blocks=blocks, block_tokens=BLOCK, sequences=asked)


def prompt_of(group: int, tokens: int) -> list[int]:
    """Return the first tokens of one of the prompts, which all begin with the same block."""
    return [*range(BLOCK), *(100 * group + place for place in range(LONGEST))][:tokens]


@st.composite
def loads(draw: st.DrawFn) -> dict[str, Any]:
    """Draw all but the model of a job: sequences with common prompts, few blocks, few places, chunks."""
    prompts = draw(st.lists(st.builds(prompt_of, st.integers(1, 3), st.integers(1, 50)), min_size=1, max_size=12))
    sequences = [(prompt, draw(st.integers(1, 70))) for prompt in prompts]
    longest = max((len(prompt) + tokens - 2) // BLOCK + 1 for prompt, tokens in sequences)
    chunks = draw(st.booleans())
    return {
        "sequences": sequences,
        "blocks": 1 + longest + draw(st.sampled_from([0, 1, 5, 20, 1000])),
        "max_num_seqs": draw(st.integers(1, 8)),
        "enable_chunked_prefill": chunks,
        "max_num_batched_tokens": draw(st.integers(8, 64)) if chunks else LONGEST,
        "long_prefill_token_threshold": draw(st.sampled_from([0, 16])) if chunks else 0,
        "enable_prefix_caching": draw(st.booleans()),
        "watermark": draw(st.sampled_from([0.0, 0.1])),
        "async_scheduling": draw(st.booleans()),
    }


@given(load=loads())
def test_jumps_change_nothing(model: str, load: dict[str, Any]) -> None:
    job = job_of(model, **load)
    assert replay(job) == replay(job, jump=False)


@given(load=loads())
def test_every_token_is_computed_once(model: str, load: dict[str, Any]) -> None:
    replayed = replay(job_of(model, **load))
    prompts = sum(len(prompt) for prompt, _ in load["sequences"])
    cached = prompts - sum(step.prefill_tokens for step in replayed.steps)
    sampled = sum(tokens for _, tokens in load["sequences"])
    decoded = sum(step.decodes for step in replayed.steps)
    assert max(replayed.finished) == len(replayed.steps) - 1
    assert replayed.kv_peak_blocks < load["blocks"]
    if replayed.preemptions:
        assert decoded < sampled
    else:
        assert decoded == sampled - len(load["sequences"])
        assert (cached % BLOCK == 0 and cached >= 0) if load["enable_prefix_caching"] else cached == 0


@given(
    count=st.integers(1, 12),
    prompt=st.integers(1, 40),
    output=st.integers(1, 40),
    places=st.lists(st.integers(1, 12), min_size=2, max_size=2).map(sorted),
    ahead=st.booleans(),
)
def test_more_places_never_need_more_steps(
    model: str, count: int, prompt: int, output: int, places: list[int], ahead: bool
) -> None:
    sequences = [(prompt_of(group, prompt), output) for group in range(count)]
    few, more = (
        len(replay(job_of(model, sequences, max_num_seqs=most, async_scheduling=ahead)).steps) for most in places
    )
    assert more <= few


@given(
    count=st.integers(2, 12),
    prompt=st.integers(1, 40),
    output=st.integers(1, 40),
    places=st.integers(1, 12),
    ahead=st.booleans(),
)
def test_fewer_sequences_or_more_engines_never_take_longer(
    model: str, count: int, prompt: int, output: int, places: int, ahead: bool
) -> None:
    sequences = [(prompt_of(group, prompt), output) for group in range(count)]
    every, but_one, half = (
        sum(
            2e-3 + 1e-4 * step.tokens + 1e-6 * (step.context_tokens + step.prefill_pairs)
            for step in replay(job_of(model, own, max_num_seqs=places, async_scheduling=ahead)).steps
        )
        for own in (sequences, sequences[:-1], sequences[::2])
    )
    assert but_one <= every
    assert half <= every


@ASYNC
def test_work_is_that_of_the_sequences_in_a_step(model: str, ahead: bool) -> None:
    sequences = [(prompt_of(1, 10), 3), (prompt_of(2, 6), 1)]
    replayed = replay(job_of(model, sequences, max_num_batched_tokens=12, async_scheduling=ahead))
    pairs = 10 * 11 // 2 + 5 + 6  # four of the six tokens are cached
    assert replayed.steps[0] == StepWork(
        prefills=2, prefill_tokens=12, prefill_pairs=pairs, decodes=0, context_tokens=0, kv_tokens=4 * 4
    )
    assert [(step.decodes, step.context_tokens) for step in replayed.steps[1:]] == [(1, 11), (1, 12)]
    assert replayed.finished == [2, 0]
    assert replayed.kv_peak_blocks == 3 + 1


@pytest.mark.parametrize(("ahead", "begins"), [(False, 3), (True, 4)])
def test_a_place_is_free_a_step_later_when_scheduled_ahead(model: str, ahead: bool, begins: int) -> None:
    sequences = [(prompt_of(1, 8), 3), (prompt_of(2, 8), 9), (prompt_of(3, 8), 2)]
    replayed = replay(job_of(model, sequences, max_num_seqs=2, async_scheduling=ahead))
    assert replayed.finished == [2, 8, begins + 1]


@ASYNC
def test_sequences_without_room_are_preempted_and_computed_again(model: str, ahead: bool) -> None:
    sequences = [(prompt_of(group, 20), 40) for group in range(3)]
    args = {"enable_prefix_caching": False, "async_scheduling": ahead}
    replayed = replay(job_of(model, sequences, blocks=31, **args))
    assert replayed.preemptions > 0
    assert replayed.kv_peak_blocks == 30
    assert sum(step.prefill_tokens for step in replayed.steps) > 3 * 20


@ASYNC
def test_long_decodes_call_the_scheduler_rarely(model: str, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    calls, schedule = [], Scheduler.schedule
    monkeypatch.setattr(Scheduler, "schedule", lambda self, *more: calls.append(1) or schedule(self, *more))
    args = {"max_model_len": 2048, "async_scheduling": ahead}
    replayed = replay(job_of(model, [(prompt_of(1, 8), 2000), (prompt_of(2, 8), 1000)], **args))
    assert len(replayed.steps) == 2000
    assert len(calls) < 20


class Executor:
    """Answers in place of a model, and notes each step."""

    def __init__(self, noted: EngineReplay) -> None:
        self.noted = noted

    def execute_model(self, scheduled: Any, non_block: bool) -> Any:
        self.answer, _ = self.noted.compute(scheduled)
        return self._future(None if scheduled.num_scheduled_tokens else self.answer)

    def sample_tokens(self, grammar: Any, non_block: bool = False) -> Any:
        return self._future(self.answer) if non_block else self.answer

    @staticmethod
    def _future(value: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(value)
        return future


def core_steps(job: ReplayJob) -> tuple[list[StepWork], int, int]:
    """Return steps, preemptions and maximum of blocks in the loop of vLLM's engine core."""
    from vllm.v1.engine.core import EngineCore

    config = engine_config(job)
    noted = EngineReplay(job, config)
    core = object.__new__(EngineCore)
    core.vllm_config, core.scheduler, core.model_executor = config, noted.scheduler, Executor(noted)
    core.batch_queue_size, core.batch_queue = config.max_concurrent_batches, None
    core.is_mm_encoder_only = core.is_pooling_model = core.log_stats = False
    core._weight_version, core.aborts_queue = "", queue.Queue()
    step = core.step
    if core.batch_queue_size > 1:
        core.batch_queue = deque(maxlen=core.batch_queue_size)
        step = core.step_with_batch_queue
    while core.scheduler.has_requests() or core.batch_queue:
        step()
    return noted.steps, noted.preemptions, noted.peak


@given(load=loads())
def test_steps_are_those_of_the_engine_core(model: str, load: dict[str, Any]) -> None:
    job = job_of(model, **load)
    replayed = replay(job)
    assert (replayed.steps, replayed.preemptions, replayed.kv_peak_blocks) == core_steps(job)


def test_arguments_for_another_machine_change_nothing(model: str) -> None:
    job = job_of(model, [(prompt_of(1, 8), 5)])
    other = job_of(model, [(prompt_of(1, 8), 5)], attention_backend="FLASH_ATTN", tensor_parallel_size=8)
    assert replay(other) == replay(job)


REFUSED: dict[str, dict[str, Any]] = {
    "speculative decoding": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
    "pipeline parallelism": {"pipeline_parallel_size": 2},
    "longer than max_model_len": {"max_model_len": 16},
    "vLLM refuses": {"max_num_seqs": 65},
    "full attention": {"hf_overrides": {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}},
    "does not fit into the KV cache of 16 tokens": {"blocks": 5},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_followed_is_refused(model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        replay(job_of(model, [(prompt_of(1, 8), 12)], **REFUSED[message]))
