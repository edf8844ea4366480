"""Bounds of whole passes: which steps there are, what they add up to, and the table of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned import planned
from synthetic_records import make_spec
from synthetic_rollouts import rollout_spec

from rollout_bench.analysis.bounds.architecture import architecture_from
from rollout_bench.analysis.bounds.bound import (
    ExperimentBound,
    Lengths,
    decode_steps,
    experiment_bound,
    mean_decode,
    most_gain,
    pass_lengths,
    prefill_steps,
)
from rollout_bench.analysis.bounds.cost import decode_batch, plain, prefill_batch, step_costs
from rollout_bench.analysis.bounds.limits import DeviceLimits, known_peak, least, published
from rollout_bench.checkpoints.formats import hf_config
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.spec import Spec
from rollout_bench.workloads.requests import Source

H200 = published(known_peak("H200"))

FACTS = """
platform: cuda
models: [small]
workloads: [verl-default]
model_settings: {small: {synthetic: {preset: qwen3-1.7b}}}
"""


def spec_with(workload: dict[str, Any] | None = None, **args: Any) -> Spec:
    """Return a spec of the demo model on cuda with changes to its workload and engine arguments."""
    spec = make_spec(platform="cuda", args=args)
    shape = SyntheticModel(preset="qwen3-90m").resolve().model_dump(mode="json")
    return Spec.model_validate(
        {
            **spec.model_dump(),
            "model": {"name": "demo", "weights": None, "synthetic": shape},
            "workload": {**spec.workload.model_dump(), **(workload or {})},
        }
    )


def bounds_of(overlay: str, limits: DeviceLimits = H200) -> dict[str, ExperimentBound | str]:
    """Return the bound of each quant in a config."""
    experiments = planned(overlay).experiments
    return {e.spec.quant.name: experiment_bound(e.spec, e.model_path, e.dataset_path, limits) for e in experiments}


def test_the_facts_of_one_h200_are_below_their_bound():
    bound = bounds_of(FACTS)["bf16"]
    assert isinstance(bound, ExperimentBound)
    assert bound.batch is not None
    assert (bound.batch.sequences, bound.batch.cached) == (256, 256 * (512 + 127))
    assert bound.decode is not None
    assert bound.decode.limited_by == "memory"
    assert bound.decode.seconds == pytest.approx((18.8e9 + 3.44e9) / 4.8e12, rel=0.01)
    assert bound.output_tokens == 256 * 256
    assert 33_000 / bound.most_tokens_per_s == pytest.approx(0.62, abs=0.02)  # measured there: 33.0k output tok/s


def test_what_a_quant_can_gain_is_the_ratio_of_the_bounds():
    bounds = bounds_of(FACTS)
    gain = most_gain(bounds["w8a16"], bounds["bf16"])
    assert gain == pytest.approx(1.064, abs=0.005)
    eight = most_gain(bounds["w8a8"], bounds["bf16"])
    assert eight is not None
    assert gain is not None
    assert eight > gain  # its prefill computes with int8, too
    assert most_gain("nobody knows", bounds["bf16"]) is None


def test_two_ranks_have_half_of_the_time_each():
    one, two = (bounds_of(FACTS + f"engine_args: {{tensor_parallel_size: {n}}}")["bf16"] for n in (1, 2))
    assert isinstance(one, ExperimentBound)
    assert isinstance(two, ExperimentBound)
    assert two.pass_s == pytest.approx(one.pass_s / 2, rel=0.001)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (spec_with(pipeline_parallel_size=2), "pipeline_parallel_size is not counted"),
        (make_spec(), "the shape of its model is not whole"),
        (rollout_spec(surplus=True), "part of what is generated is not needed"),
    ],
)
def test_what_can_not_be_said_has_a_reason(spec: Spec, why: str):
    assert why in str(experiment_bound(spec, "", None, H200))


def test_samples_of_a_prompt_share_its_whole_blocks_and_compute_its_end():
    found = pass_lengths(spec_with({"prompts": 2, "samples_per_prompt": 3, "prompt_tokens": 70}), None)
    assert [(one.prompt, one.cached) for one in found] == [(70, 0), (70, 64), (70, 64)] * 2
    exact = pass_lengths(spec_with({"prompts": 1, "samples_per_prompt": 2, "prompt_tokens": 64}), None)
    assert [one.cached for one in exact] == [0, 48]  # its last token is computed in any case
    without = pass_lengths(spec_with({"prompt_tokens": 70}, enable_prefix_caching=False), None)
    assert {one.cached for one in without} == {0}


def test_a_shared_prefix_is_computed_once_in_each_group():
    workload = {
        "prompts": 5, "samples_per_prompt": 1, "prompt_tokens": 100, "shared_prefix": {"tokens": 80, "groups": 2},
    }  # fmt: skip
    assert [one.cached for one in pass_lengths(spec_with(workload), None)] == [0, 0, 80, 80, 80]


def test_drawn_lengths_are_those_that_a_launch_would_send():
    drawn = {"distribution": "uniform", "low": 5, "high": 50}
    spec = spec_with({"prompts": 8, "samples_per_prompt": 2, "prompt_tokens": drawn, "output_tokens": drawn})
    sent = Source(spec.workload, 16384, "").requests(0, spec.measuring.warmup_iterations)
    assert [(one.prompt, one.output) for one in pass_lengths(spec, None)] == [
        (len(request.prompt_token_ids), request.output_tokens) for request in sent
    ]


def test_lines_of_a_group_in_a_trace_share_a_prompt(tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    line = '{"prompt_tokens": 70, "output_tokens": 1, "prompt_group": GROUP}\n'
    trace.write_text("".join(line.replace("GROUP", group) for group in "0011"))
    workload = {
        "prompts": 4, "samples_per_prompt": 1, "prompt_tokens": 70, "output_tokens": 1,
        "dataset": {"format": "trace", "sha256": ""},
    }  # fmt: skip
    assert [one.cached for one in pass_lengths(spec_with(workload), str(trace))] == [0, 64, 0, 64]


def test_a_trace_says_how_long_its_sequences_are(tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f'{{"prompt_tokens": {n}, "output_tokens": {n + 1}}}\n' for n in (10, 20, 30)))
    workload = {
        "prompts": 2, "samples_per_prompt": 1, "prompt_tokens": 30, "output_tokens": 31,
        "dataset": {"format": "trace", "sha256": ""},
    }  # fmt: skip
    found = pass_lengths(spec_with(workload), str(trace))
    assert [(one.prompt, one.output) for one in found] == [(30, 31), (10, 11)]  # of the pass after one warm-up


def test_a_data_set_of_text_has_a_reason(tmp_path: Path):
    text = tmp_path / "prompts.txt"
    text.write_text("one\ntwo\n")
    workload = {"prompts": 2, "dataset": {"format": "prompts", "sha256": ""}}
    assert "only the model's tokenizer" in str(experiment_bound(spec_with(workload), "", str(text), H200))


def test_prompts_given_as_token_ids_are_as_long_as_they_are_sent(tmp_path: Path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": list(range(n)), "output_tokens": n}) + "\n" for n in (3, 9, 40)))
    workload = {
        "prompts": 3, "samples_per_prompt": 2, "prompt_tokens": 20, "dataset": {"format": "prompts", "sha256": ""},
        "shared_prefix": {"tokens": 5, "groups": 1},
    }  # fmt: skip
    spec = spec_with(workload)
    sent = Source(spec.workload, 16384, "", file).requests(0, spec.measuring.warmup_iterations)
    assert [(one.prompt, one.output) for one in pass_lengths(spec, str(file))] == [
        (len(request.prompt_token_ids), request.output_tokens) for request in sent
    ]


LENGTHS = st.lists(st.builds(Lengths, st.integers(1, 50), st.just(0), st.integers(1, 30)), min_size=1, max_size=25)


@given(sequences=LENGTHS, slots=st.integers(1, 8))
def test_runs_of_steps_add_up_to_what_going_step_by_step_finds(sequences: list[Lengths], slots: int):
    waiting = [[one.prompt, one.output - 1] for one in sequences if one.output > 1]
    active: list[list[float]] = []
    number = tokens = cached = 0.0
    while waiting or active:
        while waiting and len(active) < slots:
            active.append(waiting.pop(0))
        number, tokens, cached = number + 1, tokens + len(active), cached + sum(one[0] for one in active)
        active = [[context + 1, left - 1] for context, left in active if left > 1]
    steps = list(decode_steps(sequences, slots))
    assert sum(some.number for some in steps) == number
    assert sum(some.number * some.batch.tokens for some in steps) == tokens
    assert sum(some.number * some.batch.cached for some in steps) == pytest.approx(cached)
    mean = mean_decode(steps)
    assert (mean is None) == (number == 0)
    assert mean is None or mean.cached * number == pytest.approx(cached)


def test_equal_sequences_decode_in_one_run_after_their_first_token():
    (steps,) = decode_steps([Lengths(512, 0, 256)] * 256, 1024)
    assert (steps.number, steps.batch.sequences, steps.batch.cached) == (255, 256, 256 * (512 + 127))
    assert list(decode_steps([Lengths(512, 0, 1)] * 4, 8)) == []


def test_prompts_are_computed_in_as_few_steps_as_hold_them():
    several = prefill_steps([Lengths(512, 0, 1)] * 40, 8192)
    assert (several.number, several.batch.tokens) == (3, 512 * 40 / 3)
    one = prefill_steps([Lengths(512, 0, 1)] * 40, None)
    assert (one.number, one.batch) == (1, prefill_batch(40, 512))


@given(st.integers(1, 64), st.integers(0, 2000), st.integers(1, 500))
def test_a_run_at_its_mean_is_never_longer_than_its_steps(sequences: int, context: int, steps: int):
    shape = architecture_from(hf_config(SyntheticModel(preset="qwen3-tiny").resolve(), "bf16"))
    limits = DeviceLimits("here", "measured", 1e9, {"bfloat16": 4e9})

    def seconds(at: float) -> float:
        return least(step_costs(shape, plain("bfloat16"), decode_batch(sequences, at)), limits).seconds

    assert steps * seconds(context + (steps - 1) / 2) <= sum(seconds(context + n) for n in range(steps)) * (1 + 1e-9)


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "workflow/scripts/bounds.py", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )


def test_the_command_prints_a_line_for_each_experiment_of_a_known_device():
    overlay = {"platform": "cuda", "models": ["qwen3-90m"], "workloads": ["demo"]}
    overlay["quants"] = ["bf16", "w8a8", "fp8", "bf16-kv8"]
    done = run("config.yaml", "-", "--device", "A100 80GB", stdin=json.dumps(overlay))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Limits of one A100 80GB, published: memory 2,039 GB/s; bfloat16 312 TFLOP/s")
    rows = [line.split() for line in lines if line.startswith("qwen3-90m")]
    assert [row[1] for row in rows] == ["bf16", "w8a8", "fp8", "bf16-kv8"]
    assert float(rows[3][4]) == pytest.approx(float(rows[0][4]) / 2, rel=0.01)  # of the KV cache
    assert rows[3][3] == rows[0][3]  # of the weights
    assert rows[0][-1] == "1.00x"
    assert float(rows[1][-1].rstrip("x")) > 1.3
    assert "No rate of float8 is known for A100 80GB: its operations are not in the bound." in lines


def test_the_command_reads_yaml_that_is_piped_into_it_and_files_as_plan_takes_them(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(FACTS + "engine_args: {data_parallel_size: 2}\n")
    piped = run("config.yaml", "-", "--device", "H100", stdin=(tmp_path / "mine.yaml").read_text())
    assert piped.returncode == 0, piped.stderr
    assert "small  bf16   verl-default" in piped.stdout
    assert "no bound" not in piped.stdout
    assert run("--configfile", str(tmp_path / "mine.yaml"), "--device", "H100").stdout == piped.stdout
    broken = run("config.yaml", "-", "--device", "H100", stdin="models: [")
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 2)
    assert broken.stderr.startswith("stdin: line 1, column")


def test_more_kv_cache_than_its_engine_can_have_is_told():
    done = run("config.yaml", "-", "--device", "L4", stdin=FACTS)
    assert (
        "small bf16 verl-default: its share of a device has room for 6.87 GB of KV cache, not 18.8: fewer"
        in done.stdout
    )


def test_the_command_says_in_two_lines_what_it_can_not_do():
    done = run("config.yaml", "--device", "A1000")
    assert done.returncode == 1
    assert done.stderr.startswith("device 'A1000': its limits are not known\n  -> did you mean 'A100")
    assert run("nowhere.yaml").stderr.startswith("nowhere.yaml: cannot be read")
