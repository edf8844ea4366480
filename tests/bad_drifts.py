"""Configs that are wrong in what drift mode scores: what is laid over, and words of the two lines."""

from __future__ import annotations

from bad_comparing import Bad


def _drift(settings: str, more: str = "") -> str:
    """Return a config of mode drift with these keys of its section, and `more`."""
    return f"{{modes: [drift], drift: {{{settings}}}, {more}}}"


BAD_DRIFTS = [
    Bad("drift_misspelt_key", _drift("batches: [1]"), "drift.batches: there is no such key", "'batch_sizes'"),
    Bad("drift_key_at_the_top", "batch_sizes: [1]", "batch_sizes: there is no such key", "below drift"),
    Bad("drift_a_list", "{modes: [drift], drift: [1]}", "drift: [1] is no mapping", "docs/reference"),
    Bad("drift_batch_without_brackets", _drift("batch_sizes: 8"), "write [8]", "docs/reference"),
    Bad("drift_no_batch", _drift("batch_sizes: []"), "drift.batch_sizes: is an empty list", "docs/reference"),
    Bad("drift_batch_of_none", _drift("batch_sizes: [0]"), "drift.batch_sizes.0", "docs/reference"),
    Bad("drift_one_prompt", _drift("prompts: 1"), "drift.prompts", "docs/reference"),
    Bad("drift_no_tokens", _drift("tokens: 0"), "drift.tokens", "docs/reference"),
    Bad("drift_batch_too_large", _drift("prompts: 8"), "64 sequences at once are more than drift.prompts 8", "raise"),
    Bad(
        "drift_batch_beyond_the_engine",
        _drift("batch_sizes: [64]", "engine_args: {max_num_seqs: 32}"),
        "drift.batch_sizes: 64 sequences are more than max_num_seqs 32",
        "raise max_num_seqs",
    ),
    Bad(
        "drift_reference_not_measured",
        _drift("reference: bf16", "quants: [w8a8]"),
        "drift.reference: bf16 samples the tokens, and is not among quants",
        "reference: w8a8",
    ),
    Bad("drift_reference_a_mapping", _drift("reference: {quant: bf16}"), "drift.reference", "docs/reference"),
    Bad(
        "drift_beyond_the_positions_of_the_model",
        _drift("tokens: 3000", "models: [m], model_settings: {m: {synthetic: {preset: qwen3-tiny}}}"),
        "drift.tokens: with 3000 tokens after a prompt max_model_len is",
        "lower drift.tokens",
    ),
    Bad(
        "drift_of_dummy_weights",
        _drift("", "quants: [bf16, w8a8], engine_args: {load_format: dummy}"),
        "load_format: dummy weights are drawn anew in each layout, so drift would be that of different models",
        "leave load_format out, or leave drift out of modes",
    ),
]
