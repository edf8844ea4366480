"""verl's settings become a config that can be planned, with an account of every key."""

import re
from pathlib import Path
from typing import Any

import pytest
from planned import planned
from refusals import refused
from trainer_commands import Made
from training_runs import ROLLOUT, VERL

from rollout_bench.commands import trainers
from rollout_bench.contracts.modes import MODES
from rollout_bench.core.errors import UserError
from rollout_bench.plan.matrix import caveat_lines
from rollout_bench.trainers.settings import Influence
from rollout_bench.trainers.step import StepPart, TrainerStep
from rollout_bench.workloads.policies import Balancer
from rollout_bench.workloads.requests import prompts

MODEL = "actor_rollout_ref.model"

METHODS_OF_FP8 = {
    "Fp8PerBlockOnlineLinearMethod": True,
    "Fp8PerBlockOnlineMoEMethod": True,
    "Fp8OnlineLinearMethod": False,
    "Fp8PerTensorOnlineLinearMethod": False,
    "UnquantizedLinearMethod": False,
}
"""vLLM 0.23's names of methods of linear layers -> whether they have a scale for each block of weights."""


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Made:
    return Made("from-verl", tmp_path, capsys)


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


def test_a_share_has_its_stated_number_of_distinct_beginnings():
    from made_workloads import workload

    share = StepPart(sequences=10, distinct=4)
    drawn = prompts(workload(**share.workload(16), prompt_tokens=16), 4096, launch=0, iteration=0)
    assert (len(drawn), len({tuple(ids[:-1]) for ids in drawn})) == (10, 4)
    assert StepPart(sequences=8, distinct=4).workload(16) == {"prompts": 4, "samples_per_prompt": 2}
    assert StepPart(sequences=3, distinct=2).workload(1) == {"prompts": 3, "samples_per_prompt": 1}


def test_a_share_has_the_expected_number_of_distinct_prompts():
    assert TrainerStep(28, 16, 7, "runs").share == StepPart(sequences=64, distinct=4)
    steps = (256, 8, 8), (256, 8, 1), (64, 1, 4)
    assert [TrainerStep(*step, "samples").share.distinct for step in steps] == [168, 256, 16]
    assert TrainerStep(4, 8, 8, "runs").share == StepPart(sequences=4, distinct=1)
    assert TrainerStep(8, 8, 3, "prompts").share == StepPart(sequences=24, distinct=3)


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
    config = made("--one-engine")
    assert (config["quants"], "--config quants=[bf16,...] names others" in made.text) == (["bf16", "fp8"], True)
    assert [one.spec.quant.name for one in planned(made.text).experiments] == ["bf16", "fp8"]
    assert made("+trainer.device=cpu")["quants"] == ["bf16"]  # whose quantizations need weights of their own
    config = made(f"+{ROLLOUT}.dtype=float16")
    assert (config["quants"], config["baseline"]) == (["fp16"], {"quant": "fp16"})
    assert made.experiment().spec.quant.linear_dtypes == ("float16",)


def test_a_folder_with_a_model_is_its_weights(made: Made, tmp_path: Path):
    folder = tmp_path / "My_Model-8B"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    config = made(f"actor_rollout_ref.model.path={folder}")
    assert config["model_settings"] == {"my-model-8b": {"weights": {"bf16": str(folder)}}}


def test_a_folder_of_the_training_machine_is_taken_and_told(made: Made):
    config = made("actor_rollout_ref.model.path=/nowhere/Qwen3-8B")
    assert config["model_settings"] == {"qwen3-8b": {"weights": {"bf16": "/nowhere/Qwen3-8B"}}}
    said = "actor_rollout_ref.model.path: /nowhere/Qwen3-8B is not on this machine: plan and run the config where it is"
    assert said in made.account


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


def test_what_changes_nothing_can_be_set_below_an_interpolation(made: Made):
    content = VERL + "critic: {megatron: '${oc.select:actor_rollout_ref.actor.megatron,null}'}\n"
    made("++critic.megatron.fused=false", content)
    with pytest.raises(UserError, match=r"mtp\.enable_rollout=true: OmegaConf can't read it"):
        made(f"+{ROLLOUT}.mtp.enable_rollout=true", content.replace("    n: 8", "    n: 8\n    mtp: '${nowhere}'"))


def test_what_verl_s_command_line_says_needs_no_file(made: Made):
    words = "trainer.n_gpus_per_node=8 data.train_batch_size=256 actor_rollout_ref.model.path=a/b"
    from_file = made(words, "actor_rollout_ref: {}\n".replace("{}", "{rollout: {n: 1}}"))
    assert made.call(*words.split()) == from_file


@pytest.mark.parametrize(
    ("words", "adapter"),
    [
        ("lora_rank=16", {"rank": 16, "alpha": 16, "targets": "all-linear"}),
        ("lora_rank=16 lora_alpha=64 target_modules=[q_proj,v_proj]", {"alpha": 64, "targets": ["q_proj", "v_proj"]}),
        ("lora.rank=8 lora_rank=16 lora_alpha=64", {"rank": 8, "alpha": 32}),
        ("lora.rank=8 lora.target_modules=[linear_fc2] lora.fully_sharded_loras=true",
         {"targets": ["down_proj"], "fully_sharded": True}),
        ("lora.rank=8 lora.target_modules=[linear_qkv,linear_proj,linear_fc1,linear_fc2]", {"targets": "all-linear"}),
        ("lora_rank=16 lora.merge=true", None),
    ],
)  # fmt: skip
def test_an_adapter_is_measured_as_verl_s_engines_apply_it(made: Made, words: str, adapter: dict[str, Any] | None):
    given = " ".join(f"+{MODEL}.{word}" for word in words.split())
    for kind in ("", "--cycle "):
        found = made(f"{kind}{given}").get("lora")
        assert (found is None) == (adapter is None)
        assert (found or {}).items() >= (adapter or {}).items()
        if adapter:
            assert made.experiment().spec.engine.args["enable_lora"] is True


def test_an_adapter_that_vllm_cannot_keep_apart_is_refused(made: Made):
    dora = f"+{MODEL}.lora.rank=8 +{MODEL}.lora.type=dora"
    with refused("lora.type: vLLM keeps no DoRA adapter apart", f"add {MODEL}.lora.merge=true"):
        made(dora)
    assert "lora" not in made(f"{dora} +{MODEL}.lora.merge=true")
    assert made(f"+{MODEL}.lora_rank=8 +{MODEL}.lora.type=dora")["lora"]["rank"] == 8, "FSDP does not read it"


def test_verl_sets_an_adapters_arguments_after_those_of_engine_kwargs(made: Made):
    adapter = f"+{MODEL}.lora_rank=16"
    given = f"+{ROLLOUT}.engine_kwargs.vllm.max_lora_rank=64 +{ROLLOUT}.engine_kwargs.vllm.max_loras=4"
    assert made(f"{adapter} {given}") == made(adapter)
    assert made.experiment().spec.engine.args["max_lora_rank"] == 16


def test_a_placement_says_that_an_adapters_speed_is_overstated(made: Made):
    made(f"--placement +{MODEL}.lora_rank=16")
    (line,) = caveat_lines(planned(made.text))
    assert line.startswith("workload verl-step: the base model is measured, without the LoRA adapter (rank 16)")
    made(f"--placement +{MODEL}.lora_rank=16 +{MODEL}.lora.merge=true")
    assert caveat_lines(planned(made.text)) == []


def test_hydras_options_name_a_file_of_the_users_own(made: Made, tmp_path: Path):
    expected = made("data.train_batch_size=64")
    (tmp_path / "mine.yaml").write_text("defaults: [ppo_trainer, _self_]\n" + VERL)
    for name in ("mine", "mine.yaml"):
        assert made.call(f"--config-path={tmp_path}", "--config-name", name, "data.train_batch_size=64") == expected


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path):
    for path, problem in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=problem):
            trainers.from_verl([str(path)])
