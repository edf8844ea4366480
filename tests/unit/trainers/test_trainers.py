"""The settings of verl and TRL become configs that can be planned, with an account of every key."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from docs_pages import REPOSITORY, blocks, commands
from planned import assert_preset
from refusals import refusals, refused
from trainer_commands import USUAL, Made, rows
from training_runs import FILES

from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.trainers import step
from rollout_bench.trainers.settings import READERS, Influence, KeyRegistry


@pytest.fixture
def made(trainer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Made:
    return Made(f"from-{trainer}", tmp_path, capsys)


def of_trainers(tables: dict[str, list[Any]]) -> Any:
    """Return a mark that gives a test each trainer's rows of a table."""
    found = [
        pytest.param(trainer, row, id=f"{trainer}-{row[0]}") for trainer in ("verl", "trl") for row in tables[trainer]
    ]
    return pytest.mark.parametrize(("trainer", "row"), found)


@of_trainers(rows("steps.yaml"))
def test_a_run_comes_to_what_its_row_says(made: Made, row: list[Any]):
    _, arguments, file, edit, expected, words = row
    plan = made.planned(arguments, FILES.get(file, USUAL[made.command]).replace(*edit or ["", ""]))
    assert {key: plan.get(key) for key in expected} == expected
    assert [word for word in words if word not in made.account] == []


@of_trainers(rows("steps.yaml")["honoured"])
def test_a_key_that_is_honoured_reaches_config_and_plan(made: Made, row: list[Any]):
    override, key, value = row
    assert (made.planned(override)[key], made.workload(override)[key]) == (value, value)


@of_trainers(rows("accounts.yaml"))
def test_the_account_says_what_its_row_says(made: Made, row: list[Any]):
    made.check_account(row)


@pytest.mark.parametrize("trainer", ["trl"])
@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        (
            "colocate",
            "+server.enable_prefix_caching=false +server.enforce_eager=true +server.kv_cache_dtype=fp8"
            " +server.dtype=float16 +server.max_model_len=400 +server.trust_remote_code=true"
            " +server.vllm_model_impl=transformers +server.gpu_memory_utilization=0.8",
        ),
        (
            "server",
            "+vllm_enable_prefix_caching=false +vllm_dtype=float16 +vllm_max_model_length=400 +vllm_max_model_len=400"
            " +trust_remote_code=true +vllm_model_impl=transformers +vllm_gpu_memory_utilization=0.2",
        ),
    ],
)
def test_the_engines_have_nothing_of_the_other_mode_s_keys(made: Made, mode: str, keys: str):
    expected = made(f"vllm_mode={mode}")
    assert made(f"vllm_mode={mode} {keys}") == expected
    other = made.account.partition("not read with these settings:\n")[2]
    assert all(key[1:].partition("=")[0] in other for key in keys.split())


@pytest.mark.parametrize("trainer", ["trl"])
@pytest.mark.parametrize(("override", "engines"), [("~num_processes", 4), ("num_processes=2", 2)])
def test_accelerates_file_has_the_number_of_processes(made: Made, tmp_path: Path, override: str, engines: int):
    (tmp_path / "zero3.yaml").write_text("{distributed_type: DEEPSPEED, num_processes: 4}")
    made_config = made(f"{override} +accelerate_config={tmp_path / 'zero3.yaml'}")
    assert made_config["rollout"]["replicas"] == engines


@pytest.mark.parametrize("trainer", ["verl", "trl"])
def test_where_an_engine_for_npus_is_installed_the_platform_is_ascend(made: Made, monkeypatch: pytest.MonkeyPatch):
    engine = InstalledEngine("vllm", "0.23.0", {"vllm-ascend": "0.23.0"}, frozenset(), sys.executable)
    monkeypatch.setattr(step, "probe_engine", lambda _: engine)
    config = made()
    assert (config["platform"], "VLLM_ASCEND_ENABLE_NZ" in str(config)) == ("ascend", made.command == "from-verl")
    assert "platform is ascend here" in made.account


VERL_FILE = "{actor_rollout_ref: {model: {path: a/b}}, trainer: {n_gpus_per_node: 8}}"
TRL_FILE = "{model_name_or_path: a/b, use_vllm: true, num_processes: 8, max_prompt_length: 512}"


@pytest.mark.parametrize(
    ("trainer", "preset", "content"), [("verl", "verl-0.9", VERL_FILE), ("trl", "trl-grpo", TRL_FILE)]
)
def test_the_preset_has_the_trainers_own_defaults(made: Made, preset: str, content: str):
    (workload,) = made("--one-engine", content)["workload_settings"].values()
    assert_preset(preset, workload)


@pytest.mark.parametrize("trainer", ["verl", "trl"])
def test_the_page_shows_what_its_command_prints(made: Made, trainer: str):
    page = REPOSITORY / "docs" / f"{trainer}.md"
    command, *_ = commands(page, "rollout-bench")
    (training,) = [block.text for block in blocks(page, "text") if block.text.startswith(f"# {command.words[2]}\n")]
    assert (command.words[1], command.words[-2:]) == (f"from-{trainer}", (">", "mine.yaml"))
    made(shlex.join(command.words[3:-2]), training)
    shown = "".join(line for line in made.text.splitlines(keepends=True) if not line.startswith("#"))
    assert f"# mine.yaml\n{shown}" in [block.text for block in blocks(page, "yaml")]


@pytest.mark.parametrize(("trainer", "version"), [("verl", "0.9"), ("verl", "0.8"), ("TRL", "grpo"), ("TRL", "rloo")])
def test_each_key_has_an_entry_that_explains_it(trainer: str, version: str):
    for path, key in KeyRegistry.of(trainer, version).keys.items():
        assert key.says, path
        assert not isinstance(key.read, str) or key.read.removesuffix(" or null") in READERS, path
        assert key.influence is Influence.UNSUPPORTED or not key.unless


@pytest.mark.parametrize("trainer", ["verl", "TRL"])
def test_a_key_of_another_trainer_is_none_of_this_one(trainer: str):
    registry = KeyRegistry.of(trainer, "0.9" if trainer == "verl" else "grpo")
    keys = [key for keys in registry.foreign.values() for key in keys]
    assert len(keys) > 5
    assert [key for key in keys if registry.keys.keys() & {key, f"{key}.*"} or registry.below(key)] == []


def test_no_key_of_transformers_own_training_is_unknown():
    from transformers import TrainingArguments  # seconds, and only here

    registry = KeyRegistry.of("TRL", "grpo")
    names = [field.name for field in dataclasses.fields(TrainingArguments)]
    assert [name for name in names if name not in registry.keys and not registry.below(name)] == []


def check_refused(made: Made, given: dict[str, Any], problem: str, remedy: str) -> None:
    content = given.get("content", USUAL[made.command]).replace(*given.get("edit", ["", ""]))
    with refused(problem, remedy):
        made(given.get("arguments", ""), content)


@pytest.mark.parametrize("trainer", ["verl"])
@refusals(__file__, "verl")
def test_a_wrong_run_of_verl_is_refused_in_two_lines(made: Made, given: dict[str, Any], problem: str, remedy: str):
    check_refused(made, given, problem, remedy)


@pytest.mark.parametrize("trainer", ["trl"])
@refusals(__file__, "trl")
def test_a_wrong_run_of_trl_is_refused_in_two_lines(made: Made, given: dict[str, Any], problem: str, remedy: str):
    check_refused(made, given, problem, remedy)
