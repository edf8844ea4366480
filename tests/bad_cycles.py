"""Configs that are wrong in what happens between two generations: what is laid over, and words of the two lines."""

from __future__ import annotations

from bad_comparing import Bad


def _cycle(settings: str, more: str = "") -> str:
    """Return a config of mode cycle with these keys of its section, and `more`."""
    return f"{{modes: [cycle], cycle: {{{settings}}}, {more}}}"


NAMED = "models: [m], quants: [bf16], model_settings: {m: {weights: {bf16: a}}}"

BAD_CYCLES = [
    Bad("cycle_misspelt_mode", "modes: [cycles]", "mode 'cycles' is not defined", "did you mean 'cycle'?"),
    Bad("cycle_misspelt_key", _cycle("sleeps: [1]"), "cycle.sleeps: there is no such key", "did you mean 'sleep'?"),
    Bad("cycle_key_at_the_top", "repeats: 40", "config: repeats: there is no such key", "write it below cycle"),
    Bad(
        "cycle_repeats_at_the_top",
        "repeats: 5",
        "config: repeats: there is no such key",
        "write it below cycle or placement",
    ),
    Bad("cycle_empty", "{modes: [cycle], cycle: null}", "cycle: null is no mapping", "docs/reference"),
    Bad("cycle_a_list", "{modes: [cycle], cycle: [reload]}", "cycle: ['reload'] is no mapping", "docs/reference"),
    Bad(
        "cycle_sleep_on_cpu",
        _cycle("sleep: [1]"),
        "cycle.sleep: 1: vLLM can't put an engine to sleep on cpu",
        "set cycle.sleep: [none]",
    ),
    Bad(
        "cycle_one_of_several_sleeps_on_cpu",
        _cycle("sleep: [none, 2]"),
        "cycle.sleep: 2: vLLM can't put an engine to sleep on cpu",
        "set cycle.sleep: [none]",
    ),
    Bad(
        "cycle_setting_sleeps_on_cpu",
        _cycle("", "settings: [default, deep], setting_settings: {deep: {cycle: {sleep: [2]}}}"),
        "cycle.sleep: 2: vLLM can't put an engine to sleep on cpu",
        "set cycle.sleep: [none]",
    ),
    Bad("cycle_level_too_deep", _cycle("sleep: [3]"), "cycle.sleep.0: '3' is not known", "known: 1, 2, none"),
    Bad("cycle_level_in_words", _cycle("sleep: [deep]"), "cycle.sleep.0: 'deep' is not known", "known: 1, 2, none"),
    Bad("cycle_level_of_python", _cycle("sleep: [None]"), "cycle.sleep.0: 'None'", "did you mean 'none'?"),
    Bad("cycle_level_true", _cycle("sleep: [true]"), "cycle.sleep.0: True is not known", "known: 1, 2, none"),
    Bad("cycle_level_without_brackets", _cycle("sleep: 1"), "cycle.sleep: is the single value 1", "docs/reference"),
    Bad("cycle_none_without_brackets", _cycle("sleep: none"), "a list is wanted: write [none]", "docs/reference"),
    Bad("cycle_no_level", _cycle("sleep: []"), "cycle.sleep: is an empty list", "docs/reference"),
    Bad("cycle_level_twice", _cycle("sleep: [1, '1']"), "cycle.sleep: names '1' more than once", "docs/reference"),
    Bad("cycle_levels_a_mapping", _cycle("sleep: {level: 1}"), "cycle.sleep: {'level': 1} should be", "docs/reference"),
    Bad(
        "cycle_weight_transfer_of_vllm",
        _cycle("", "platform: cuda, engine_args: {weight_transfer_config: {backend: nccl}}"),
        "weight_transfer_config: is set by rollout-bench itself in mode cycle",
        "leave it out, or leave cycle out of modes",
    ),
    Bad("cycle_update_misspelt", _cycle("update: [inprocess]"), "update.0: 'inprocess'", "did you mean 'in_process'?"),
    Bad("cycle_update_without_brackets", _cycle("update: reload"), "write [reload]", "docs/reference"),
    Bad("cycle_update_null", _cycle("update: null"), "cycle.update: None should be a valid list", "docs/reference"),
    Bad("cycle_two_repeats", _cycle("repeats: 2"), "cycle.repeats: 2 should be greater than or equal to 3", "docs/ref"),
    Bad("cycle_repeats_auto", _cycle("repeats: auto"), "cycle.repeats: 'auto' should be a valid integer", "docs/ref"),
    Bad(
        "cycle_wake_without_sleep",
        _cycle("sleep: [none], wake: together", "platform: cuda"),
        "cycle.wake: is together, and no engine sleeps",
        "leave it out, or set cycle.sleep: [2]",
    ),
    Bad("cycle_wake_unknown", _cycle("wake: splitted"), "cycle.wake: 'splitted' is not known", "did you mean 'split'?"),
    Bad("cycle_change_a_word", _cycle("change: maybe"), "cycle.change: 'maybe' should be a valid bool", "docs/ref"),
    Bad(
        "cycle_sleep_mode_of_vllm",
        _cycle("", "engine_args: {enable_sleep_mode: true}"),
        "enable_sleep_mode: is set by rollout-bench itself in mode cycle",
        "cycle.sleep says whether engines sleep",
    ),
    Bad(
        "cycle_worker_extension",
        _cycle("", "engine_args: {worker_extension_cls: mine.Worker}"),
        "engine_args.worker_extension_cls: is set by rollout-bench itself",
        "leave it out",
    ),
    Bad(
        "cycle_replicas",
        _cycle("", "engine_args: {data_parallel_size: 2}"),
        "data_parallel_size: qwen3-90m has 2 replicas, and cycle mode measures one engine",
        "leave data_parallel_size out, or leave cycle out of modes",
    ),
    Bad(
        "cycle_lora",
        _cycle("", "engine_args: {enable_lora: true}"),
        "enable_lora: no request of a launch names an adapter",
        "leave it out",
    ),
    Bad(
        "cycle_draft_model",
        _cycle("", "engine_args: {speculative_config: {model: draft, num_speculative_tokens: 2}}"),
        "speculative_config: an update gives the engine the model's weights",
        "take a method without weights",
    ),
    Bad(
        "cycle_reload_of_dummy_weights",
        _cycle("update: [reload]", "engine_args: {load_format: dummy}"),
        "load_format: dummy weights are those of no checkpoint",
        "leave it out",
    ),
    Bad(
        "cycle_reload_of_named_weights",
        _cycle("update: [reload]", NAMED),
        "m has no second checkpoint that cycle.update: reload could take other weights from",
        "set cycle.change: false, or cycle.update: [in_process]",
    ),
    Bad(
        "cycle_in_process_of_a_format_of_its_own",
        _cycle("", "models: [m], quants: [w8a8], model_settings: {m: {weights: {w8a8: a}}}"),
        "m has its w8a8 weights in a checkpoint of their own",
        "set cycle.update: [reload] and cycle.change: false",
    ),
    Bad(
        "cycle_of_endpoints",
        "{modes: [cycle], models: [], endpoints: {e: {url: 'http://h:1/v1', model: m}}}",
        "endpoints are measured online, and modes has no online",
        "add it to modes",
    ),
    Bad(
        "cycle_misspelt_key_of_a_setting",
        _cycle("", "settings: [default, a], setting_settings: {a: {cycle: {updat: [reload]}}}"),
        "setting_settings.a.cycle.updat: there is no such key",
        "did you mean 'update'?",
    ),
    Bad(
        "cycle_setting_with_two_values",
        _cycle("", "settings: [default, a], setting_settings: {a: {cycle: {update: [reload, in_process]}}}"),
        "setting_settings.a.cycle.update: has several values",
        "make a setting of each, or list them in cycle.update",
    ),
    Bad(
        "cycle_setting_of_a_name_that_lists_make",
        _cycle(
            "update: [in_process, reload]",
            "settings: [default, update-reload], setting_settings: {update-reload: {cycle: {update: [reload]}}}",
        ),
        "cycle.update: makes a setting 'update-reload', as setting_settings.update-reload",
        "rename or leave out one of them",
    ),
    Bad(
        "cycle_setting_misspelt",
        _cycle("update: [in_process, reload]", "settings: [update-relaod]"),
        "setting 'update-relaod' is not defined",
        "did you mean 'update-reload'?",
    ),
    Bad(
        "cycle_swept_misspelt", _cycle("", "sweep: {cycle.sleeep: [1]}"), "sweep.cycle.sleeep", "did you mean 'sleep'?"
    ),
    Bad(
        "cycle_swept_without_its_section",
        _cycle("", "sweep: {sleep: [1]}"),
        "sweep.sleep: is a key of cycle",
        "write cycle.sleep",
    ),
    Bad("cycle_swept_as_a_whole", _cycle("", "sweep: {cycle: [1]}"), "sweep.cycle: is a mapping", "cycle.KEY"),
    Bad(
        "cycle_swept_and_listed",
        _cycle("update: [reload, in_process]", "sweep: {cycle.update: [reload]}"),
        "sweep.cycle.update: cycle.update lists several values itself",
        "leave one of them out",
    ),
]
