"""Steps mode in the engine process: rounds of passes whose steps the engine's scheduler notes."""

import gc
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollout_bench.contracts.steps import StepRow
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.step_statistics import captured_sizes
from rollout_bench.measure.engine.vllm import LoadedEngine, load_engine
from rollout_bench.measure.launch.protocol import AwaitTurn, IterationEnds, Job, PhaseBegins
from rollout_bench.modes.steps.events import EngineLimits, StepsObserved
from rollout_bench.modes.steps.passes import Limits, SentSequence, passes
from rollout_bench.modes.steps.probes import PLACE, SCHEDULER
from rollout_bench.modes.steps.settings import StepsSettings


def measure(job: Job, context: EngineContext) -> None:
    """Do `job`: send each event, and wait for the order before each pass."""
    spec, settings = job.spec, job.spec.of(StepsSettings)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "steps.jsonl"
        os.environ[PLACE] = str(place)
        engine = load_engine(job, context, served=True, scheduler_cls=SCHEDULER)
        limits, facts = limits_of(engine, settings.context_tokens)
        draw = random.Random(f"{spec.workload.seed} {job.launch}")
        runner = Passes(engine, place, draw, context.await_turn)
        parts = list(passes(limits, spec.workload.samples_per_prompt))
        context.send(PhaseBegins(phase="warmup"))
        for sent in parts:
            runner.run(sent)
            context.send(IterationEnds())
        context.send(PhaseBegins(phase="measuring"))
        began, number = time.monotonic(), 0
        while not number or time.monotonic() - began < settings.seconds:
            for part, sent in enumerate(parts):
                steps = runner.run(sent)
                context.send(IterationEnds())
                context.send(StepsObserved(rows=[StepRow(round=number, part=part, **step) for step in steps]))
            number += 1
        arrival_s = runner.arriving_s / runner.arrived
        context.send(EngineLimits(limits=facts | {"rounds": number, "arrival_s": arrival_s}))


def limits_of(engine: LoadedEngine, context_tokens: int | None) -> tuple[Limits, dict[str, Any]]:
    """Return the bounds of an engine's passes, and the fields of the record on its scheduler."""
    config: Any = engine.llm.llm_engine.vllm_config
    cache, scheduler = config.cache_config, config.scheduler_config
    longest = config.model_config.max_model_len
    facts = {
        "kv_blocks": cache.num_gpu_blocks,
        "block_tokens": cache.block_size,
        "captured_sizes": captured_sizes(config),
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "context_tokens": min(context_tokens or longest, longest),
        "async_scheduling": bool(scheduler.async_scheduling),
    }
    limits = Limits(
        facts["max_num_seqs"],
        facts["max_num_batched_tokens"],
        facts["context_tokens"],
        facts["kv_blocks"] * facts["block_tokens"],
    )
    return limits, facts


class Passes:
    """Runs passes, and reads their steps.

    Args:
        engine: a loaded engine with our scheduler.
        place: file to which the scheduler appends the steps.
        draw: source of token ids.
        wait: called when everything is ready for a pass.
    """

    def __init__(self, engine: LoadedEngine, place: Path, draw: random.Random, wait: AwaitTurn) -> None:
        self._engine, self._place, self._draw, self._wait = engine, place, draw, wait
        self.arrived, self.arriving_s = 0, 0.0
        """Number of sequences, and the time until they had arrived, in seconds."""

    def run(self, sent: Sequence[SentSequence]) -> list[dict[str, Any]]:
        """Return the steps of a pass: the fields of `contracts.steps.TimedStep`."""
        llm_engine = self._engine.llm.llm_engine
        samplings = {
            tokens: self._engine.sampling_of([tokens], single=True) for tokens in {each.output_tokens for each in sent}
        }
        lengths = {each.prompt: each.prompt_tokens for each in sent}
        prompts = {
            number: self._draw.choices(range(self._engine.vocabulary), k=length) for number, length in lengths.items()
        }
        self._engine.reset_prefix_cache()
        self._place.unlink(missing_ok=True)
        gc.collect()
        self._wait()
        core = llm_engine.engine_core
        # else the first steps would have those that arrived before them, and the time of their arrival
        core.call_utility("pause_scheduler", "keep", False)
        began = time.monotonic()
        for each in sent:
            self.arrived += 1
            asked = {"prompt_token_ids": prompts[each.prompt]}
            llm_engine.add_request(f"step-{self.arrived}", asked, samplings[each.output_tokens], **self._engine.naming)
        core.call_utility("resume_scheduler")  # the core does all in turn, so they have arrived
        self.arriving_s += time.monotonic() - began
        while llm_engine.has_unfinished_requests():
            llm_engine.step()
        lines = self._place.read_text().splitlines()
        steps: list[dict[str, Any]] = [step for line in lines for step in json.loads(line)]
        return [{"elapsed_s": step.pop("elapsed_ns") / 1e9, **step} for step in steps]
