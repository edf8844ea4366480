"""verl's settings become a config that can be planned, with an account of every key."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_pages import REPOSITORY, blocks, commands
from planned import assert_preset, planned
from refusals import refusals, refused
from trainer_commands import Made, rows
from training_runs import ROLLOUT, VERL

from rollout_bench.commands import trainers
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import devices_needed, replicas
from rollout_bench.core.errors import UserError
from rollout_bench.modes.rollout.policies import Balancer
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.trainers.settings import READERS, VERL_VERSIONS, Influence, KeyRegistry
from rollout_bench.trainers.step import StepPart, TrainerStep, distinct_prompts
from rollout_bench.workloads.requests import prompts

METHODS_OF_FP8 = {
    "Fp8PerBlockOnlineLinearMethod": True,
    "Fp8PerBlockOnlineMoEMethod": True,
    "Fp8OnlineLinearMethod": False,
    "Fp8PerTensorOnlineLinearMethod": False,
    "UnquantizedLinearMethod": False,
}
"""vLLM 0.23's names of methods of linear layers -> whether they have a scale for each block of weights."""


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made("from-verl", tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("row", rows("accounts.yaml")["verl"], ids=lambda row: row[0])
def test_the_account_says_what_its_row_says(made: Made, row: list[Any]):
    made.check_account(row)


def test_all_engines_behind_verls_router_measure_the_whole_step(made: Made):
    workload = made.workload()
    assert (workload["prompts"], workload["samples_per_prompt"]) == (256, 8)
    assert "shared_prefix" not in workload
    assert "256 prompts, 8 of each, 2,048 sequences; 8 engines on 8 devices." in made.account
    spec = made.experiment().spec
    assert (spec.mode, replicas(spec), devices_needed(spec), spec.of(RolloutSpec)) == (
        "rollout",
        8,
        8,
        RolloutSpec(router="least_in_flight"),
    )
    assert (spec.workload.prompts, spec.workload.samples_per_prompt, spec.workload.logprobs) == (256, 8, 0)


def test_one_engine_of_eight_gets_its_part_with_siblings_spread(made: Made):
    workload = made.workload("--one-engine")
    assert (workload["prompts"], workload["samples_per_prompt"], workload["shared_prefix"]) == (
        256,
        1,
        {"tokens": 511, "groups": 168},
    )
    assert (workload["prompt_tokens"], workload["output_tokens"]) == (512, 256)
    assert "one engine, its part of 256 sequences, of 168 distinct prompts." in made.account
    assert "Left out: the other engines, verl's router, and the wait for the slowest engine." in made.account
    spec = made.experiment().spec
    assert (replicas(spec), spec.of(RolloutSpec), spec.workload.logprobs) == (1, RolloutSpec(), 0)


@pytest.mark.parametrize(("prompts", "samples", "engines"), [(256, 8, 8), (12, 2, 8), (5, 8, 3), (6, 4, 4)])
def test_the_announced_number_of_prompts_reaches_each_engine(prompts: int, samples: int, engines: int):
    balancer = Balancer("least_in_flight", engines)
    met: list[set[int]] = [set() for _ in range(engines)]
    for prompt in range(prompts):
        for _ in range(samples):
            met[balancer.choose(prompt)].add(prompt)
    assert max(map(len, met)) == TrainerStep(prompts, samples, engines, "samples").met_in_turn


def test_comments_hold_the_account_and_the_command(made: Made):
    made("trainer.nnodes=2")
    comments = [line.removeprefix("#").removeprefix(" ") for line in made.text.splitlines() if line.startswith("#")]
    assert comments[0].startswith("Made by: rollout-bench from-verl ")
    assert comments[0].endswith(" trainer.nnodes=2")
    assert comments[1:] == made.account.splitlines()


def test_the_part_of_a_single_engine_is_the_whole_step(made: Made):
    made("trainer.n_gpus_per_node=1")
    whole = made.experiment().spec
    made("trainer.n_gpus_per_node=1 --one-engine")
    assert made.experiment().spec == whole
    assert (whole.workload.prompts, whole.workload.samples_per_prompt) == (256, 8)


@pytest.mark.parametrize(
    ("prompts", "samples", "engines", "expected"), [(256, 8, 8, 168), (256, 8, 1, 256), (64, 1, 4, 16)]
)
def test_an_engine_has_the_expected_number_of_distinct_prompts(prompts: int, samples: int, engines: int, expected: int):
    assert round(distinct_prompts(prompts, samples, engines)) == expected
    assert TrainerStep(prompts, samples, engines, "samples").share.distinct == expected


def test_a_share_has_its_stated_number_of_distinct_beginnings():
    from made_workloads import workload

    share = StepPart(sequences=10, distinct=4)
    drawn = prompts(workload(**share.workload(16), prompt_tokens=16), 4096, launch=0, iteration=0)
    assert (len(drawn), len({tuple(ids[:-1]) for ids in drawn})) == (10, 4)
    assert StepPart(sequences=8, distinct=4).workload(16) == {"prompts": 4, "samples_per_prompt": 2}
    assert StepPart(sequences=3, distinct=2).workload(1) == {"prompts": 3, "samples_per_prompt": 1}


def test_siblings_that_stay_together_make_whole_groups():
    assert TrainerStep(28, 16, 7, "runs").share == StepPart(sequences=64, distinct=4)
    assert TrainerStep(4, 8, 8, "runs").share == StepPart(sequences=4, distinct=1)
    assert TrainerStep(8, 8, 3, "prompts").share == StepPart(sequences=24, distinct=3)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("data.train_batch_size=512", "prompts", 512),
        ("+data.gen_batch_size=128 +trainer.use_v1=false", "prompts", 128),
        ("+data.gen_batch_size=1", "prompts", 256),
        ("data.max_prompt_length=100", "prompt_tokens", 100),
        (f"{ROLLOUT}.prompt_length=90", "prompt_tokens", 90),
        ("data.max_response_length=40", "output_tokens", 40),
        (f"+{ROLLOUT}.max_model_len=600", "output_tokens", 88),
        (f"+{ROLLOUT}.max_model_len=4096", "max_model_len", 4096),
        (f"+{ROLLOUT}.max_model_len=null", "max_model_len", 768),
        (f"+{ROLLOUT}.temperature=0.6", "temperature", 0.6),
        (f"+{ROLLOUT}.top_p=0.9", "top_p", 0.9),
        (f"+{ROLLOUT}.top_k=20", "top_k", 20),
        (f"+{ROLLOUT}.top_k=0", "top_k", -1),
        (f"{ROLLOUT}.tensor_model_parallel_size=2", "tensor_parallel_size", 2),
        (f"+{ROLLOUT}.max_num_seqs=64", "max_num_seqs", 64),
        (f"+{ROLLOUT}.max_num_batched_tokens=4096", "max_num_batched_tokens", 4096),
        (f"+{ROLLOUT}.enforce_eager=True", "enforce_eager", True),
        (f"+{ROLLOUT}.enable_chunked_prefill=false", "enable_chunked_prefill", False),
        (f"+{ROLLOUT}.enable_prefix_caching=false", "enable_prefix_caching", False),
        (f"+{ROLLOUT}.cudagraph_capture_sizes=[1,8]", "compilation_config", {"cudagraph_capture_sizes": [1, 8]}),
        (f"+{ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype=fp8", "kv_cache_dtype", "fp8"),
        (f"+{ROLLOUT}.engine_kwargs.vllm.max_num_seqs=7", "max_num_seqs", 7),
        ("actor_rollout_ref.model.trust_remote_code=true", "trust_remote_code", True),
    ],
)  # fmt: skip
def test_a_key_that_is_honoured_reaches_the_plan(made: Made, override: str, key: str, value: Any):
    assert made.workload(override)[key] == value
    spec = made.experiment().spec
    assert {**spec.workload.model_dump(), **spec.engine.args}[key] == value


def test_defaults_are_those_of_the_version_that_is_named(made: Made):
    assert (made.workload("--verl 0.9")["max_num_seqs"], made.workload("--verl 0.8")["max_num_seqs"]) == (256, 1024)
    assert f"{ROLLOUT}.calculate_log_probs = false (default)" in made.group(Influence.UNSUPPORTED)


@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"rollout", "placement", "startup"}))
def test_one_engine_never_gets_the_step_of_all_engines(made: Made, mode: str):
    made()
    with pytest.raises(UserError, match=rf"8 engines share workload verl-step, but in {mode} mode one engine .*"):
        planned(made.text.replace("[rollout]", f"[{mode}]"))
    made("--one-engine")
    assert planned(made.text.replace("[rollout]", f"[{mode}]")).experiments


def test_fp8_is_compared_with_bf16_but_half_precision_stands_alone(made: Made):
    assert made(f"+{ROLLOUT}.quantization=fp8")["quants"] == ["bf16", "fp8-block"]
    assert "a scale for each 128 x 128 weights as verl's has" in made.group(Influence.HONOURED)
    assert "fp8-block" in made.group(Influence.HONOURED)
    reference, blocks = (experiment.spec for experiment in planned(made.text).experiments)
    assert blocks.engine.args == {**reference.engine.args, "quantization": "fp8_per_block"}
    assert set(blocks.quant.linear_dtypes) == {"float8_e4m3fn", "float8_e4m3fnuz"}
    methods = {name: re.search(blocks.quant.linear_method, name) is not None for name in METHODS_OF_FP8}
    assert methods == METHODS_OF_FP8
    config = made(f"+{ROLLOUT}.dtype=float16")
    assert (config["quants"], config["baseline"]) == (["fp16"], {"quant": "fp16"})
    assert made.experiment().spec.quant.linear_dtypes == ("float16",)


@pytest.mark.parametrize(("device", "platform"), [("cuda", "cuda"), ("npu", "ascend"), ("cpu", "cpu")])
def test_the_device_says_the_platform(made: Made, device: str, platform: str):
    # of a CPU's memory several engines would each want this share
    assert (made(f"+trainer.device={device} --one-engine")["platform"], made.experiment().spec.platform) == (
        platform,
        platform,
    )
    assert (made.experiment().spec.engine.environment.get("VLLM_ASCEND_ENABLE_NZ") == "0") == (platform == "ascend")


def test_a_folder_with_a_model_is_its_weights(made: Made, tmp_path: Path):
    folder = tmp_path / "My_Model-8B"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    config = made(f"actor_rollout_ref.model.path={folder}")
    assert config["model_settings"] == {"my-model-8b": {"weights": {"bf16": str(folder)}}}


def test_every_key_that_is_written_is_in_exactly_one_group(made: Made):
    made(f"+{ROLLOUT}.over_sample_rate=0.25 +{ROLLOUT}.brand_new=1 +my_section.password=hunter2")
    groups = [made.group(influence) for influence in Influence]
    for path in ("n", "over_sample_rate", "brand_new", "multi_turn.enable", "engine_kwargs.sglang"):
        found = [bool(re.search(rf"{re.escape(f'{ROLLOUT}.{path}')}(?![\w.]*\w)", group)) for group in groups]
        assert sum(found) == 1, (path, groups)
    assert f"{ROLLOUT}.over_sample_rate = 0.25: verl's vLLM rollout does not read it" in made.group(
        Influence.UNSUPPORTED
    )
    assert f"{ROLLOUT}.brand_new" in made.group(Influence.UNKNOWN)
    assert "my_section.password" in made.group(Influence.UNKNOWN)
    assert "hunter2" not in made.text + made.account


def test_nothing_that_is_written_gets_out_of_its_comment(made: Made):
    evil = "a\\nmodels: [evil]\\e[2J"
    assert made("\"+x.note='b\nmodels: [worse]'\"", VERL + f'"{evil}": 1\n')["models"] == ["qwen3-8b"]
    assert "\x1b" not in made.text + made.account


def test_interpolations_that_change_nothing_need_not_be_resolved(made: Made):
    content = VERL.replace("demo", "'${now:%Y}'").replace("max_user_turns: null", "max_user_turns: '${nowhere}'")
    assert made.workload(content=content)["prompt_tokens"] == 512


def test_oc_select_falls_back_where_what_it_names_is_missing(made: Made):
    content = VERL.replace("max_prompt_length: 512, ", "").replace(",512}", ",300}")
    assert made.workload(content=content)["prompt_tokens"] == 300


def test_what_changes_nothing_can_be_set_below_an_interpolation(made: Made):
    content = VERL + "critic: {megatron: '${oc.select:actor_rollout_ref.actor.megatron,null}'}\n"
    made("++critic.megatron.fused=false", content)
    with pytest.raises(UserError, match=r"mtp\.enable_rollout=true: OmegaConf can't read it"):
        made(f"+{ROLLOUT}.mtp.enable_rollout=true", content.replace("    n: 8", "    n: 8\n    mtp: '${nowhere}'"))


def test_graph_sizes_join_an_existing_compilation_config(made: Made):
    own = f"+{ROLLOUT}.engine_kwargs.vllm.compilation_config='{{cudagraph_mode: PIECEWISE}}'"
    workload = made.workload(f"+{ROLLOUT}.cudagraph_capture_sizes=[1,8] {own}")
    assert workload["compilation_config"] == {"cudagraph_mode": "PIECEWISE", "cudagraph_capture_sizes": [1, 8]}


def test_the_preset_is_what_verl_s_own_defaults_come_to(made: Made):
    made("--one-engine", "{actor_rollout_ref: {model: {path: a/b}}, trainer: {n_gpus_per_node: 8}}")
    assert_preset("verl-0.9", yaml.safe_load(made.text)["workload_settings"]["verl-step"])


def test_the_page_shows_what_its_command_prints(made: Made):
    page = REPOSITORY / "docs" / "verl.md"
    command, *_ = commands(page, "rollout-bench")
    (training,) = [block.text for block in blocks(page, "text") if block.text.startswith("# training.yaml\n")]
    assert (command.words[1:3], command.words[-2:]) == (("from-verl", "training.yaml"), (">", "mine.yaml"))
    made(shlex.join(command.words[3:-2]), training)
    shown = "".join(line for line in made.text.splitlines(keepends=True) if not line.startswith("#"))
    assert [f"# mine.yaml\n{shown}"] == [block.text for block in blocks(page, "yaml")]


@pytest.mark.parametrize("version", VERL_VERSIONS)
def test_each_key_has_an_entry_that_explains_it(version: str):
    for path, key in KeyRegistry.of("verl", version).keys.items():
        assert key.says, path
        assert not isinstance(key.read, str) or key.read.removesuffix(" or null") in READERS, path
        assert key.influence is not Influence.UNKNOWN
        assert key.influence is Influence.UNSUPPORTED or not key.unless


@refusals(__file__, "verl")
def test_a_wrong_run_is_refused_in_two_lines(made: Made, given: dict[str, Any], problem: str, remedy: str):
    with refused(problem, remedy):
        made(given.get("arguments", ""), given.get("content", VERL).replace(*given.get("edit", ["", ""])))


def test_what_verl_s_command_line_says_needs_no_file(made: Made):
    words = "trainer.n_gpus_per_node=8 data.train_batch_size=256 actor_rollout_ref.model.path=a/b"
    from_file = made(words, "actor_rollout_ref: {}\n".replace("{}", "{rollout: {n: 1}}"))
    assert made.call(*words.split()) == from_file


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for path, problem in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        monkeypatch.setattr(sys, "argv", ["rollout-bench from-verl", str(path)])
        with pytest.raises(UserError, match=problem):
            trainers.from_verl()
