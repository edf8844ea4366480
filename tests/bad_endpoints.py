"""Online mode that a user can get wrong: others' servers, arrivals, harness, limits; words the two lines must hold."""

from __future__ import annotations

from bad_comparing import Bad

ADDRESS = "url: 'http://127.0.0.1:9/v1', model: m"


def _endpoint(settings: str) -> str:
    """Return an endpoint alone."""
    return f"{{modes: [online], models: [], endpoints: {{theirs: {{{settings}}}}}}}"


def _at(url: str) -> str:
    """Return an endpoint at this address."""
    return _endpoint(f"url: '{url}', model: m")


def _but(settings: str) -> str:
    """Return an endpoint at a good address."""
    return _endpoint(f"{ADDRESS}, {settings}")


def _online(settings: str) -> str:
    """Return arrivals of the default workload."""
    return f"{{modes: [online], workload_settings: {{demo: {{online: {{{settings}}}}}}}}}"


BAD_URLS = [
    Bad("no_scheme", _at("127.0.0.1:8000/v1"), "theirs.url: '127.0.0.1:8000/v1' is no address", "docs/reference"),
    Bad("a_host_alone", _at("localhost"), "is no address: write http://HOST:PORT/v1", "docs/reference"),
    Bad("another_scheme", _at("ftp://h/v1"), "'ftp://h/v1' is no address", "docs/reference"),
    Bad("a_password", _at("http://me:hush@h/v1"), "theirs.url: holds a user or password", "docs/reference"),
    Bad("a_password_and_a_port", _at("http://me:hush@h:x/v1"), "holds a user or password", "docs/reference"),
    Bad("a_query", _at("http://h/v1?key=hush"), "url: has more than a path: write the address up to", "docs/reference"),
    Bad("port_too_high", _at("http://h:80000/v1"), "'http://h:80000/v1' is no address: Port out", "docs/reference"),
    Bad("port_a_word", _at("http://h:port/v1"), "'http://h:port/v1' is no address", "docs/reference"),
    Bad("port_zero", _at("http://h:0/v1"), "'http://h:0/v1' is no address", "docs/reference"),
    Bad("a_space", _at("http://h /v1"), "'http://h /v1' is no address", "docs/reference"),
    Bad("no_v1", _at("http://h:8000"), "does not end in /v1: did you mean http://h:8000/v1?", "docs/reference"),
    Bad("a_whole_path", _at("http://h/v1/chat/completions"), "did you mean http://h/v1?", "docs/reference"),
    Bad("url_a_number", _endpoint("url: 8000, model: m"), "theirs.url: 8000 should be", "docs/reference"),
    Bad("url_missing", _endpoint("model: m"), "theirs.url: is missing", "set it"),
]

BAD_ENDPOINTS = [
    *BAD_URLS,
    Bad("model_missing", _endpoint("url: 'http://h/v1'"), "theirs.model: is missing", "set it"),
    Bad("no_model", _endpoint("url: 'http://h/v1', model: ''"), "theirs.model: is empty", "docs/reference"),
    Bad("a_key", _but("api_key: hush"), "theirs.api_key: there is no such key", "'api_key_env'? It names an environm"),
    Bad("a_key_by_another_name", _but("token: hush"), "theirs.token: there", "a key must not stand in a config"),
    Bad("a_key_as_variable", _but("api_key_env: sk-hush"), "is no name of an environment variable", "must not stand"),
    Bad("variable_with_dollar", _but("api_key_env: $KEY"), "api_key_env: is no name of an environment", "name that"),
    Bad("key_misspelt", _but("verify_tsl: false"), "theirs.verify_tsl", "did you mean 'verify_tls'?"),
    Bad("tls_a_word", _but("verify_tls: never"), "theirs.verify_tls: 'never'", "docs/reference"),
    Bad("no_tokenizer", _but("tokenizer: /nonexistent"), "theirs.tokenizer: /nonexistent: there is no such", "hub id"),
    Bad("secret_header", _but("headers: {X-Api-Key: hush}"), "X-Api-Key may be a secret: put it", "docs/reference"),
    Bad("authorization", _but("headers: {Authorization: Bearer hush}"), "Authorization may be", "docs/reference"),
    Bad("header_name", _but("headers: {'X Team': blue}"), "'X Team' is no name of a header", "docs/reference"),
    Bad("header_open", _but("headers: {X-Team: '${TEAM'}"), "X-Team has a ${ that begins no", "docs/reference"),
    Bad("header_lines", _but('headers: {X-Team: "a\\nb"}'), "headers.X-Team: holds a line break", "docs/reference"),
    Bad("header_a_list", _but("headers: {X-Key: [hush]}"), "headers.X-Key: what stands there should", "docs/reference"),
    Bad("vocabulary_small", _but("vocabulary: 10"), "theirs.vocabulary: 10 should be greater", "docs/reference"),
    Bad("quant_misspelt", _but("quant: w8a9"), "theirs.quant: quant 'w8a9' is not defined", "did you mean 'w8a8'?"),
    Bad("model_name_a_path", _but("model_name: a/b"), "theirs.model_name: 'a/b' can't be a name", "letters, digits"),
    Bad("name_a_path", _but("quant: bf16").replace("theirs", "a/b"), "'a/b' can't be a name", "letters, digits"),
    Bad("endpoint_a_word", "endpoints: {theirs: 'http://h/v1'}", "endpoints.theirs: 'http://h/v1'", "docs/reference"),
    Bad("endpoints_a_list", "endpoints: [theirs]", "endpoints: ['theirs']", "docs/reference"),
    Bad("endpoints_misspelt", "endpoint: {theirs: {}}", "endpoint: there is no such key", "did you mean 'endpoints'?"),
    Bad(
        "endpoints_offline",
        _but("quant: bf16").replace("[online]", "[offline]"),
        "modes: endpoints are measured online, and modes has no online",
        "add it to modes",
    ),
    Bad(
        "endpoints_alike",
        f"{{modes: [online], endpoints: {{a: {{{ADDRESS}, model_name: m}}, b: {{{ADDRESS}, model_name: m}}}}}}",
        "endpoints.b: is called m unknown, as a is",
        "another model_name or quant",
    ),
    Bad(
        "baseline_of_no_endpoint",
        f"{{{_but('quant: bf16')[1:-1]}, baseline: {{quant: null, model: thiers}}}}",
        "baseline.model: model 'thiers' is not defined",
        "did you mean 'theirs'?",
    ),
    Bad("nothing_to_measure", "{modes: [online], models: []}", "models: is an empty list", "endpoints alone need none"),
]

BAD_ARRIVALS = [
    Bad("rate_zero", _online("request_rate: 0"), "demo.online.request_rate: 0 should be greater", "docs/reference"),
    Bad("rate_negative", _online("request_rate: -1"), "online.request_rate: -1 should be greater", "docs/reference"),
    Bad("rate_a_word", _online("request_rate: fast"), "'fast' is neither a number of requests per", "docs/reference"),
    Bad("rate_true", _online("request_rate: true"), "is true or false, but a rate is wanted", "docs/reference"),
    Bad("rate_a_list", _online("request_rate: [1, 2]"), "request_rate: is a list, which makes a sweep", "docs/ref"),
    Bad("rates_a_number", _online("request_rates: 4"), "a list is wanted: write [4]", "docs/reference"),
    Bad("rates_fall", _online("request_rates: [2, 1]"), "request_rates: [2.0, 1.0] does not rise", "docs/reference"),
    Bad("rates_with_zero", _online("request_rates: [0, 1]"), "online.request_rates.0: 0 should be", "docs/reference"),
    Bad("concurrency_zero", _online("concurrency: 0"), "online.concurrency: 0 should be greater", "docs/reference"),
    Bad("concurrency_a_list", _online("concurrency: [1, 2]"), "concurrency: is a list, which makes", "docs/reference"),
    Bad("concurrency_misspelt", _online("concurency: 4"), "online.concurency", "did you mean 'concurrency'?"),
    Bad("concurrencies_empty", _online("concurrencies: []"), "is an empty list: name at least one", "docs/reference"),
    Bad("concurrencies_equal", _online("concurrencies: [4, 4]"), "[4, 4] does not rise", "docs/reference"),
    Bad(
        "two_sweeps",
        _online("concurrencies: [1, 4], request_rates: [1, 2]"),
        "has concurrencies and request_rates, but sweeps over one of them: keep one",
        "docs/reference",
    ),
    Bad("both_concurrencies", _online("concurrencies: [1], concurrency: 2"), "keep one", "docs/reference"),
    Bad("both_rates", _online("request_rates: [1], request_rate: 2"), "keep one", "docs/reference"),
    Bad("bursts_of_nothing", _online("burstiness: 0.5"), "burstiness shapes arrivals at a request_rate", "docs/ref"),
    Bad("bursts_a_word", _online("burstiness: even, request_rate: 1"), "'even' is neither a number", "docs/reference"),
    Bad("bursts_zero", _online("burstiness: 0, request_rate: 1"), "online.burstiness: 0 should be", "docs/reference"),
    Bad("pause_negative", _online("cool_down_s: -1"), "online.cool_down_s: -1", "docs/reference"),
    Bad("prompts_as_misspelt", _online("prompts_as: txt"), "prompts_as: 'txt' is not known", "did you mean 'text'?"),
    Bad("online_at_the_top", "online: {concurrency: 4}", "online: there", "below workload_settings.<name>"),
    Bad(
        "rate_beside_online",
        "workload_settings: {demo: {request_rate: 4}}",
        "demo.request_rate: there is no such key",
        "write it below workload_settings.<name>.online",
    ),
    Bad(
        "samples_in_one_request",
        "{modes: [online], workload_settings: {demo: {requests: per_prompt}}}",
        "demo.requests: per_prompt hides the latency of each sequence",
        "per_sequence",
    ),
]

BAD_ONLINE = [
    *BAD_ENDPOINTS,
    *BAD_ARRIVALS,
    Bad("mode_misspelt", "modes: [onlin]", "mode 'onlin' is not defined", "did you mean 'online'?"),
    Bad("mode_of_vllm", "modes: [serve]", "mode 'serve' is not defined", "known: cycle, drift, messages, offline"),
    Bad("harness_misspelt", "harness: guidelm", "harness: 'guidelm' is not known", "did you mean 'guidellm'?"),
    Bad("harness_unknown", "harness: wrk", "harness: 'wrk' is not known", "known: guidellm, rollout-bench, vllm-bench"),
    Bad(
        "harness_of_text",
        "{modes: [online], harness: guidellm}",
        "demo.online.prompts_as: token_ids: guidellm sends prompts as text only",
        "set it to text",
    ),
    Bad(
        "harness_without_headers",
        "{modes: [online], models: [], harness: guidellm, workload_settings: {demo: {online: {prompts_as: text}}}, "
        f"endpoints: {{theirs: {{{ADDRESS}, headers: {{X-Key: '${{HUSHED}}'}}}}}}}}",
        "endpoints.theirs.headers: guidellm would write them",
        "leave them out",
    ),
    Bad(
        "command_without_headers",
        "{modes: [online], models: [], harness: vllm-bench, workload_settings: {demo: {online: {prompts_as: text}}}, "
        f"endpoints: {{theirs: {{{ADDRESS}, headers: {{X-Key: '${{HUSHED}}'}}}}}}}}",
        "endpoints.theirs.headers: vllm bench serve would write them, secrets included, on its command line",
        "leave them out",
    ),
    Bad(
        "command_without_a_tokenizer",
        "{modes: [online], models: [], harness: vllm-bench, workload_settings: {demo: {online: {prompts_as: text}}}, "
        f"endpoints: {{theirs: {{{ADDRESS}}}}}}}",
        "endpoints.theirs.tokenizer: vllm bench serve needs one",
        "name the folder or hub id",
    ),
    Bad(
        "core_inside",
        "{modes: [online], engine: {multiprocess: false}}",
        "engine.multiprocess: a server's engine core is always a process of its own",
        "set it to null",
    ),
    Bad("port_chosen", "engine_args: {port: 8000}", "engine_args.port: is set by rollout-bench", "leave it out"),
    Bad("key_chosen", "engine_args: {api_key: hush}", "engine_args.api_key: is set by", "leave it out"),
    Bad("key_of_vllm", "engine: {environment: {VLLM_API_KEY: hush}}", "VLLM_API_KEY: is set by", "a key of its own"),
    Bad("slo_misspelt", "slo: {ttft: 500}", "slo.ttft: there is no such key", "did you mean 'ttft_ms'?"),
    Bad("slo_negative", "slo: {ttft_ms: -1}", "slo.ttft_ms: -1 should be greater", "docs/reference"),
    Bad("slo_a_number", "slo: 500", "slo: 500", "docs/reference"),
    Bad("metric_misspelt", "comparison: {online_metrics: [ttft]}", "'ttft' is not known", "did you mean 'ttft_s'?"),
    Bad("metric_of_transitions", "comparison: {metrics: [cycle_s]}", "name it in cycle_metrics", "docs/reference"),
    Bad("metric_of_servers_in_cycles", "comparison: {cycle_metrics: [e2el_s]}", "in online_metrics", "docs/reference"),
    Bad("metric_of_servers", "comparison: {metrics: [ttft_s]}", "name it in online_metrics", "docs/reference"),
]
