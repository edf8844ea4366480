"""The shapes of llm-d-benchmark's workload profiles at 8bc9f1d (August 2026): which keys each has, with values of ours.

Of each profile: its keys in dotted form with small numbers, and the key that is refused by name, if one is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

TOKENS = {
    "$M": "REPLACE_ENV_LLMDBENCH_DEPLOY_CURRENT_MODEL",
    "$T": "REPLACE_ENV_LLMDBENCH_DEPLOY_CURRENT_TOKENIZER",
    "$U": "REPLACE_ENV_LLMDBENCH_HARNESS_STACK_ENDPOINT_URL",
    "$C": "REPLACE_ENV_LLMDBENCH_HARNESS_PVC_NAME",
    "$D": "REPLACE_ENV_LLMDBENCH_RUN_DATASET_DIR/REPLACE_ENV_LLMDBENCH_RUN_DATASET_FILE",
}


class Shape(NamedTuple):
    """A profile's keys, and what is refused of them; empty where it is read."""

    harness: str
    name: str
    keys: str
    refused: str = ""

    @property
    def content(self) -> dict[str, Any]:
        """Its keys as a profile nests them."""
        top: dict[str, Any] = {}
        for pair in self.keys.split():
            path, _, value = pair.partition("=")
            for short, token in TOKENS.items():
                value = value.replace(short, token)
            _put(top, path.replace("[", ".[").split("."), yaml.safe_load(value))
        return top


def _put(top: dict[str, Any], parts: list[str], value: Any) -> None:
    here: Any = top
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        inner: Any = value if following is None else [] if following.startswith("[") else {}
        if part.startswith("["):
            number = int(part.strip("[]"))
            if number == len(here):
                here.append(inner)
            here = here[number]
        else:
            here = here.setdefault(part, inner)


_SERVER = "server.type=vllm server.model_name=$M server.base_url=$U"
_EOS = f"{_SERVER} server.ignore_eos=true"
_REPORT = (
    "report.request_lifecycle.summary=true report.request_lifecycle.per_stage=true "
    "report.request_lifecycle.per_request=true storage.local_storage.path=/workspace"
)
_ASKED = "api.type=completion api.streaming=true"
_CHAT = "api.type=chat api.streaming=true"
_M = "tokenizer.pretrained_model_name_or_path=$M"
_T = "tokenizer.pretrained_model_name_or_path=$T"


def _rates(kind: str, count: int, more: str = "") -> str:
    stages = " ".join(f"load.stages[{n}].rate={n + 1} load.stages[{n}].duration={20 + n % 3}" for n in range(count))
    return f"load.type={kind} {stages} {more}"


def _users(count: int, more: str = "") -> str:
    stages = (
        f"load.stages[{n}].concurrency_level={n + 1} load.stages[{n}].num_requests={8 * n + 8}" for n in range(count)
    )
    return f"load.type=concurrent {' '.join(stages)} {more}"


def _random(keys: str) -> str:
    values = {"min": 8, "max": 64, "mean": 32, "std_dev": 4, "std": 4, "total_count": 90}
    ends = [f"{way}_distribution.{key}={values[key]}" for way in ("input", "output") for key in keys.split()]
    return "data.type=random " + " ".join(f"data.{end}" for end in ends)


_REPLAY = "data.type=conversation_replay data.conversation_replay.num_conversations=4"
_REPLAYED = "data.type: conversation_replay: conversations are not sent here"
_FIVE, _FOUR = "min max mean std_dev total_count", "min max mean std_dev"


def _prefix(more: str = "") -> str:
    keys = {"num_groups": 4, "num_prompts_per_group": 8, "system_prompt_len": 64, "question_len": 16, "output_len": 8}
    below = " ".join(f"data.shared_prefix.{key}={value}" for key, value in keys.items())
    return f"data.type=shared_prefix {below} {more}"


def _perf(name: str, load: str, data: str, refused: str = "", api: str = _ASKED, server: str = f"{_EOS} {_M}") -> Shape:
    return Shape("inference-perf", name, f"{load} {api} {server} {data} {_REPORT}", refused)


def _sessions(name: str, stage: str, data: str, tokenizer: str) -> Shape:
    below = " ".join(f"load.stages[0].{key}=4" for key in stage.split())
    load = f"load.type=trace_session_replay {below} load.worker_max_concurrency=9 load.base_seed=7"
    return _perf(name, load, data, "load.type: trace_session_replay", _CHAT, f"{_EOS} {tokenizer}")


def _replay(kind: str, keys: str) -> str:
    return f"data.type={kind} " + " ".join(f"data.{kind}.{key}" for key in keys.split())


_STATIC = "skip_invalid_files=true use_static_model=true static_model_name=$M"
_QUIET = "data.shared_prefix.enable_multi_turn_chat=false"

INFERENCE_PERF = [
    _sessions(
        "agent_llm_traces_v2",
        "concurrent_sessions num_sessions timeout",
        _replay(
            "otel_trace_replay",
            f"hf_dataset_path=a/b {_STATIC} include_errors=false bad_tool_call_handling=none filter=x",
        ),
        _T,
    ),
    _perf(
        "agentic_code_generation",
        _users(5, "load.num_workers=8 load.worker_max_concurrency=50"),
        _REPLAY,
        _REPLAYED,
        server=_SERVER,
    ),
    _perf(
        "chatbot_sharegpt",
        _rates("constant", 4),
        "data.type=shareGPT data.input_distribution.min=8 data.input_distribution.max=64 "
        "data.output_distribution.min=8 data.output_distribution.max=64",
        "data.path: is missing",
    ),
    _perf("chatbot_synthetic", _rates("constant", 4), _random(_FIVE)),
    _perf("code_completion_synthetic", _rates("constant", 4), _random(_FIVE)),
    _perf(
        "guide_kimi-k3-h100_1",
        _users(5),
        _random(_FOUR),
        server=f"{_EOS} {_T} tokenizer.trust_remote_code=true",
    ),
    _perf(
        "guide_multimodal-serving_1",
        _rates("constant", 8, "load.interval=60.0"),
        _prefix(
            f"{_QUIET} data.shared_prefix.multimodal.image=null data.shared_prefix.multimodal.count.type=fixed "
            "data.shared_prefix.multimodal.count.min=4 data.shared_prefix.multimodal.count.max=4 "
            "data.shared_prefix.multimodal.count.mean=4 data.shared_prefix.multimodal.insertion_point=0.0 "
            "data.shared_prefix.multimodal.resolutions[0].resolution=720p "
            "data.shared_prefix.multimodal.resolutions[0].weight=1"
        ),
        "data.shared_prefix.multimodal",
        api=_CHAT,
    ),
    _perf(
        "guide_optimized-baseline_1",
        _rates("poisson", 17, "load.interval=30.0 load.request_timeout=300.0"),
        _prefix(_QUIET),
    ),
    _perf("guide_optimized-baseline_2", _rates("poisson", 8, "load.request_timeout=45"), _prefix(_QUIET)),
    _perf(
        "guide_p2p-kv-cache-sharing_1",
        _users(1, "load.num_workers=8 load.worker_max_concurrency=50 load.request_timeout=180"),
        _REPLAY,
        _REPLAYED,
    ),
    *(
        _perf(
            f"guide_pd-disaggregation_{number}",
            _rates(
                "constant",
                1,
                "load.stages[0].num_requests=null load.stages[0].concurrency_level=null load.num_workers=45 "
                "load.worker_max_concurrency=100",
            ),
            _random(_FOUR),
        )
        for number in (1, 2)
    ),
    *(
        _perf(f"guide_precise-prefix-cache-routing_{n}", _rates("poisson", c, "load.interval=30.0"), _prefix(_QUIET))
        for n, c in ((1, 17), (2, 8))
    ),
    _perf(
        "guide_predicted-latency-routing_1",
        _users(1, "load.num_workers=6 load.request_timeout=300.0"),
        _REPLAY.replace("data.", "tokenizer.data."),
        "tokenizer.data: there is no such key",
    ),
    _perf("guide_tiered-prefix-cache_1", _rates("poisson", 8, "load.interval=60.0"), _prefix(_QUIET)),
    _perf("guide_wide-ep-lws_1", _users(1), _random(_FOUR)),
    _perf(
        "interactive-chat",
        _users(5, "load.num_workers=1"),
        _REPLAY,
        _REPLAYED,
        server=_SERVER,
    ),
    _sessions(
        "otel_traces",
        "concurrent_sessions",
        _replay("otel_trace_replay", f"{_STATIC} trace_directory=/d include_errors=false"),
        _M,
    ),
    _perf(
        "random_concurrent", _users(4), _random("min max mean std"), "data.input_distribution.std: there is no such key"
    ),
    _perf("sanity_random", _rates("constant", 1, "load.request_timeout=30 load.num_workers=1"), _random(_FIVE)),
    _perf(
        "shared_prefix_multi_turn_chat",
        _rates("constant", 4, "load.num_workers=2 load.worker_max_concurrency=10"),
        _prefix("data.shared_prefix.enable_multi_turn_chat=true"),
        "data.shared_prefix.enable_multi_turn_chat",
        server=f"{_EOS} {_T}",
    ),
    _perf("shared_prefix_synthetic", _rates("constant", 7), _prefix(), server=f"{_EOS} {_T}"),
    _perf(
        "shared_prefix_synthetic_heavy", _rates("constant", 2, "load.num_workers=2"), _prefix(), server=f"{_EOS} {_T}"
    ),
    _perf("shared_prefix_synthetic_short", _rates("constant", 1), _prefix(), server=f"{_EOS} {_T}"),
    _perf("summarization_synthetic", _rates("constant", 4), _random(_FIVE)),
    _sessions(
        "weka_traces",
        "concurrent_sessions num_sessions timeout",
        _replay(
            "weka_trace_replay",
            f"hf_dataset_path=a/b num_dataset_entries=4 {_STATIC} default_block_size=64 trace_idle_gap_cap_seconds=1.0 "
            "bad_tool_call_handling=none filter=x",
        ),
        _T,
    ),
]


def _guide(name: str, profile: str, rest: str, refused: str = "", asks: str = "/v1/completions") -> Shape:
    backend = (
        f"spec.backend.kind=openai_http spec.backend.target=$U spec.backend.model=$M spec.backend.request_format={asks}"
    )
    return Shape("guidellm", name, f"{backend} spec.data[0].kind=synthetic_text {profile} {rest}", refused)


_SECONDS = "spec.constraints[0].kind=max_duration spec.constraints[0].seconds=20"
_SPREAD = " ".join(
    f"spec.data[0].{way}_tokens{end}={value}"
    for way in ("prompt", "output")
    for end, value in (("", 32), ("_stdev", 4), ("_min", 8), ("_max", 64))
)
_FIXED = "spec.data[0].prompt_tokens=32 spec.data[0].output_tokens=8"
_CHATS = "/v1/chat/completions"
_LABELS = "metadata.labels.name=a metadata.labels.description=b"


def _streams(*counts: int, more: str = "") -> str:
    """Return benchmarks that change how many streams there are, whose keys are paths themselves."""
    one = '{"profile.streams":%d,"constraints[0].count":%d}' if more else '{"profile.streams":%d}'
    listed = ",".join(one % ((users, 10 * users) if more else (users,)) for users in counts)
    return f"benchmarks=[{listed}]"


GUIDELLM = [
    _guide(
        "concurrent-1k-1k",
        f"{_LABELS} spec.profile.kind=concurrent",
        f"{_FIXED} {_SECONDS} {_streams(30, 20, 10, 5, 1)}",
        asks=_CHATS,
    ),
    _guide(
        "concurrent-heavy-heterogeneous",
        f"{_LABELS} spec.profile.kind=concurrent",
        f"{_SPREAD} {_SECONDS} {_streams(30, 20, 10, 5, 1)}",
        asks=_CHATS,
    ),
    _guide(
        "multi-turn",
        f"{_LABELS} spec.profile.kind=concurrent",
        f"{_FIXED} spec.data[0].turns=5 spec.data[0].prefix_buckets[0].prefix_tokens=100 "
        "spec.data[0].prefix_buckets[0].prefix_count=16 spec.constraints[0].kind=max_requests "
        f"{_streams(4, 8, more='count')}",
        "spec.data[0].turns: 5: conversations are not sent here",
        asks=_CHATS,
    ),
    _guide("sanity_concurrent", "spec.profile.kind=concurrent spec.profile.streams=2", f"{_FIXED} {_SECONDS}"),
    _guide("sanity_random", "spec.profile.kind=constant spec.profile.rate=1", f"{_SPREAD} {_SECONDS}"),
    _guide(
        "summarization_synthetic",
        "spec.profile.kind=constant spec.profile.rate=[1,2,4,8]",
        f"{_SPREAD} {_SECONDS} spec.data_loader.kind=pytorch spec.data_loader.samples=100",
    ),
]

_FLAGS = (
    "executable=benchmark_serving.py model=$M base-url=$U max-concurrency=2 num-prompts=8 "
    "percentile-metrics=ttft,tpot metric-percentiles=99"
)
_RANDOM = f"{_FLAGS} dataset-name=random random-input-len=64 random-output-len=8 ignore-eos=none"

OTHERS = [
    Shape(
        "vllm-benchmark",
        "fixed_dataset",
        f"{_FLAGS} dataset-name=custom dataset-path=$D ignore-eos=none custom-output-len=-1",
    ),
    Shape("vllm-benchmark", "random_concurrent", _RANDOM),
    Shape("vllm-benchmark", "sanity_random", f"{_FLAGS} dataset-name=random"),
    Shape(
        "vllm-benchmark",
        "sharegpt",
        f"{_FLAGS} dataset-name=sharegpt dataset-path=$D request-rate=8 sharegpt-output-len=64 ignore-eos=none",
        "sharegpt-output-len",
    ),
    Shape(
        "vllm-benchmark",
        "sonnet_concurrent",
        f"{_FLAGS} request-rate=20 backend=openai-chat endpoint={_CHATS} dataset-name=sonnet dataset-path=/sonnet.txt "
        "sonnet-input-len=64 sonnet-output-len=8 sonnet-prefix-len=32 ignore-eos=none",
        "dataset-name: sonnet",
    ),
    Shape("inferencemax", "random_concurrent", f"{_RANDOM} request-rate=inf backend=vllm result-filename=result.json"),
    Shape("nop", "nop", "model_name=$M pvc_name=$C"),
    Shape(
        "aiperf",
        "dataset",
        "model=$M url=$U endpoint-type=chat streaming=none concurrency=4 request-count=9 input-file=$D "
        "custom-dataset-type=mooncake_trace use-server-token-count=none tokenizer-trust-remote-code=none "
        "no-server-metrics=none",
        "custom-dataset-type",
    ),
    Shape(
        "aiperf",
        "synthetic",
        "model=$M url=$U endpoint-type=chat streaming=none concurrency=4 request-count=9 isl=64 osl=8 "
        "extra-inputs='ignore_eos:true' use-server-token-count=none tokenizer-trust-remote-code=none "
        "no-server-metrics=none",
        "endpoint-type",
    ),
    Shape(
        "lm-eval",
        "accuracy_default",
        "evaluation.tasks=[a,b] evaluation.num_fewshot=0 evaluation.limit=null evaluation.num_concurrent=4",
        "evaluation",
    ),
    Shape(
        "priority-mix",
        "priority_mix",
        "endpoint_url=$U model=$M api.type=chat api.path=/v1/chat/completions load.duration_seconds=9 "
        "load.rate_per_second=6 load.max_in_flight=2 load.request_timeout_seconds=9 load.fail_on_error=false "
        "request.prompt=a request.max_tokens=8 request.stream=true trafficClasses[0].name=a trafficClasses[0].weight=1 "
        "trafficClasses[0].priority=100 trafficClasses[0].objective=b trafficClasses[0].fairnessID=c "
        "trafficClasses[0].request.promptTemplate=d trafficClasses[0].request.promptRepeat=2 "
        "trafficClasses[0].request.max_tokens=8",
        "trafficClasses",
    ),
    *(
        Shape(
            "eval-containers",
            name,
            f"harness=eval-containers benchmark={name} description=a tasks=9 internet=false model=$M endpoint=$U",
            "benchmark",
        )
        for name in ("aider-polyglot", "gaia")
    ),
]

SHAPES = [*INFERENCE_PERF, *GUIDELLM, *OTHERS]
