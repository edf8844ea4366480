"""Replays the steps of a rollout in vLLM's own scheduler and KV cache manager, without an engine.

`python -m rollout_bench.modes.steps.predict.replay` reads a `ReplayJob` from each line of stdin, and writes a line with
`Replayed`. It needs only the engine's Python, and no device.
"""

import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.steps import StepWork, work_of
from rollout_bench.core.errors import UserError, run_command


class WaitingSequence(Strict):
    """A sequence that waits when the replay begins."""

    prompt_token_ids: list[int] = Field(min_length=1)
    output_tokens: int = Field(ge=1)


class ReplayJob(Strict):
    """A rollout of one replica. An argument in `args` counts as the engine's, also if this platform would change it."""

    model: str = Field(description="Folder of a checkpoint; its weights are not read.")
    args: dict[str, Any] = Field(description="Engine arguments, without data_parallel_size.")
    kv_blocks: int = Field(
        ge=2, description="Blocks of the KV cache, vLLM's num_gpu_blocks; one of them is never used."
    )
    block_tokens: int = Field(ge=1, description="Tokens in a block.")
    sequences: list[WaitingSequence] = Field(min_length=1, description="Sequences in the order in which they are sent.")


class Replayed(Strict):
    """The steps of a rollout. Steps are numbered from 0, and sequences have the order of the job."""

    steps: list[StepWork]
    finished: list[int] = Field(description="Step that samples the last token of each sequence.")
    preemptions: int
    kv_peak_blocks: int = Field(description="Maximum number of blocks that running sequences hold together.")


SCHEDULING = (
    "max_model_len",
    "max_num_seqs",
    "max_num_active_seqs",
    "max_num_batched_tokens",
    "max_num_scheduled_tokens",
    "max_num_partial_prefills",
    "max_long_partial_prefills",
    "long_prefill_token_threshold",
    "long_prefill_token_threshold_adaptive",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "prefix_caching_hash_algo",
    "scheduling_policy",
    "scheduler_reserve_full_isl",
    "watermark",
    "async_scheduling",
    "hf_overrides",
    "trust_remote_code",
)
"""Arguments that change a schedule. Others may need the engine's device, such as an attention backend of CUDA."""

NOT_REPLAYED: dict[str, tuple[Any, str]] = {
    "speculative_config": (None, "speculative decoding, because accepted tokens depend on the weights"),
    "pipeline_parallel_size": (1, "pipeline parallelism"),
    "decode_context_parallel_size": (1, "context parallelism"),
    "prefill_context_parallel_size": (1, "context parallelism"),
    "data_parallel_size": (1, "several replicas at once"),
    "kv_transfer_config": (None, "a KV connector"),
    "scheduler_cls": (None, "another scheduler"),
}
"""Argument -> its value without the feature, and the feature."""


def replay(job: ReplayJob, *, jump: bool = True) -> Replayed:
    """Return the steps of a rollout whose sequences have the lengths of `job`.

    Sampled tokens differ between sequences, as at a temperature above 0, so only prompts are shared.

    Args:
        job: the sequences and the engine's settings. Defaults of missing arguments are those of vLLM's server on this
            machine.
        jump: schedule stretches of pure decode at once, which changes nothing but the time that it takes.

    Raises:
        UserError: if the replay cannot follow the engine, or vLLM refuses the settings.
    """
    for name, (usual, feature) in NOT_REPLAYED.items():
        if job.args.get(name) not in (None, usual):
            raise UserError(f"{name}: a replay cannot follow {feature}", f"predict without {name}, or measure")
    config = engine_config(job)
    for asked in job.sequences:
        _check_fits(asked, job, config.model_config.max_model_len)
    return EngineReplay(job, config).run(jump)


def engine_config(job: ReplayJob) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    args = {name: job.args[name] for name in SCHEDULING if job.args.get(name) is not None}
    try:
        made = EngineArgs(model=job.model, skip_tokenizer_init=True, **args)
        config = made.create_engine_config(UsageContext.OPENAI_API_SERVER)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"vLLM refuses the settings of a replay: {error}",
            "change the engine's arguments; without its device, replay with a vLLM that is built for CPUs",
        ) from error
    model, text = config.model_config, config.model_config.hf_text_config
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(windows) or model.is_hybrid or model.is_attention_free or model.is_encoder_decoder:
        raise UserError(
            f"{job.model}: a replay cannot follow a model with other layers than full attention",
            "measure this model, or predict another one",
        )
    # A platform adjusts the config to itself: on a CPU no step is scheduled before the previous one has ended.
    for part in (config.scheduler_config, config.cache_config):
        for name in args.keys() & vars(part).keys():
            setattr(part, name, args[name])
    config.cache_config.block_size, config.cache_config.num_gpu_blocks = job.block_tokens, job.kv_blocks
    return config


def _check_fits(asked: WaitingSequence, job: ReplayJob, max_model_len: int) -> None:
    tokens = len(asked.prompt_token_ids) + asked.output_tokens
    if tokens > max_model_len:
        raise UserError(
            f"a sequence of {tokens} tokens is longer than max_model_len, {max_model_len}",
            "raise max_model_len, or predict shorter sequences",
        )
    room = (job.kv_blocks - 1) * job.block_tokens
    if tokens - 1 > room:  # nothing attends to the last token
        raise UserError(
            f"a sequence of {tokens} tokens does not fit into the KV cache of {room} tokens",
            "give the KV cache more memory, or predict shorter sequences",
        )


class EngineReplay:
    """The scheduler, and what vLLM's `EngineCore` does with it."""

    def __init__(self, job: ReplayJob, config: Any) -> None:
        from vllm.v1.structured_output import StructuredOutputManager

        self._block_tokens = job.block_tokens
        self.scheduler = config.scheduler_config.get_scheduler_cls()(
            vllm_config=config,
            kv_cache_config=_kv_cache(job),
            structured_output_manager=StructuredOutputManager(config),
            block_size=job.block_tokens,
        )
        for request in _requests(job.sequences, config.cache_config, job.block_tokens):
            self.scheduler.add_request(request)
        self._pool = self.scheduler.kv_cache_manager.block_pool
        self._depth = config.max_concurrent_batches
        self.steps: list[StepWork] = []
        self._finished = [-1] * len(job.sequences)
        self.preemptions = self.peak = 0
        self._empty = self._pool.get_num_free_blocks()

    def run(self, jump: bool) -> Replayed:
        """Schedule until all sequences are complete, as `step_with_batch_queue` does; a queue of one is `step`."""
        scheduler = self.scheduler
        queue: deque[tuple[Any, Any, int]] = deque()
        while scheduler.has_requests() or queue:
            quiet = False
            if scheduler.has_requests():
                scheduled = scheduler.schedule()
                queue.append((scheduled, *self.compute(scheduled)))
                quiet = jump and self._only_decodes(scheduled)
                if len(queue) < self._depth and (scheduled.total_num_scheduled_tokens or scheduler.has_requests()):
                    continue
            ended = self._processed(*queue.popleft())
            if quiet and not ended and (count := self._quiet_steps()):
                self._jump(count)
                # The newest step is like those that were jumped, so it is now the last of them.
                queue = deque((scheduled, answer, step + count) for scheduled, answer, step in queue)
        return Replayed(
            steps=self.steps,
            finished=self._finished,
            preemptions=self.preemptions,
            kv_peak_blocks=self.peak,
        )

    def compute(self, scheduled: Any) -> tuple[Any, int]:
        """Note a step, and return the model's answer to it and its number."""
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(scheduled.num_scheduled_tokens)
        requests = [self.scheduler.requests[name] for name in names]
        if names:
            computed = zip(requests, scheduled.num_scheduled_tokens.values(), strict=True)
            work = work_of(computed, self._held() * self._block_tokens)
            self.steps.append(StepWork(**work))
        self.preemptions += len(scheduled.preempted_req_ids or ())
        self._note_peak()
        answer = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=[[] if request.is_prefill_chunk else [_token(request)] for request in requests],
        )
        return answer, len(self.steps) - 1

    def _processed(self, scheduled: Any, answer: Any, step: int) -> bool:
        """Let the scheduler process the answer to a step, and return whether it ends a sequence."""
        ended = False
        for outputs in self.scheduler.update_from_output(scheduled, answer).values():
            for output in outputs.outputs:
                if output.finish_reason is not None:
                    self._finished[int(output.request_id)], ended = step, True
        return ended

    def _only_decodes(self, scheduled: Any) -> bool:
        """Return whether a step changes nothing but the lengths of the running sequences.

        If no sequence could be admitted or had to be preempted in it, then neither in the next ones, because the KV
        cache only fills up until a sequence ends.
        """
        running = len(self.scheduler.running)
        return (
            0 < running == len(scheduled.num_scheduled_tokens) == self.steps[-1].decodes
            and not scheduled.preempted_req_ids
        )

    def _quiet_steps(self) -> int:
        """Return the number of further steps in which all running sequences decode, none ends, and blocks suffice."""
        running = self.scheduler.running
        most = min(each.max_tokens - each.num_output_tokens for each in running) - 1
        return int(np.searchsorted(self._further_blocks(most), self._pool.get_num_free_blocks(), side="right"))

    def _further_blocks(self, steps: int) -> NDArray[np.int64]:
        """Return the blocks that the running sequences take in addition in up to each of the next decoding steps."""
        size = self._block_tokens
        computed = np.array([each.num_computed_tokens for each in self.scheduler.running])
        taken = np.bincount(-computed % size, minlength=size)  # at each place of a block
        return np.asarray(np.cumsum(taken[np.arange(steps) % size]))

    def _held(self) -> int:
        """Return the blocks that sequences hold."""
        return int(self._empty - self._pool.get_num_free_blocks())

    def _jump(self, count: int) -> None:
        """Advance all running sequences by `count` decoded tokens."""
        held = self._held() + self._further_blocks(count)
        for request in self.scheduler.running:
            # As in a step, the last token is appended after its slot is allocated: it is not yet in the KV cache.
            request.append_output_token_ids([_token(request)] * (count - 1))
            slots = self.scheduler.kv_cache_manager.allocate_slots(request, count)
            assert slots is not None
            request.append_output_token_ids(_token(request))
            request.num_computed_tokens += count
        last = self.steps[-1]
        for step, blocks in enumerate(held, 1):
            work = {
                "context_tokens": last.context_tokens + step * last.decodes,
                "kv_tokens": int(blocks) * self._block_tokens,
            }
            self.steps.append(last.model_copy(update=work))
        self._note_peak()

    def _note_peak(self) -> None:
        self.peak = max(self.peak, self._held())


def _token(request: Any) -> int:
    """Return the token that a sequence samples: none that another one has, or prefix caching would share it."""
    return -1 - int(request.request_id)


def _requests(sequences: Sequence[WaitingSequence], cache: Any, block_tokens: int) -> list[Any]:
    from vllm import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    hasher = None
    if cache.enable_prefix_caching:
        hashing = get_hash_fn_by_name(cache.prefix_caching_hash_algo)
        init_none_hash(hashing)
        hasher = get_request_block_hasher(block_tokens, hashing)
    return [
        Request(
            str(index),
            asked.prompt_token_ids,
            SamplingParams(max_tokens=asked.output_tokens, ignore_eos=True),
            None,
            arrival_time=float(index),
            block_hasher=hasher,
        )
        for index, asked in enumerate(sequences)
    ]


def _kv_cache(job: ReplayJob) -> Any:
    """Return the KV cache of one layer: with full attention all layers have the same blocks."""
    from torch import bfloat16
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    spec = FullAttentionSpec(block_size=job.block_tokens, num_kv_heads=1, head_size=64, dtype=bfloat16)
    return KVCacheConfig(job.kv_blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])


def main() -> int:
    """Replay the job of each line of stdin; what vLLM and its processes print goes to stderr."""
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(answer, "w") as file:
        for line in sys.stdin.buffer:
            print(replay(ReplayJob.model_validate_json(line)).model_dump_json(), file=file, flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
