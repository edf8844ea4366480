"""Loads that a user can get wrong: overlays, run in a folder with the files below, and words of the two lines."""

from __future__ import annotations

import json

from bad_comparing import Bad

FILES = {
    "trace.jsonl": '{"prompt_tokens": 40, "output_tokens": 8}\n' * 9 + '{"prompt_tokens": 20, "output_tokens": 30}\n',
    "arriving.jsonl": '{"prompt_tokens": 40, "output_tokens": 8, "arrival_s": 0}\n' * 9,
    "long.jsonl": '{"prompt_tokens": 90000, "output_tokens": 8}\n' * 9,
    "prompts.txt": "What is a rollout?\n" * 9,
    "ids.jsonl": '{"prompt": [5, 999999]}\n' * 9,
    "outputs.jsonl": '{"prompt": "Hi", "output_tokens": 900}\n' * 9,
    "sharegpt.json": json.dumps(
        [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}] * 9
    ),
    "empty.jsonl": "",
}
"""Name -> content of the files in the folder."""


LOG = "distribution: lognormal, median: 8, sigma: 1"


def _demo(settings: str) -> str:
    """Return changes to the default workload."""
    return f"workload_settings: {{demo: {settings.replace('LOG', LOG)}}}"


def _online(settings: str) -> str:
    """Return changes to the default workload, which is measured online."""
    return f"{{modes: [online], {_demo(settings if settings.startswith('{') else f'{{{settings}}}')}}}"


def _traced(settings: str, file: str = "trace.jsonl") -> str:
    """Return a workload from a trace."""
    load = f"prompts: 8, dataset: {{format: trace, path: {file}}}, {settings.replace('LOG', LOG)}"
    return f"{{workloads: [traced], workload_settings: {{traced: {{{load}}}}}}}"


def _file(format: str, path: str, more: str = "prompts: 8") -> str:
    """Return the default workload from a data set."""
    return _demo(f"{{dataset: {{format: {format}, path: {path}}}, {more}}}")


def _with(more: str, settings: str) -> str:
    """Further settings beside those of a workload."""
    return f"{{{settings}, {more}}}"


BAD_LOADS = [
    Bad("kind_misspelt", _demo("{output_tokens: {distribution: lognormla}}"), "lognormla", "'lognormal'"),
    Bad("kind_missing", _demo("{output_tokens: {high: 9}}"), "output_tokens.distribution: is missing", "uniform"),
    Bad("key_of_kind", _demo("{output_tokens: {LOG, hgih: 9}}"), "output_tokens.hgih", "'high'"),
    Bad("no_upper_bound", _demo("{output_tokens: {LOG}}"), "output_tokens.high: is missing", "set it"),
    Bad("std_missing", _demo("{prompt_tokens: {distribution: normal, mean: 9, high: 9}}"), "std: is missing", "set"),
    Bad("bounds_swapped", _demo("{prompt_tokens: {distribution: uniform, low: 9, high: 4}}"), "low 9 is", "reference"),
    Bad("low_zero", _demo("{prompt_tokens: {distribution: uniform, low: 0, high: 4}}"), "low: 0", "reference"),
    Bad("length_a_word", _demo("{prompt_tokens: long}"), "prompt_tokens: 'long'", "reference"),
    Bad("length_a_list", _demo("{prompt_tokens: [1, 9]}"), "prompt_tokens: [1, 9]", "reference"),
    Bad(
        "bounds_in_the_tail",
        _demo("{output_tokens: {distribution: normal, mean: 900, std: 9, low: 1, high: 32}}"),
        "demo.output_tokens: hardly any of the distribution lies from low 1 to high 32",
        "put the bounds",
    ),
    Bad(
        "too_long_by_its_tail",
        _with("engine_args: {max_model_len: 99}", _demo("{prompt_tokens: 64, output_tokens: {LOG, high: 900}}")),
        "64 prompt + 900 output tokens = 964",
        "raise max_model_len to 964",
    ),
    Bad(
        "samples_of_one_request",
        _demo("{requests: per_prompt, output_tokens: {LOG, high: 9}}"),
        "demo.output_tokens: is a distribution, and the samples of one request share one length",
        "per_sequence",
    ),
    Bad("prefix_a_number", _demo("{shared_prefix: 16}"), "demo.shared_prefix: 16", "reference"),
    Bad("prefix_zero", _demo("{shared_prefix: {tokens: 0}}"), "shared_prefix.tokens: 0", "reference"),
    Bad(
        "prefix_too_long",
        _demo("{prompt_tokens: 64, shared_prefix: {tokens: 64}}"),
        "64 leave nothing of prompt_tokens",
        "to 63",
    ),
    Bad(
        "prefix_longer_than_some",
        _demo("{shared_prefix: {tokens: 9}, prompt_tokens: {distribution: uniform, low: 4, high: 40}}"),
        "9 leave nothing of prompt_tokens.low, 4",
        "set it to 3",
    ),
    Bad("prefix_longer_than_traced", _traced("shared_prefix: {tokens: 20}"), "the trace's shortest prompt, 20", "19"),
    Bad(
        "more_groups_than_prompts",
        _demo("{prompts: 8, shared_prefix: {tokens: 4, groups: 9}}"),
        "groups: 9 are more",
        "to 8",
    ),
    Bad("dataset_a_path", _demo("{dataset: trace.jsonl}"), "demo.dataset: 'trace.jsonl'", "reference"),
    Bad("format_unknown", _file("csv", "trace.jsonl"), "demo.dataset.format: 'csv' is not known", "trace"),
    Bad("file_missing", _file("prompts", "nowhere.txt"), "demo.dataset: nowhere.txt: cannot be read", "correct"),
    Bad("file_a_folder", _file("prompts", "."), "cannot be read: Is a directory", "name a file"),
    Bad("file_empty", _file("prompts", "empty.jsonl"), "empty.jsonl: holds no prompts", "one prompt a line"),
    Bad("trace_is_text", _traced("seed: 0", "prompts.txt"), "traced.dataset: prompts.txt: line 1: is no JSON", "trace"),
    Bad("sharegpt_is_lines", _file("sharegpt", "trace.jsonl"), "trace.jsonl: is no JSON", "one JSON list"),
    Bad("prompts_is_a_trace", _file("prompts", "trace.jsonl"), "line 1: prompt is null", "plain text"),
    Bad("too_few_entries", _file("prompts", "prompts.txt", "prompts: 10"), "prompts: 10 are more than the 9", "to 9"),
    Bad("trace_with_lengths", _traced("prompt_tokens: 64"), "traced.prompt_tokens: has no meaning", "leave"),
    Bad(
        "trace_with_distribution",
        _traced("output_tokens: {LOG, high: 9}"),
        "traced.output_tokens: has no meaning beside a trace",
        "leave output_tokens out",
    ),
    Bad("trace_too_long", _traced("seed: 0", "long.jsonl"), "needs 90008 positions", "90008"),
    Bad(
        "trace_over_max_model_len",
        _with("engine_args: {max_model_len: 49}", _traced("seed: 0")[1:-1]),
        "20 prompt + 30 output tokens = 50 are more than max_model_len 49",
        "raise max_model_len to 50",
    ),
    Bad(
        "text_with_distribution",
        _file("prompts", "prompts.txt", "prompt_tokens: {distribution: uniform, high: 9}"),
        "demo.prompt_tokens: is a distribution, but the prompts of a prompts data set have their own",
        "give a number",
    ),
    Bad(
        "answers_with_distribution",
        _file("sharegpt", "sharegpt.json", "output_tokens: {LOG, high: 9}"),
        "says how long its outputs are",
        "give a number",
    ),
    Bad(
        "outputs_too_long",
        _file("prompts", "outputs.jsonl", "prompts: 8, output_tokens: 32"),
        "outputs of 900 tokens, more than 32",
        "to 900",
    ),
    Bad("ids_unknown", _file("prompts", "ids.jsonl"), "has token id 999999, qwen3-90m has", "tokenizer"),
    Bad(
        "no_tokenizer",
        _with("model_settings: {qwen3-90m: {synthetic: {shape: {vocab_size: 200}}}}", _file("prompts", "prompts.txt")),
        "qwen3-90m with 200 token ids is too small for a tokenizer",
        "vocab_size of 256",
    ),
    Bad(
        "weights_without_tokenizer",
        _with(
            "models: [o], quants: [bf16], model_settings: {o: {weights: {bf16: .}}}, model_base: .",
            _file("prompts", "prompts.txt"),
        ),
        "holds no tokenizer",
        "put its tokenizer files",
    ),
    Bad(
        "text_for_another_s_server",
        _with(
            "modes: [online], models: [], endpoints: {theirs: {url: 'http://127.0.0.1:9/v1', model: m}}",
            _file("prompts", "prompts.txt"),
        ),
        "demo.dataset: is text, and theirs has no tokenizer here",
        "as token ids",
    ),
    Bad("arrivals_of_no_trace", _demo("{online: {request_rate: trace}}"), "is trace, and the workload", "name a data"),
    Bad(
        "time_of_all_at_once",
        _demo("{online: {duration_s: 30}}"),
        "demo.online: duration_s says for how long requests are sent, and all are sent at once",
        "reference",
    ),
    Bad("time_zero", _demo("{online: {concurrency: 2, duration_s: 0}}"), "online.duration_s: 0", "reference"),
    Bad(
        "end_of_no_time", _demo("{online: {concurrency: 2, at_end: wait}}"), "and there is none: give one", "reference"
    ),
    Bad(
        "longer_than_a_launch",
        _with("modes: [online], iterations: 5, timeout_s: 900", _demo("{online: {concurrency: 2, duration_s: 600}}")),
        "demo.online: 2 at once for 600 s in 6 passes take 3600 s, and timeout_s allows a launch 900 s",
        "set timeout_s to 4260",
    ),
    Bad("end_unknown", _demo("{online: {concurrency: 2, duration_s: 2, at_end: drain}}"), "at_end: 'drain'", "cut"),
    Bad(
        "too_few_prompts_for_the_time",
        _demo("{prompts: 8, samples_per_prompt: 2, online: {request_rate: 4, duration_s: 30}}"),
        "demo.online.duration_s: 4 req/s for 30 s are 120 requests, and 8 prompts x 2 samples are 16",
        "set prompts to 60 or more",
    ),
    Bad(
        "too_few_prompts_for_a_stage",
        _demo("{prompts: 9, samples_per_prompt: 1, online: {stages: [{request_rate: 5, duration_s: 2}]}}"),
        "stage 1: 5 req/s for 2 s are 10 requests, and 9 prompts are 9",
        "set prompts to 10 or more",
    ),
    Bad(
        "too_few_prompts_for_the_requests",
        _demo("{prompts: 9, samples_per_prompt: 1, online: {concurrency: 2, requests: 64}}"),
        "online.requests: 2 at once for 64 requests are 64 requests, and 9 prompts are 9",
        "set prompts to 64 or more",
    ),
    Bad(
        "time_and_number",
        _demo("{online: {concurrency: 2, duration_s: 2, requests: 9}}"),
        "demo.online: has duration_s and requests, each of which says when sending ends",
        "reference",
    ),
    Bad("number_zero", _demo("{online: {concurrency: 2, requests: 0}}"), "online.requests: 0", "reference"),
    Bad("timeout_negative", _demo("{online: {request_timeout_s: -1}}"), "online.request_timeout_s: -1", "reference"),
    Bad(
        "timeout_through_guidellm",
        _with("modes: [online], harness: guidellm", _demo("{online: {request_timeout_s: 9, prompts_as: text}}")),
        "demo.online.request_timeout_s: guidellm gives up no request",
        "leave request_timeout_s out",
    ),
    Bad("api_unknown", _demo("{online: {api: responses}}"), "online.api: 'responses' is not known", "chat"),
    Bad(
        "chat_through_guidellm",
        _with("modes: [online], harness: guidellm", _demo("{online: {api: chat, prompts_as: text}}")),
        "demo.online.api: chat: guidellm is told here to ask for completions",
        "leave api out",
    ),
    Bad("stages_empty", _demo("{online: {stages: []}}"), "demo.online.stages: is an empty list", "reference"),
    Bad("stage_a_number", _demo("{online: {stages: [4]}}"), "demo.online.stages.0: 4", "reference"),
    Bad("stage_misspelt", _demo("{online: {stages: [{rate: 4}]}}"), "stages.0.rate", "request_rate"),
    Bad(
        "stages_beside_a_rate",
        _demo("{online: {request_rate: 4, stages: [{request_rate: 5}]}}"),
        "demo.online: has stages, each of which says how its requests are sent",
        "reference",
    ),
    Bad(
        "stages_beside_a_sweep",
        _demo("{online: {concurrencies: [1, 2], stages: [{request_rate: 5}]}}"),
        "has concurrencies and stages",
        "reference",
    ),
    Bad(
        "time_of_guidellm",
        _with(
            "modes: [online], harness: guidellm", _demo("{online: {concurrency: 2, duration_s: 3, prompts_as: text}}")
        ),
        "demo.online.duration_s: guidellm sends a number of requests",
        "leave duration_s out",
    ),
    *(
        Bad(
            f"{name}_of_vllm_bench",
            _with("modes: [online], harness: vllm-bench", _demo(f"{{online: {{{load}, prompts_as: text}}}}")),
            f"demo.online.{name}: vllm bench serve {why}",
            f"set harness: rollout-bench, or leave {name} out",
        )
        for name, load, why in (
            ("duration_s", "concurrency: 2, duration_s: 9", "sends a number of requests"),
            ("request_timeout_s", "request_timeout_s: 3", "gives up no request"),
        )
    ),
    Bad(
        "token_ids_of_vllm_bench",
        _with("modes: [online], harness: vllm-bench", _demo("{online: {concurrency: 2}}")),
        "demo.online.prompts_as: token_ids: vllm bench serve sends prompts as text only",
        "set it to text",
    ),
    Bad("arrivals_not_said", _traced("online: {request_rate: trace}"), "does not say when requests", "add arrival_s"),
]
