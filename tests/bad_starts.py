"""Configs that are wrong in what an engine finds when it starts: what is laid over, and words of the two lines."""

from __future__ import annotations

from bad_comparing import Bad


def _start(settings: str, more: str = "") -> str:
    """Return a config of mode startup with these keys of its section, and `more`."""
    return f"{{modes: [startup], startup: {{{settings}}}, {more}}}"


BAD_STARTS = [
    Bad("startup_misspelt_mode", "modes: [start-up]", "mode 'start-up' is not defined", "did you mean 'startup'?"),
    Bad("startup_misspelt_key", _start("cache: [cold]"), "startup.cache: there is no such key", "'caches'"),
    Bad("startup_key_at_the_top", "load_formats: [auto]", "load_formats: there is no such key", "below startup"),
    Bad("startup_empty", "{modes: [startup], startup: null}", "startup: null is no mapping", "docs/reference"),
    Bad("startup_a_list", "{modes: [startup], startup: [cold]}", "startup: ['cold'] is no mapping", "docs/reference"),
    Bad("startup_cache_unknown", _start("caches: [hot]"), "startup.caches.0: 'hot' is not known", "known: cold, warm"),
    Bad("startup_cache_misspelt", _start("caches: [clod]"), "startup.caches.0: 'clod'", "did you mean 'cold'?"),
    Bad("startup_cache_without_brackets", _start("caches: cold"), "write [cold]", "docs/reference"),
    Bad("startup_no_cache", _start("caches: []"), "startup.caches: is an empty list", "docs/reference"),
    Bad("startup_cache_twice", _start("caches: [cold, cold]"), "names 'cold' more than once", "docs/reference"),
    Bad("startup_format_unknown", _start("load_formats: [pickle]"), "'pickle' is not known", "known: auto, dummy"),
    Bad(
        "startup_format_misspelt",
        _start("load_formats: [fast_safetensors]"),
        "'fast_safetensors'",
        "did you mean 'fastsafetensors'?",
    ),
    Bad("startup_launcher_unknown", _start("launchers: [hot]"), "startup.launchers.0: 'hot'", "known: none, warm"),
    Bad("startup_launcher_null", _start("launchers: null"), "startup.launchers: None should be", "docs/reference"),
    Bad(
        "startup_fastsafetensors_on_cpu",
        _start("load_formats: [fastsafetensors]"),
        "startup.load_formats: vLLM loads fastsafetensors to CUDA devices alone, and this is cpu",
        "runai_streamer loads weights here, too",
    ),
    Bad(
        "startup_tensorizer",
        _start("load_formats: [auto, tensorizer]"),
        "startup.load_formats: tensorizer can't be measured on cpu: vLLM serialises weights",
        "leave it out",
    ),
    Bad(
        "startup_load_format_as_argument",
        _start("", "engine_args: {load_format: dummy}"),
        "engine_args.load_format: startup.load_formats says how weights are loaded",
        "set startup.load_formats: [dummy]",
    ),
    Bad(
        "startup_cache_root",
        _start("", "engine: {environment: {VLLM_CACHE_ROOT: /tmp/mine}}"),
        "engine.environment.VLLM_CACHE_ROOT: is set by rollout-bench itself in mode startup",
        "startup.caches says what the engine finds",
    ),
    Bad(
        "startup_swept_and_listed",
        _start("caches: [cold, warm]", "sweep: {startup.caches: [cold, warm]}"),
        "sweep.startup.caches: startup.caches lists several values itself",
        "leave one of them out",
    ),
    Bad(
        "startup_setting_of_several",
        _start("", "settings: [mine], setting_settings: {mine: {startup: {caches: [cold, warm]}}}"),
        "setting_settings.mine.startup.caches: has several values",
        "make a setting of each",
    ),
    Bad(
        "startup_metric_of_cycles",
        _start("", "comparison: {startup_metrics: [cycle_s]}"),
        "comparison.startup_metrics: 'cycle_s' is of transitions",
        "docs/reference",
    ),
    Bad(
        "startup_replicas",
        _start("", "engine_args: {data_parallel_size: 2}"),
        "startup mode measures one engine",
        "data_parallel_size",
    ),
    Bad(
        "startup_repeats",
        _start("repeats: 3"),
        "startup.repeats: there is no such key",
        "known:",
    ),
]
