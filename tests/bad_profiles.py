"""Profiles of llm-d-benchmark and overrides that a user can get wrong, and words of the two lines about each."""

from __future__ import annotations

from bad_comparing import Bad

FILES = {
    "torn.yaml.in": "load: [a\n",
    "list.yaml.in": "- a\n",
    "empty.yaml.in": "",
    "twice.yaml.in": "model: a\nmodel: b\n",
    "bytes.yaml.in": b"\xff\xfe",
    "unfilled.yaml.in": "executable: x\nrandom-input-len: REPLACE_ENV_NOBODY_SAYS\n",
    "two_empty.yaml.in": "executable: x\ndataset-name: sharegpt\ndataset-path: REPLACE_ENV_NO_D/REPLACE_ENV_NO_FILE\n",
    "stags.yaml.in": "load: {stags: [{rate: 1, duration: 30}]}\n",
    "laod.yaml.in": "laod: {stages: [{rate: 1, duration: 30}]}\n",
    "secret.yaml.in": "executable: REPLACE_ENV_BAD_PROFILES_TOKEN\n",
    "flags.yaml.in": (
        "executable: x\nmodel: REPLACE_ENV_LLMDBENCH_DEPLOY_CURRENT_MODEL\nnum-prompts: 4\nmax-concurrency: 1\n"
    ),
}
"""Name -> content of the files in the folder."""


def _of(harness: str, path: str, overrides: str = "{}", more: str = "", top: str = "") -> str:
    load = f"profile: {{harness: {harness}, path: {path}, overrides: {overrides}}}{more}"
    return f"{{modes: [online], workloads: [w], workload_settings: {{w: {{{load}}}}}{top}}}"


def _flags(overrides: str, more: str = "") -> str:
    return _of("vllm-benchmark", "flags.yaml.in", overrides, more)


def _perf(overrides: str) -> str:
    return _of("inference-perf", "sanity_random", overrides)


def _prefix(overrides: str) -> str:
    return _of("inference-perf", "shared_prefix_synthetic_short", overrides)


def _guide(overrides: str) -> str:
    return _of("guidellm", "sanity_concurrent", overrides)


BAD_PROFILES = [
    Bad("harness_misspelt", _of("guidelm", "sanity_random"), "profile.harness: 'guidelm'", "'guidellm'"),
    Bad(
        "harness_missing",
        "{workloads: [w], workload_settings: {w: {profile: {path: a}}}}",
        "profile.harness",
        "guidellm",
    ),
    Bad("path_missing", "{workloads: [w], workload_settings: {w: {profile: {harness: nop}}}}", "profile.path", "path:"),
    Bad("a_word", "{workloads: [w], workload_settings: {w: {profile: guidellm}}}", "profile: 'guidellm'", "harness:"),
    Bad(
        "key_of_ours_misspelt",
        "{workloads: [w], workload_settings: {w: {profile: {harness: nop, path: nop, override: {}}}}}",
        "profile.override",
        "'overrides'",
    ),
    Bad(
        "name_misspelt", _of("guidellm", "sanity_concurent"), "no profile sanity_concurent", "sanity_concurrent.yaml.in"
    ),
    Bad(
        "name_unlike_any",
        _of("guidellm", "xyz"),
        "no profile xyz",
        "it holds: sanity_concurrent.yaml.in",
    ),
    Bad("file_missing", _of("guidellm", "./no/such.yaml"), "no/such.yaml", "give its path"),
    Bad("torn", _of("inference-perf", "torn.yaml.in"), "torn.yaml.in: line", "mend the profile"),
    Bad("a_list", _of("inference-perf", "list.yaml.in"), "must have keys at its top", "mend"),
    Bad("empty", _of("inference-perf", "empty.yaml.in"), "must have keys at its top", "mend"),
    Bad("key_twice", _of("vllm-benchmark", "twice.yaml.in"), "'model' stands twice", "mend"),
    Bad("not_text", _of("vllm-benchmark", "bytes.yaml.in"), "is not UTF-8", "mend"),
    Bad(
        "token_empty",
        _of("vllm-benchmark", "unfilled.yaml.in"),
        "REPLACE_ENV_NOBODY_SAYS: stays empty",
        "export NOBODY",
    ),
    Bad("tokens_empty", _of("vllm-benchmark", "two_empty.yaml.in"), "REPLACE_ENV_NO_FILE: stay", "NO_D=... NO_FILE="),
    Bad("token_secret", _of("vllm-benchmark", "secret.yaml.in"), "may be a secret", "api_key_env"),
    Bad("override_unknown", _perf("{total_cuont: 9}"), "overrides.total_cuont", "'total_count'"),
    Bad("override_of_a_key_to_add", _perf("{base_seed: 7}"), "overrides.base_seed: the", "write load.base_seed"),
    Bad("override_near_a_key_to_add", _perf("{seed: 5}"), "overrides.seed: the", "did you mean load.base_seed"),
    Bad("override_twice", _perf("'rate=3,rate=4'"), "overrides.rate: stands 2 times", "once"),
    Bad("override_unquoted", _perf("'{load.stages[0].rate: 2}'"), "are no overrides", "load.stages.0.rate"),
    Bad("override_above_missing", _perf("{load.a.b: 2}"), "load.a: there is no such key", "known: base_seed"),
    Bad("override_ambiguous", _perf("{type: poisson}"), "keys, which are not alike: load.type and", "load.type"),
    Bad("override_path_unknown", _perf("{load.stagse: 9}"), "load.stagse: there is no such key", "'stages'"),
    Bad("override_above_unknown", _perf("{lod.stages: 9}"), "overrides.lod.stages", "'load.stages'"),
    Bad("override_index_too_high", _perf("{'load.stages[3].rate': 9}"), "load.stages has no 3", "known: 0"),
    Bad("override_no_key", _perf("{'load..rate': 9}"), "overrides.load..rate: is no key", "KEY.KEY"),
    Bad("overrides_a_list", _perf("[min, 20]"), "are no overrides", "KEY: VALUE"),
    Bad("overrides_a_word", _perf("min"), "'min' are no overrides", "KEY=VALUE"),
    Bad("rate_a_word", _perf("{rate: fast}"), "load.stages[0].rate: 'fast'", "in overrides"),
    Bad("rate_zero", _perf("{rate: 0}"), "load.stages[0].rate: 0", "overrides"),
    Bad("duration_negative", _perf("{duration: -3}"), "load.stages[0].duration: -3", "overrides"),
    Bad("rate_too_high", _perf("{rate: 1.0e+300}"), "profile: sanity_random: comes to prompts: 3", "rate x duration"),
    Bad("seconds_too_many", _guide("{seconds: 1e+9}"), "comes to online.duration_s: 1000000000", "overrides"),
    Bad("stages_misspelt", _of("inference-perf", "stags.yaml.in"), "load.stags: there is no such key", "'stages'"),
    Bad("load_misspelt", _of("inference-perf", "laod.yaml.in"), "laod: there is no such key", "'load'"),
    Bad("a_folder", _of("inference-perf", "."), "profile.path: .: is a folder", "name a file"),
    Bad("whole_answers", _perf("{api.streaming: false}"), "api.streaming: asks for whole answers", "true"),
    Bad("whole_answers_by_default", _perf("{api: {type: chat}}"), "api.streaming: asks for whole answers", "true"),
    Bad("whole_answers_of_guidellm", _guide("{spec.backend.stream: false}"), "stream: asks for whole", "true"),
    Bad("no_stages", _perf("{load.stages: []}"), "load.stages: is missing", "rate: 1"),
    Bad("mean_outside", _perf("{mean: 9999}"), "mean: 9999 lies outside", "correct it"),
    Bad("min_above_max", _perf("{min: 9999}"), "min: 9999 is above max", "swap"),
    Bad("load_unknown", _perf("{load.type: constnat}"), "load.type: 'constnat'", "overrides"),
    Bad("trace_sessions", _perf("{load.type: trace_session_replay}"), "sessions of recorded traces", "known: constant"),
    Bad(
        "lora",
        _perf("{load.lora_traffic_split: [{name: a, split: 1.0}]}"),
        "adapters (LoRA)",
        "lora_traffic_split: null",
    ),
    Bad("priority_header", _perf("{api.headers: {x-priority: '1'}}"), "api.headers", "take it out"),
    Bad("pictures", _prefix("{data.shared_prefix.multimodal: {image: {}}}"), "no model that takes pictures", "null"),
    Bad("image_use_case", _of("inference-perf", "use_case_image_classification"), "data.multimodal", "null"),
    Bad("api_key", _perf("{server.api_key: abc}"), "server.api_key", "server.api_key: null"),
    Bad("sweep", _perf("{load.sweep: {type: linear}}"), "write those to try as load.stages", "null"),
    Bad("mode_of_guidellm", _guide("{spec.profile.kind: sweep}"), "spec.profile.kind: 'sweep'", "overrides"),
    Bad(
        "streams_of_throughput",
        _guide("{spec.profile.kind: throughput}"),
        "goes with kind: concurrent",
        "streams: null",
    ),
    Bad("no_end", _guide("{constraints: []}"), "spec.constraints: has no end", "max_duration"),
    Bad("unknown_end", _guide("{'spec.constraints[0].kind': max_errors}"), "max_errors", "max_requests"),
    Bad("extras", _guide("{spec.backend.extras: {body: {priority: 3}}}"), "spec.backend.extras", "null"),
    Bad("two_sets", _guide("{spec.data: [{kind: synthetic_text}, {kind: synthetic_text}]}"), "has 2 sources", "each"),
    Bad(
        "set_of_pictures",
        _guide("{'spec.data[0].kind': synthetic_image}"),
        "pictures, sound and films",
        "synthetic_text",
    ),
    Bad("streams_zero", _guide("{streams: 0}"), "spec.profile.streams: 0", "overrides"),
    Bad("flag_unknown", _flags("{max-concurency: 4}"), "max-concurency: there is no such key", "'max-concurrency'"),
    Bad("flag_lora", _flags("{lora-modules: a}"), "adapters (LoRA)", "lora-modules: null"),
    Bad("flag_header", _flags("{header: x-priority=1}"), "header", "null"),
    Bad("set_unknown", _flags("{dataset-name: sonnet}"), "dataset-name: sonnet", "random"),
    Bad("set_multimodal", _flags("{dataset-name: random-mm}"), "sends pictures", "random"),
    Bad("set_without_file", _flags("{dataset-name: sharegpt}"), "dataset-path: is missing", "write it"),
    Bad("option_of_another_set", _flags("{sharegpt-output-len: 9}"), "belongs to another data set", "null"),
    Bad("range_too_wide", _flags("{random-range-ratio: 1.5}"), "random-range-ratio: 1.5", "overrides"),
    Bad("goodput_garbled", _flags("{goodput: fast}"), "goodput: 'fast'", "overrides"),
    Bad("goodput_unknown", _flags("{goodput: 'itl:50'}"), "goodput.itl", "ttft"),
    Bad("api_and_path", _flags("{backend: openai-chat, endpoint: /v1/completions}"), "endpoint", "same in both"),
    Bad("another_model", _flags("{model: qwen3-9m}"), "is qwen3-9m, and the config measures qwen3-90m", "models"),
    Bad("another_server", _flags("{base-url: 'http://h:1'}"), "http://h:1, which is no endpoint", "endpoints"),
    Bad("prompts_beside", _flags("{}", ", prompts: 8"), "prompts: the profile flags.yaml.in has it too", "overrides"),
    Bad("arrivals_beside", _flags("{}", ", online: {concurrency: 8}"), "online.concurrency: the profile", "overrides"),
    Bad("lm_eval", _of("lm-eval", "flags.yaml.in"), "evaluation: asks how right", "lm-eval itself"),
    Bad("overrides_alone", "overrides: {min: 3}", "overrides: goes with profile", "profile=guidellm"),
    Bad("overrides_misspelt", "{profile: nop/nop, overides: {a: 3}}", "overides: there is", "'overrides'"),
    Bad(
        "overrides_in_two_places",
        "{profile: {harness: nop, path: nop, overrides: {a: 3}}, overrides: {a: 4}}",
        "profile.overrides: stands beside",
        "one of both",
    ),
    Bad("short_no_harness", "profile: sanity_random", "names no harness", "or guidellm/sanity_random"),
    Bad("short_unknown", "profile: xyz", "names no harness", "HARNESS/NAME"),
    Bad("short_folder_of_ones_own", "profile: /tmp/pr/a.yaml", "the folder pr is no harness", "path: /tmp/pr/a.yaml"),
    Bad("short_null", "profile: null", "profile: null is no mapping", "HARNESS/NAME"),
    Bad("short_list", "profile: [a]", "profile: ['a'] is no mapping", "HARNESS/NAME"),
    Bad(
        "mode_misspelt",
        "{modes: [onlin], workloads: [w], workload_settings: {w: {profile: {harness: guidellm, path: sanity_random}}}}",
        "mode 'onlin' is not defined",
        "'online'",
    ),
    Bad(
        "measured_offline",
        "{modes: [offline, startup], workloads: [w], workload_settings: {w: {profile: {harness: guidellm, path: "
        "sanity_random}}}}",
        "w.profile: says how requests arrive",
        "add online",
    ),
    Bad("short_misspelt", "profile: guidelm/sanity_random", "guidelm is no harness", "guidellm"),
]
