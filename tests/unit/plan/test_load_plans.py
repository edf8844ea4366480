"""Every wrong load is told in two lines before anything runs, and a good one becomes a part of the spec."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned import planned
from refusals import write_files

from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.matrix import Experiment

TRACED = "{{workloads: [w], workload_settings: {{w: {{prompts: 8, dataset: {{format: trace, path: {}}}}}}}}}"


@pytest.fixture(autouse=True)
def _in_a_folder_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(__file__, tmp_path)
    monkeypatch.chdir(tmp_path)


def first(overlay: str) -> Experiment:
    return planned(overlay).experiments[0]


def test_max_model_len_is_the_longest_that_can_be_drawn():
    spread = "{distribution: uniform, high: 200}"
    experiment = first(f"workload_settings: {{demo: {{output_tokens: {spread}}}}}")
    assert experiment.spec.engine.args["max_model_len"] == 264


def test_max_model_len_of_a_trace_is_its_longest_pair():
    experiment = first(TRACED.format("trace.jsonl"))
    assert experiment.spec.engine.args["max_model_len"] == 50
    assert (experiment.spec.workload.prompt_tokens, experiment.spec.workload.output_tokens) == (40, 30)
    assert experiment.dataset_path == "trace.jsonl"


def test_a_data_set_is_named_by_its_content_wherever_it_lies():
    Path("elsewhere").mkdir()
    Path("elsewhere/copy.jsonl").write_text(Path("trace.jsonl").read_text())
    key = first(TRACED.format("trace.jsonl")).spec.key()
    assert first(TRACED.format("elsewhere/copy.jsonl")).spec.key() == key
    assert first(TRACED.format("arriving.jsonl")).spec.key() != key


def test_a_spec_with_every_kind_of_load_is_read_as_it_was_written():
    spread = "{distribution: lognormal, median: 8, sigma: 1, high: 30}"
    shared = f"{{shared_prefix: {{tokens: 4, groups: 2}}, output_tokens: {spread}}}"
    for overlay in (f"workload_settings: {{demo: {shared}}}", TRACED.format("arriving.jsonl")):
        spec = first(overlay).spec
        assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_the_default_load_keeps_the_key_that_it_had():
    workload = first("{}").spec.model_dump(mode="json")["workload"]
    assert not {"shared_prefix", "dataset"} & set(workload)
    assert (workload["prompt_tokens"], workload["output_tokens"]) == (64, 32)


def test_tokens_given_as_ids_need_no_tokenizer():
    Path("ids.jsonl").write_text('{"prompt": [5, 9]}\n' * 8)
    small = "model_settings: {qwen3-90m: {synthetic: {shape: {vocab_size: 200}}}}"
    named = "workload_settings: {demo: {dataset: {format: prompts, path: ids.jsonl}}}"
    assert first(f"{{{small}, {named}}}").dataset_path == "ids.jsonl"
