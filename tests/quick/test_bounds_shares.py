"""How much of the limit a launch reached, from what it counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from synthetic_records import OUTPUT_TOKENS, PROMPT_TOKENS, SEQUENCES, make_record, make_sequences, make_spec

from rollout_bench.analysis.bounds.architecture import architecture_from
from rollout_bench.analysis.bounds.reached import Bound, profile_costs, same_machine, share_of_limit, step_bound
from rollout_bench.checkpoints.formats import hf_config
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.inside import LIMITS_SCHEMA_VERSION, MachineLimits, Profile
from rollout_bench.contracts.record import Record, Surplus

BANDWIDTH = 20e9
SHAPE = SyntheticModel(preset="qwen3-90m").resolve()
LINEAR_VALUES = 75_497_472
"""Of the preset: 12 x (768 x 1280 + 768 x 768 + 768 x 4096 + 2048 x 768)."""

HEAD_BYTES = 16384 * 768 * 2


def limits(**flops_per_s: float) -> MachineLimits:
    """Return limits of the machine that synthetic records name; computing takes no time where no rate is given."""
    return MachineLimits.model_validate(
        {
            "schema_version": LIMITS_SCHEMA_VERSION,
            "device_model": "AMD EPYC 9B14",
            "cpu_model": "AMD EPYC 9B14",
            "cpu_cores": 2,
            "torch_version": "2.13.0+cpu",
            "memory_bandwidth_bytes_per_s": BANDWIDTH,
            "flops_per_s": flops_per_s or {"bfloat16": 1e18, "int8": 1e18},
            "samples": [{"test": "copy", "dtype": "float32", "work": BANDWIDTH, "elapsed_s": 1.0}],
            "measured_at": "2025-01-01T00:00:00+00:00",
        }
    )


def record_of(weights_bytes: int = 2 * LINEAR_VALUES, quant: str = "bf16", **changes: Any) -> Record:
    """Return a record of the demo model whose linear layers have so many bytes; pass take 2.5 s or a little less."""
    spec = make_spec(quant=quant)
    model = spec.model.model_copy(update={"synthetic": SHAPE.model_dump(mode="json")})
    spec = spec.model_copy(update={"model": model})
    dtype = "bfloat16" if quant == "bf16" else "int8"
    content = make_record(spec).model_dump(mode="json")
    content["engine"]["weights_bytes_by_dtype"]["linear"] = {dtype: weights_bytes}
    content["engine"]["resolved"] |= {"dtype": "bfloat16", "max_num_seqs": 64, "max_num_batched_tokens": 4096}
    content.update(changes)
    return Record.model_validate(content)


def of_pass(weights_bytes: int) -> float:
    """Return seconds of a pass that memory limits.

    One prefill step and 31 decode steps of 32 sequences, 64 -> 32 tokens.
    """
    steps = OUTPUT_TOKENS - 1
    norms, row = (2 * 12 + 1) * 768 * 2, 768 * 2
    token_bytes = 2 * 4 * 64 * 2 * 12  # keys and values
    weights = (1 + steps) * (weights_bytes + HEAD_BYTES + norms)
    embedded = SEQUENCES * (PROMPT_TOKENS + steps) * row
    written = SEQUENCES * (PROMPT_TOKENS + steps) * token_bytes
    read = SEQUENCES * sum(PROMPT_TOKENS + step for step in range(steps)) * token_bytes
    return (weights + embedded + written + read) / BANDWIDTH


def test_no_bound_is_claimed_for_replicas_each_of_which_says_that_it_is_alone():
    record = record_of()
    record.spec.engine.args["data_parallel_size"] = 2
    record.engine.resolved["data_parallel_size"] = 1
    assert share_of_limit(record, limits()) == "data_parallel_size is not counted here"


def test_steps_of_which_part_was_not_needed_have_no_share():
    record = record_of()
    surplus = Surplus(sequences=2, output_tokens=20, aborted=2, drain_s=0.1)
    steps = [one.model_copy(update={"surplus": surplus}) for one in record.iterations]
    found = share_of_limit(record.model_copy(update={"iterations": steps}), limits())
    assert found == "part of what was generated was not needed"


@pytest.mark.parametrize("weights_bytes", [2 * LINEAR_VALUES, LINEAR_VALUES, 3 * LINEAR_VALUES])
def test_a_pass_is_bound_by_the_weights_that_were_counted(weights_bytes: int):
    record = record_of(weights_bytes)
    found = share_of_limit(record, limits())
    assert isinstance(found, Bound)
    measured = [one.elapsed_s for one in record.iterations if not one.warmup]
    assert found.measured_s == pytest.approx(sum(measured))
    assert found.bound_s == pytest.approx(len(measured) * of_pass(weights_bytes), rel=1e-6)
    assert found.limited_by == "memory"
    assert found.share == pytest.approx(1 / found.ratio)
    assert found.share == pytest.approx(3 * of_pass(weights_bytes) / sum(measured))


def test_int8_is_computed_at_its_own_rate():
    slow = limits(bfloat16=1e18, int8=1e9)
    plain, quantized = (share_of_limit(record_of(LINEAR_VALUES, quant), slow) for quant in ("bf16", "w8a16"))
    # the synthetic spec of w8a16 proves int8 weights, which are multiplied in bfloat16
    assert isinstance(plain, Bound)
    assert isinstance(quantized, Bound)
    assert plain.bound_s == pytest.approx(quantized.bound_s, rel=0.01)
    record = record_of(LINEAR_VALUES, "w8a8")
    spec = record.spec.model_copy(
        update={"quant": record.spec.quant.model_copy(update={"weights_format": "compressed-tensors-w8a8"})}
    )
    bound = share_of_limit(record.model_copy(update={"spec": spec}), slow)
    assert isinstance(bound, Bound)
    tokens = 3 * SEQUENCES * (PROMPT_TOKENS + OUTPUT_TOKENS - 1)
    assert bound.bound_s == pytest.approx(2 * tokens * LINEAR_VALUES / 1e9, rel=0.01)
    assert bound.limited_by == "compute"


def test_the_side_file_tells_lengths_where_they_differ():
    record = record_of()
    rows = make_sequences(record)
    same = share_of_limit(record, limits(), rows=rows)
    mean = share_of_limit(record, limits())
    assert isinstance(same, Bound)
    assert isinstance(mean, Bound)
    assert same.bound_s == pytest.approx(mean.bound_s)
    longer = [
        row.model_copy(update={"output_tokens": OUTPUT_TOKENS * 2 if place % 32 == 0 else row.output_tokens})
        for place, row in enumerate(rows)
    ]
    tail = share_of_limit(record, limits(), rows=longer)
    assert isinstance(tail, Bound)
    assert tail.bound_s > 1.8 * mean.bound_s  # twice as many steps, most of them for one sequence


def test_where_a_server_does_not_say_what_came_from_its_cache_there_is_no_share_unless_it_has_none():
    record = record_of()
    iterations = [one.model_copy(update={"cached_prompt_tokens": None}) for one in record.iterations]
    untold = record.model_copy(update={"iterations": iterations})
    rows = [row.model_copy(update={"cached_prompt_tokens": None}) for row in make_sequences(record)]
    assert share_of_limit(untold, limits(), rows=rows) == "the server does not say what came from its cache"
    untold.engine.resolved["enable_prefix_caching"] = False
    assert share_of_limit(untold, limits(), rows=rows) == share_of_limit(record, limits(), rows=make_sequences(record))


def test_what_a_pass_as_a_whole_took_from_the_cache_is_shared_out_among_sequences_that_do_not_say():
    record = record_of()
    half = [one.model_copy(update={"cached_prompt_tokens": one.prompt_tokens // 2}) for one in record.iterations]
    record = record.model_copy(update={"iterations": half})
    found = [
        share_of_limit(
            record, limits(bfloat16=1e9), rows=[row.model_copy(update=said) for row in make_sequences(record)]
        )
        for said in ({"cached_prompt_tokens": PROMPT_TOKENS // 2}, {"cached_prompt_tokens": None})
    ]
    assert found[0] == found[1]
    all_computed = share_of_limit(record_of(), limits(bfloat16=1e9))
    assert isinstance(found[0], Bound)
    assert isinstance(all_computed, Bound)
    assert found[0].bound_s < 0.9 * all_computed.bound_s


def test_a_model_of_which_nothing_is_known_gets_a_reason_and_numbers_once_it_is():
    record = record_of()
    model = record.spec.model.model_copy(update={"synthetic": None, "weights": "somewhere"})
    unknown = record.model_copy(update={"spec": record.spec.model_copy(update={"model": model})})
    assert "config.json" in str(share_of_limit(unknown, limits()))
    known = share_of_limit(unknown, limits(), architecture_from(hf_config(SHAPE, "bf16")))
    assert known == share_of_limit(record, limits())


def test_passes_with_a_rate_of_their_own_have_no_share():
    content = record_of().model_dump(mode="json")
    for iteration in content["iterations"]:
        iteration["point"] = {"concurrency": None, "request_rate": 4.0}
    assert "rate of their own" in str(share_of_limit(Record.model_validate(content), limits()))


def test_limits_belong_to_one_machine_and_one_torch():
    environment = record_of().environment
    assert same_machine(limits(), environment)
    for name, value in {"device_model": "other", "cpu_cores": 3, "torch_version": "2.14.0"}.items():
        assert not same_machine(limits(), environment.model_copy(update={name: value}))


def profile_of(steps: Sequence[dict[str, Any]]) -> Profile:
    """Return a profile of the demo model with these steps."""
    content = record_of().model_dump(mode="json", exclude={"iterations", "sequences_file"})
    linears = [
        ("qkv", 768, 1280, 12), ("o", 768, 768, 12), ("gate_up", 768, 4096, 12), ("down", 2048, 768, 12),
        ("lm_head", 768, 16384, 1),
    ]  # fmt: skip
    content["linears"] = [
        dict(zip(("role", "in_features", "out_features", "layers"), one, strict=True)) for one in linears
    ]
    content["steps"] = steps
    content["traces"] = [{"name": "t", "phase": "decode", "rank": 0, "source": "torch", "size_bytes": 1}]
    content["traces_folder"] = "launch-0.traces"
    return Profile.model_validate(content)


def step(phase: str, elapsed_s: float, *, profiled: bool = False, context: int | None = 32 * 80) -> dict[str, Any]:
    tokens = 32 * 64 if phase == "prefill" else 32
    return {
        "phase": phase, "profiled": profiled, "elapsed_s": elapsed_s, "tokens": tokens, "sequences": 32,
        "context_tokens": context,
    }  # fmt: skip


def test_steps_without_the_profiler_are_what_the_bound_of_a_step_is_held_against():
    profile = profile_of([step("decode", 0.02), step("decode", 0.03), step("decode", 0.5, profiled=True)])
    found = step_bound(profile, limits(), "decode")
    assert isinstance(found, Bound)
    assert found.measured_s == pytest.approx(0.05)
    token_bytes, row = 2 * 4 * 64 * 2 * 12, 768 * 2
    each = 2 * LINEAR_VALUES + HEAD_BYTES + 25 * row + 32 * row + 32 * 80 * token_bytes  # 79 read, 1 written
    assert found.bound_s == pytest.approx(2 * each / BANDWIDTH)
    assert "no prefill step" in str(step_bound(profile, limits(), "prefill"))
    unknown = profile_of([step("decode", 0.02, context=None)])
    assert "how far its steps looked back" in str(step_bound(unknown, limits(), "decode"))


def test_linear_layers_that_the_engine_does_not_tell_follow_from_the_sizes():
    whole = profile_of([step("decode", 0.02)])
    content = whole.model_dump(mode="json")
    content["linears"] = [shape for shape in content["linears"] if shape["role"] in ("qkv", "down")]
    assert step_bound(Profile.model_validate(content), limits(), "decode") == step_bound(whole, limits(), "decode")


def test_the_prompts_own_tokens_are_not_read_from_the_cache():
    profile = profile_of([step("prefill", 0.5, profiled=True, context=None)])
    fresh = profile_costs(profile, "prefill")
    told = profile_costs(profile_of([step("prefill", 0.5, profiled=True, context=32 * 64)]), "prefill")
    assert not isinstance(fresh, str)
    assert fresh == told
    assert next(cost.cache_bytes for cost in fresh if cost.category == "attention") == 0
    assert next(cost.flops for cost in fresh if cost.role == "down") == 2 * 32 * 64 * 2048 * 768 * 12
