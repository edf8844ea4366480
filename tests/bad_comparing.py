"""Configs that are wrong in what is compared with what, how often it is launched and when a difference is one."""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """One wrong config: YAML laid over the default, and what the message must name and advise."""

    name: str
    overlay: str
    problem: str
    remedy: str


BAD_COMPARING = [
    Bad("unknown_baseline", "baseline: {quant: bf6}", "baseline.quant: quant 'bf6'", "did you mean 'bf16'?"),
    Bad("unknown_baseline_axis", "baseline: {qaunt: bf16}", "baseline.qaunt", "'quant'"),
    Bad("unknown_baseline_mode", "baseline: {mode: offline}", "baseline.mode", "'model'"),
    Bad(
        "unknown_baseline_model",
        "baseline: {quant: null, model: qwen3-9m}",
        "baseline.model: model 'qwen3-9m'",
        "did you mean 'qwen3-90m'?",
    ),
    Bad(
        "unknown_baseline_workload",
        "baseline: {quant: null, workload: dmeo}",
        "baseline.workload: workload 'dmeo'",
        "did you mean 'demo'?",
    ),
    Bad(
        "sweep_one_key_twice",
        "sweep: {max_num_seqs: [8, 32], engine_args.max_num_seqs: [9, 16]}",
        "sweep.engine_args.max_num_seqs: is the same as sweep.max_num_seqs",
        "leave one of them out",
    ),
    Bad(
        "settings_not_selected",
        "setting_settings: {few: {engine_args: {max_num_seqs: 4}}}",
        "setting_settings: few: written, and not selected",
        "settings: [default, few]",
    ),
    Bad("baseline_quant_a_path", "baseline: {quant: ../bf16}", "'../bf16' can't be a name", "letters, digits"),
    Bad("baseline_a_word", "baseline: bf16", "baseline: 'bf16'", "docs/reference"),
    Bad("no_baseline_axis", "baseline: {quant: null}", "baseline: names no axis", "docs/reference"),
    Bad("misspelt_comparison_key", "comparison: {confidense: 0.9}", "comparison.confidense", "'confidence'"),
    Bad("confidence_of_one", "comparison: {confidence: 1}", "comparison.confidence: 1", "docs/reference"),
    Bad("confidence_in_percent", "comparison: {confidence: 95}", "comparison.confidence: 95", "docs/reference"),
    Bad("confidence_of_a_coin", "comparison: {confidence: 0.05}", "comparison.confidence: 0.05", "docs/reference"),
    Bad("confidence_true", "comparison: {confidence: true}", "confidence: is true or false", "docs/reference"),
    Bad("relevance_negative", "comparison: {relevant_difference: -0.01}", "relevant_difference: -0.01", "docs/ref"),
    Bad("relevance_in_percent", "comparison: {relevant_difference: 5}", "relevant_difference: 5", "docs/reference"),
    Bad("relevance_nan", "comparison: {relevant_difference: .nan}", "relevant_difference: nan", "docs/reference"),
    Bad(
        "unknown_metric",
        "comparison: {metrics: [output_token_per_s]}",
        "comparison.metrics.0: 'output_token_per_s' is not known",
        "did you mean 'output_tokens_per_s'?",
    ),
    Bad(
        "metric_by_another_name",
        "comparison: {metrics: [throughput]}",
        "comparison.metrics.0: 'throughput'",
        "did you mean 'output_tokens_per_s'?",
    ),
    Bad("metrics_empty", "comparison: {metrics: []}", "comparison.metrics: is an empty list", "docs/reference"),
    Bad("metrics_without_brackets", "comparison: {metrics: startup_s}", "write [startup_s]", "docs/reference"),
    Bad("metric_twice", "comparison: {metrics: [startup_s, startup_s]}", "'startup_s' more than once", "docs/ref"),
    Bad("comparison_a_word", "comparison: strict", "comparison", "docs/reference"),
    Bad("launches_zero", "launches: 0", "launches: 0 should be greater than or equal to 1", "docs/reference"),
    Bad("launches_negative", "launches: -1", "launches: -1", "docs/reference"),
    Bad("launches_huge", "launches: 100000000000", "launches: 100000000000", "docs/reference"),
    Bad("launches_a_fraction", "launches: 1.5", "launches: 1.5", "docs/reference"),
    Bad("launches_a_word", "launches: many", "launches: 'many'", "docs/reference"),
    Bad("launches_true", "launches: true", "launches: is true or false", "docs/reference"),
    Bad("launches_null", "launches: null", "launches: None", "docs/reference"),
    Bad(
        "launches_auto_misspelt",
        "launches: Auto",
        "launches: 'Auto' is neither a number nor auto",
        "did you mean 'auto'",
    ),
    Bad("precision_of_nothing", "precision: {half_width: 0}", "precision.half_width: 0", "docs/reference"),
    Bad("precision_misspelt", "precision: {half_widht: 0.1}", "half_widht", "did you mean 'half_width'?"),
    Bad("precision_backwards", "precision: {min_launches: 13}", "max_launches 12 is below", "docs/reference"),
]
