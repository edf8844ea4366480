"""Use of vLLM's `LLM`: import, load, report the loaded engine, and generate one timed iteration."""

import gc
import hashlib
import json
import logging
import math
import multiprocessing
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout_bench.contracts.record import AdapterFacts, Drafting, Iteration, SequenceRow, Witness, routed_bytes_of
from rollout_bench.contracts.spec import MeasuringSpec, Spec, WorkloadSpec, replicas
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.draft_models import args_with_draft
from rollout_bench.measure.engine.lora import adapter_facts, adapter_request, probe_of, prompt_logprobs
from rollout_bench.measure.engine.step_statistics import DRAFTS, StepStatLogger
from rollout_bench.measure.launch.flags import (
    engine_flags,
    graph_flags,
    preempted_flags,
    prefix_cache_flags,
    token_flags,
)
from rollout_bench.measure.launch.protocol import AwaitTurn, IterationDone, Job, PhaseBegins, Ready, SendEvent
from rollout_bench.measure.machine.host import read_environment
from rollout_bench.measure.probes.loaded_weights import (
    CENSUS,
    CODE,
    end_of_text,
    engine_facts,
    note_packed_weights,
    settings_of,
)
from rollout_bench.workloads.requests import ReplicaPart, Request, Source


def passes(measuring: MeasuringSpec, tell: SendEvent, first: int = 0) -> Iterator[tuple[int, bool]]:
    """Yield the index of each iteration and whether it belongs to the warm-up; send each phase as it begins.

    The warm-up has its planned length: lengthening it after seeing the times would bias the mean, by 0.5 % if some
    passes are delayed, by 2 % if passes become faster.

    Args:
        measuring: the numbers of iterations.
        tell: sends an event.
        first: index of the first iteration, if a launch has several loads.
    """
    for number in range(measuring.warmup_iterations + measuring.iterations):
        warmup = number < measuring.warmup_iterations
        if number in (0, measuring.warmup_iterations):
            tell(PhaseBegins(phase="warmup" if warmup else "measuring"))
        yield first + number, warmup


def pass_event(
    workload: WorkloadSpec,
    asked: Sequence[Request],
    iteration: Iteration,
    rows: list[SequenceRow],
    *,
    preemptions: int,
    began: float,
) -> IterationDone:
    """Return the event of a pass in which one engine generated all that was asked for, with what is wrong with it.

    Args:
        workload: the workload.
        asked: its sequences.
        iteration: its result.
        rows: one for each sequence.
        preemptions: number of times that the engine preempted a sequence.
        began: start time on the machine's monotonic clock, in seconds.
    """
    flags = [
        *token_flags(workload, asked, iteration, rows),
        *prefix_cache_flags(asked, iteration, rows),
        *preempted_flags(iteration.index, preemptions),
        *graph_flags(iteration),
    ]
    return IterationDone(iteration=iteration, sequences=rows, flags=flags, began=began)


def source_of(job: Job, vocabulary: int) -> Source:
    """Return the source of the requests of `job`, for a model with `vocabulary` token ids."""
    args = job.spec.engine.args
    theirs = None if job.spec.endpoint is None else job.spec.endpoint.tokenizer
    tokenizer = theirs or args.get("tokenizer") or job.model
    part = ReplicaPart(job.replica, replicas(job.spec))
    return Source(job.spec.workload, vocabulary, tokenizer, job.dataset, bool(args.get("trust_remote_code")), part)


PREEMPTIONS = "vllm:num_preemptions"
"""vLLM's counter of preempted sequences."""

Midway = Callable[[int, int, int], None]
"""Called with the requests in the engine's batch, those that wait, and the tokens of sequences that have begun."""

PROMPT, OUTPUT = "vllm:prompt_tokens", "vllm:generation_tokens"
"""vLLM's counters of tokens."""


@dataclass(frozen=True)
class Generated:
    """A finished pass.

    Attributes:
        began: start time on the machine's monotonic clock, in seconds.
        iteration: its result.
        rows: one for each sequence.
        counters: increase of the engine's own counters.
        recomputed_tokens: tokens that preempted requests computed again; None if the engine does not say.
    """

    began: float
    iteration: Iteration
    rows: list[SequenceRow]
    counters: dict[str, int]
    recomputed_tokens: int | None = None


def arguments(spec: Spec, model: str) -> dict[str, Any]:
    """Return the arguments of an engine of `spec` besides its `model`, a folder or hub id.

    Raises:
        MeasuringFailed: the draft that it needs cannot be made.
    """
    if spec.platform == "cpu":
        note_packed_weights()
    defaults = {"skip_tokenizer_init": True, "disable_log_stats": False, "worker_extension_cls": CENSUS}
    if spec.platform != "cpu":  # which captures no graphs
        defaults["cudagraph_metrics"] = True
    # the supervisor starts each replica as a separate engine
    return defaults | {
        name: value for name, value in args_with_draft(spec, model).items() if name != "data_parallel_size"
    }


def sampling(workload: WorkloadSpec, config: Any, tokens: int, samples: int, **more: Any) -> Any:
    """Return vLLM's parameters of a request for `samples` sequences of at most `tokens` tokens.

    Args:
        workload: the workload.
        config: vLLM's config of the model.
        tokens: tokens of each sequence.
        samples: sequences of the request.
        more: further parameters.
    """
    from vllm import SamplingParams

    # ignore_eos alone fixes the length; min_tokens would add a logits processor that verl's requests don't have.
    return SamplingParams(
        n=samples,
        temperature=workload.temperature,
        top_p=workload.top_p,
        top_k=workload.top_k,
        max_tokens=tokens,
        ignore_eos=workload.ignore_eos,
        stop_token_ids=None if workload.ignore_eos else end_of_text(config),
        detokenize=False,
        logprobs=workload.logprobs,
        **more,
    )


class LoadedEngine:
    """A loaded vLLM engine.

    Args:
        spec: the spec of the launch.
        llm: vLLM's `LLM`, or an object with the same methods.
        adapter: vLLM's LoRARequest that each request names; None without an adapter.
        statistics: statistics of its steps; None if nothing collects them.
    """

    def __init__(self, spec: Spec, llm: Any, adapter: Any = None, statistics: StepStatLogger | None = None) -> None:
        self.llm, self.adapter, self._statistics = llm, adapter, statistics
        self._spec = spec
        self._config: Any = self.llm.llm_engine.vllm_config
        self.vocabulary = int(self._config.model_config.get_vocab_size())
        self.context_tokens = int(self._config.model_config.max_model_len)
        self.block_tokens: int | None = self._config.cache_config.block_size
        self.most_sequences = int(self._config.scheduler_config.max_num_seqs)

    @property
    def naming(self) -> dict[str, Any]:
        """Argument of vLLM's requests that names the adapter; none without one."""
        return {} if self.adapter is None else {"lora_request": self.adapter}

    def send_ready(
        self,
        job: Job,
        context: EngineContext,
        start: "EngineStart",
        init_s: float,
        adapter: AdapterFacts | None = None,
    ) -> None:
        """Report that the engine of `job` is loaded, as `send_ready` does."""
        ranks = self.llm.collective_rpc("rollout_bench_census")
        send_ready(job, context, start, init_s, ranks, self._config, adapter)

    def take_adapter(self, request: Any, sizes: dict[str, int]) -> AdapterFacts:
        """Keep an adapter apart, or merge it, as the spec has it; return what shows that it acts.

        Args:
            request: vLLM's LoRARequest for it.
            sizes: those of its files.
        """
        lora = self._spec.lora
        assert lora is not None, "the spec has an adapter"
        base = self._probed()
        if lora.how == "merged":
            where = {"folder": request.lora_path, "scale": lora.scale}
            held = self.llm.collective_rpc("rollout_bench_merge", kwargs=where)[:1]  # each rank reads the whole model
            return adapter_facts(sizes, held, base, self._probed())
        self.adapter = request
        adapted = self._probed()  # before that vLLM has not read it
        return adapter_facts(sizes, self.llm.collective_rpc("rollout_bench_adapter"), base, adapted)

    def _probed(self) -> list[float]:
        """Return the log probability of each token of the probe but the first."""
        prompt, asked = probe_of(self._config.model_config)
        return prompt_logprobs(self.llm.generate([prompt], asked, use_tqdm=False, **self.naming)[0])

    def iterate(self, asked: Sequence[Request], index: int, wait: AwaitTurn, midway: Midway | None = None) -> Generated:
        """Generate one iteration.

        Args:
            asked: the sequences to generate; samples of the same prompt follow each other.
            index: index of the iteration.
            wait: called when everything is ready; the timed region begins when it returns.
            midway: called after half of the output tokens; no time has what it takes.
        """
        workload = self._spec.workload
        sent = asked if workload.requests == "per_sequence" else asked[:: workload.samples_per_prompt]
        requests = [{"prompt_token_ids": request.prompt_token_ids} for request in sent]
        sampling = self.sampling_of([request.output_tokens for request in sent])
        self.reset_prefix_cache()
        before = self.counters()
        if self._statistics:
            self._statistics.begin()
        gc.collect()
        wait()
        raw = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        began = time.monotonic()
        start = time.perf_counter()
        outputs, pause = self._generate(requests, sampling, sent, midway)
        elapsed_s = time.perf_counter() - start - pause.elapsed_s
        raw_s = time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - raw - pause.elapsed_s
        risen = self.counters()
        risen.subtract(before)
        rows = sequence_rows(outputs, sent, index, began, pause)
        iteration = Iteration(
            index=index,
            warmup=index < self._spec.measuring.warmup_iterations,
            elapsed_s=elapsed_s,
            requests=len(requests),
            sequences=len(rows),
            prompt_tokens=sum(row.prompt_tokens for row in rows),
            cached_prompt_tokens=cached_of(rows, risen.get("vllm:prefix_cache_hits")),
            output_tokens=sum(row.output_tokens for row in rows),
            drafting=drafting_of(risen) if drafts(self._spec) else None,
            graphs=self._statistics.graphs if self._statistics else None,
            routed_bytes=routed_bytes_of(rows),
            witness=Witness(prompt_tokens=risen[PROMPT], output_tokens=risen[OUTPUT], raw_s=raw_s),
        )
        return Generated(
            began, iteration, rows, dict(risen), self._statistics.recomputed_tokens if self._statistics else None
        )

    def _generate(
        self, requests: list[Any], sampling: Any, sent: Sequence[Request], midway: Midway | None
    ) -> tuple[list[Any], "Pause"]:
        """Return vLLM's outputs in the order of the requests, and the pause in which `midway` was called."""
        if midway is None:
            return self.llm.generate(requests, sampling, use_tqdm=False, **self.naming), Pause()
        self.llm.enqueue(requests, sampling, use_tqdm=False, **self.naming)
        engine, ended, counted = self.llm.llm_engine, list[Any](), self._statistics
        assert counted is not None, "an engine of this version counts its steps"
        half = sum(request.output_tokens for request in sent) // 2
        while counted.output_tokens < half and engine.has_unfinished_requests():
            ended += [output for output in engine.step() if output.finished]
        began, start = time.monotonic(), time.perf_counter()  # the engine's process has generated on until here
        under_way = engine.output_processor.request_states.values()
        begun = [each.prompt_len + each.detokenizer.num_output_tokens() for each in under_way if not each.is_prefilling]
        midway(counted.running, len(under_way) - counted.running, sum(begun))
        pause = Pause(began, time.perf_counter() - start)
        ended += self.llm.wait_for_completion(use_tqdm=False)
        return sorted(ended, key=lambda output: int(output.request_id)), pause

    def sampling_of(self, output_tokens: list[int], single: bool = False) -> Any:
        """Return vLLM's parameters: one object if all requests want the same number of tokens, else a list.

        `single`: each request generates one sequence, whatever the workload sets.
        """
        workload = self._spec.workload
        samples = 1 if single or workload.requests == "per_sequence" else workload.samples_per_prompt
        each = {tokens: sampling(workload, self._config.model_config, tokens, samples) for tokens in set(output_tokens)}
        return each[output_tokens[0]] if len(each) == 1 else [each[tokens] for tokens in output_tokens]

    def greedy(self, prompts: Sequence[list[int]], tokens: int) -> list[list[int]]:
        """Return the most likely tokens after each prompt."""
        from vllm import SamplingParams

        how = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        self.reset_prefix_cache()
        outputs = [
            self.llm.generate([{"prompt_token_ids": prompt}], how, use_tqdm=False, **self.naming) for prompt in prompts
        ]
        return [list(output.outputs[0].token_ids) for (output,) in outputs]

    def cached_tokens(self, prompt: list[int]) -> int:
        """Generate a token after a prompt; return the prompt tokens that came from the prefix cache."""
        from vllm import SamplingParams

        how = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False)
        (output,) = self.llm.generate([{"prompt_token_ids": prompt}], how, use_tqdm=False, **self.naming)
        return output.num_cached_tokens or 0

    def reset_prefix_cache(self) -> None:
        """Clear the prefix cache.

        Raises:
            RuntimeError: if blocks are still in use.
        """
        for _ in range(20):  # the blocks of the last request are freed shortly after its output
            if self.llm.reset_prefix_cache() is not False:
                return
            time.sleep(0.05)
        raise RuntimeError("the prefix cache cannot be reset: blocks are still in use after all requests ended")

    def counters(self) -> Counter[str]:
        """Return vLLM's own counters by their names: tokens, prefix cache hits, preemptions and speculative decoding.

        The counter by position is split into `<name>:<position>`.
        """
        totals: Counter[str] = Counter()
        for metric in self.llm.get_metrics():
            read = metric.name in (PROMPT, OUTPUT)  # others begin alike: vllm:prompt_tokens_cached
            if read or metric.name.startswith(("vllm:prefix_cache_hits", PREEMPTIONS, DRAFTS)):
                by_position = getattr(metric, "values", None)
                parts = {"": metric.value} if by_position is None else {f":{n}": it for n, it in enumerate(by_position)}
                totals.update({f"{metric.name}{part}": int(value) for part, value in parts.items()})
        return totals


def drafts(spec: Spec) -> bool:
    """Return whether an engine of `spec` uses speculative decoding."""
    return bool(spec.engine.args.get("speculative_config"))


def drafting_of(risen: Mapping[str, int]) -> Drafting:
    """Return the counts of speculative decoding, from the increase of vLLM's counters."""
    by_position = f"{DRAFTS}accepted_tokens_per_pos:"
    places = sorted(int(name[len(by_position) :]) for name in risen if re.fullmatch(rf"{by_position}[0-9]+", name))
    counts = {name: risen.get(f"{DRAFTS}{name}", 0) for name in ("drafts", "draft_tokens", "accepted_tokens")}
    return Drafting(**counts, accepted_by_position=[risen[f"{by_position}{place}"] for place in places])


@dataclass(frozen=True)
class Pause:
    """A pause in the middle of a pass: its beginning on the monotonic clock and its duration, in seconds."""

    began: float = math.inf
    elapsed_s: float = 0.0

    def without(self, moment: float) -> float:
        """Return a time as it would be without the pause, whose beginning is that of the step that ends in it."""
        return max(self.began, moment - self.elapsed_s) if moment > self.began else moment


def sequence_rows(
    outputs: list[Any], sent: Sequence[Request], iteration: int, began: float, pause: Pause = Pause()
) -> list[SequenceRow]:
    """Return one row for each generated sequence.

    Args:
        outputs: vLLM's RequestOutputs, in the order of the requests.
        sent: the first sample of each request.
        iteration: index of the iteration.
        began: its start time on the monotonic clock, which vLLM's engine core uses too.
        pause: time that does not count.
    """
    rows = []
    for request, output in zip(sent, outputs, strict=True):
        alone = len(output.outputs) == 1  # vLLM keeps the statistics of only one of n samples in a request
        stats = output.metrics if alone else None
        for position, completion in enumerate(output.outputs):
            routed = getattr(completion, "routed_experts", None)  # [tokens, layers, experts of a token]
            rows.append(
                SequenceRow(
                    iteration=iteration,
                    prompt=request.prompt,
                    sample=request.sample + position,
                    prompt_tokens=len(output.prompt_token_ids or ()),
                    cached_prompt_tokens=output.num_cached_tokens if alone else None,
                    output_tokens=len(completion.token_ids),
                    finish_reason=completion.finish_reason,
                    **({} if routed is None else {"routed_tokens": len(routed), "routed_bytes": routed.nbytes}),
                    **{
                        f"{name}_s": round(pause.without(moment) - began, 6)
                        for name in ("queued", "scheduled", "first_token", "last_token")
                        if (moment := getattr(stats, f"{name}_ts", None) or 0.0) > 0.0
                    },
                )
            )
    return rows


def cached_of(rows: Sequence[SequenceRow], counted: int | None) -> int | None:
    """Return prompt tokens from the prefix cache: the sum over rows, or the engine's counter if a row lacks them."""
    cached = [row.cached_prompt_tokens for row in rows if row.cached_prompt_tokens is not None]
    return sum(cached) if len(cached) == len(rows) else counted


def digest_of(token_ids: list[int]) -> str:
    """Return the start of the SHA-256 of token ids, as JSON without spaces."""
    return hashlib.sha256(json.dumps(token_ids, separators=(",", ":")).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class EngineStart:
    """The start of an engine after the import of vLLM.

    Attributes:
        variables: the environment before vLLM changed it.
        import_s: time of the import, in seconds.
        began: start of the engine's construction, by `time.perf_counter`.
        forked: whether a starter had imported it, in the time `import_s`.
    """

    variables: dict[str, str]
    import_s: float
    began: float
    forked: bool = False


def import_engine(context: EngineContext) -> EngineStart:
    """Import vLLM and report the phases."""
    variables = dict(os.environ)
    context.send(PhaseBegins(phase="importing"))
    start = time.perf_counter()
    import vllm  # noqa: F401 (timed separately)
    from vllm import LLM  # noqa: F401 (imported lazily by vllm)

    import_s = time.perf_counter() - start
    context.send(PhaseBegins(phase="initializing"))
    forked = context.import_s is not None
    return EngineStart(variables, context.import_s or import_s, time.perf_counter(), forked)


def send_ready(
    job: Job,
    context: EngineContext,
    start: EngineStart,
    init_s: float,
    ranks: list[dict[str, Any]],
    config: Any,
    adapter: AdapterFacts | None = None,
) -> None:
    """Report that the engine of `job` is loaded; from now on it only logs warnings.

    Args:
        job: the job.
        context: the engine process.
        start: from `import_engine`.
        init_s: time of the engine's construction, in seconds.
        ranks: the census of each worker.
        config: vLLM's config.
        adapter: its adapter, if it has one.
    """
    spec, settings = job.spec, settings_of(config, job.spec.engine.args)
    facts = engine_facts(ranks, settings, vars(config.cache_config)).model_copy(update={"adapter": adapter})
    processes = {child.pid: child.name for child in multiprocessing.active_children() if child.pid is not None}
    processes |= {rank["pid"]: "worker" for rank in ranks if rank["pid"] != os.getpid()}
    context.send(
        Ready(
            import_s=start.import_s,
            init_s=init_s,
            forked=start.forked or None,
            environment=read_environment(spec.engine, spec.platform, ranks[0], settings["world_size"], start.variables),
            engine=facts,
            flags=engine_flags(spec, facts),
            processes=processes,
            vocabulary=settings["vocabulary"],
        )
    )
    for code in dict.fromkeys(json.dumps(rank["code"]) for rank in ranks):
        print(f"{CODE}{code}", flush=True)  # only in the log: a record is shared, and has no path of its machine
    logging.getLogger("vllm").setLevel(logging.WARNING)  # no logging inside the timed region


def load_engine(job: Job, context: EngineContext, *, served: bool = False, **more: Any) -> LoadedEngine:
    """Load the engine of `job`, report it as ready, and return it; from now on it only logs warnings.

    A further job of this process gets the engine that is there, whose start it reports.

    Args:
        job: the job.
        context: the engine process, which keeps the engine for further jobs.
        served: whether its steps are bounded as in vLLM's server if nothing else is set.
        more: vLLM arguments that are not settings of the experiment.
    """
    if context.kept is None:
        start = import_engine(context)
        from vllm import LLM

        bounds = _served_bounds(job.spec) if served else {}
        llm = LLM(model=job.model, **{**bounds, **arguments(job.spec, job.model), **more})
        init_s = time.perf_counter() - start.began
        config = llm.llm_engine.vllm_config
        statistics = StepStatLogger(config)
        llm.llm_engine.logger_manager.stat_loggers.append(statistics)  # LLM takes none
        if config.observability_config.cudagraph_metrics:
            llm.collective_rpc("rollout_bench_report_graphs")
        engine = LoadedEngine(job.spec, llm)
        facts = None if job.spec.lora is None else engine.take_adapter(*adapter_request(job.spec, job.model))
        context.kept = llm, start, init_s, engine.adapter, facts, statistics
    llm, start, init_s, made, facts, statistics = context.kept
    engine = LoadedEngine(job.spec, llm, made, statistics)
    engine.send_ready(job, context, start, init_s, facts)
    return engine


def _served_bounds(spec: Spec) -> dict[str, int]:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    defaults = EngineArgs.get_batch_defaults(spec.engine.args.get("tensor_parallel_size") or 1)
    tokens, sequences = (each[UsageContext.OPENAI_API_SERVER] for each in defaults)
    return {"max_num_batched_tokens": tokens, "max_num_seqs": sequences}
