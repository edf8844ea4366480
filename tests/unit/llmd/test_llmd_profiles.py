"""Profiles of llm-d-benchmark become workloads; what can't be honoured of them is refused by its name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from llmd_shapes import SHAPES, Shape
from planned import REPOSITORY, merged_with, planned
from refusals import hold, refusals, refused, write_files

from rollout_bench.core.errors import UserError
from rollout_bench.llmd.keys import READERS, Meaning
from rollout_bench.llmd.loads import HARNESSES
from rollout_bench.llmd.profiled import WorkloadProfile, profile_lines, profile_of, rendered, with_profiles
from rollout_bench.llmd.template import parsed
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.results_state import ResultsState, write_plan_and_specs
from rollout_bench.plan.schedule import schedule

CONFIG: dict[str, Any] = {"models": ["qwen3-90m"], "modes": ["online"]}
PROFILES = sorted((REPOSITORY / "config" / "llm-d").glob("*/*.yaml.in"))
READ = [path for path in PROFILES if path.name != "use_case_image_classification.yaml.in"]
MEANINGS: list[Any] = yaml.safe_load(Path(__file__).with_name("meanings.yaml").read_text())
FLAGS = "executable: x\nmodel: REPLACE_ENV_LLMDBENCH_DEPLOY_CURRENT_MODEL\nnum-prompts: 4\nmax-concurrency: 1\n"


def meaning(harness: str, path: Path | str, overrides: Any = None) -> Meaning:
    """Return what a profile means."""
    profile = WorkloadProfile(harness=harness, path=str(path), overrides=parsed(overrides, "w"))
    return profile_of(profile, CONFIG, "config: w").meaning


def planned_profile(harness: str, path: Path | str, **more: Any) -> Any:
    """Return the merged config of a workload with a profile."""
    own = {"profile": {"harness": harness, "path": str(path)}, **more}
    return with_profiles({**CONFIG, "workloads": ["w"], "workload_settings": {"w": own}})["workload_settings"]["w"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.harness}/{shape.name}")
def test_every_llmd_profile_is_read_or_refused_by_its_key(
    shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLMDBENCH_RUN_DATASET_DIR", "/data")
    monkeypatch.setenv("LLMDBENCH_RUN_DATASET_FILE", "set.jsonl")
    path = tmp_path / f"{shape.name}.yaml.in"
    path.write_text(yaml.safe_dump(shape.content))
    if not shape.refused:
        found = meaning(shape.harness, path)
        assert {**found.otherwise, **found.workload}["prompts"] >= 1
        return
    with refused(f"{path.name}: {shape.refused}", ""):
        meaning(shape.harness, path)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("guide_optimized-baseline_1", "{}"),
        ("guide_kimi-k3-h100_1", "{}"),
        ("sanity_random", "{}"),
        ("shared_prefix_synthetic_heavy", "{}"),
    ],
)
def test_what_is_read_can_be_planned(name: str, overrides: str, tmp_path: Path):
    shape = next(shape for shape in SHAPES if shape.name == name)
    path = tmp_path / f"{name}.yaml.in"
    path.write_text(yaml.safe_dump(shape.content))
    profile = f"{{profile: {{harness: {shape.harness}, path: {path}, overrides: {overrides}}}}}"
    load = f"workloads: [w], workload_settings: {{w: {profile}}}"
    [experiment] = planned(f"{{modes: [online], quants: [bf16], timeout_s: 9000, {load}}}").experiments
    stages = (shape.content.get("load") or {}).get("stages")
    assert stages is None or len(experiment.spec.load.points) == len(stages)


def test_a_file_that_llmd_s_variables_name_is_read_where_the_profile_names_none(monkeypatch: pytest.MonkeyPatch):
    with refused("data.path: is missing", "download the file"):
        meaning("inference-perf", "chatbot_sharegpt")
    monkeypatch.setenv("LLMDBENCH_RUN_DATASET_DIR", "/data")
    with refused("data.path: is missing", "download the file"):
        meaning("inference-perf", "chatbot_sharegpt")
    monkeypatch.setenv("LLMDBENCH_RUN_DATASET_FILE", "set.json")
    found = meaning("inference-perf", "chatbot_sharegpt")
    assert found.workload["dataset"]["path"] == "/data/set.json"
    assert any(note.startswith("data.path: /data/set.json, from LLMDBENCH_RUN_DATASET_DIR") for note in found.notes)


def test_every_harness_of_llmd_is_known():
    assert {shape.harness for shape in SHAPES} == set(HARNESSES)


@pytest.mark.parametrize("path", READ, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_our_own_profiles_are_found_by_their_name_and_read(path: Path):
    name = path.name.removesuffix(".yaml.in")
    found = meaning(path.parent.name, name, {"data.path": "conversations.json"} if "sharegpt" in name else None)
    assert {**found.otherwise, **found.workload}["prompts"] >= 1
    assert bool(found.slo) == name.startswith("use_case")


@pytest.mark.parametrize("row", MEANINGS, ids=lambda row: row[0])
def test_a_profile_means_what_its_row_says(row: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, harness, path, overrides, expected = row
    monkeypatch.setenv("LONG", "77")
    (tmp_path / "a.yaml").write_text(path.replace("FLAGS", "{" + ", ".join(FLAGS.splitlines()) + ","))
    found = meaning(harness, tmp_path / "a.yaml" if path.startswith(("FLAGS", "{")) else path, overrides)
    assert found.mode == expected.get("mode", "online")
    for part in expected.keys() - {"notes", "mode"}:
        values = getattr(found, part)
        assert {key: values.get(key) for key in expected[part]} == expected[part]
    assert hold(found.notes, expected.get("notes", found.notes)), found.notes


@pytest.mark.parametrize(
    ("benchmarks", "constraints", "expected", "prompts"),
    [
        (
            [{"profile.streams": users, "constraints[0].count": 12 * users} for users in (1, 2)],
            [{"kind": "max_requests", "count": 12}],
            {"concurrency": [1, 2], "requests": [12, 24]},
            24,
        ),
        (
            [{"profile.streams": users} for users in (30, 20, 10)],
            [{"kind": "max_duration", "seconds": 20}],
            {"concurrency": [30, 20, 10], "duration_s": 20},
            469,
        ),
    ],
    ids=["by number", "by time"],
)
def test_benchmarks_of_a_scenario_are_its_stages(
    benchmarks: list[Any], constraints: list[Any], expected: dict[str, Any], prompts: int, tmp_path: Path
):
    content = yaml.safe_load((READ[0].parents[1] / "guidellm" / "sanity_concurrent.yaml.in").read_text())
    content["benchmarks"], content["spec"]["constraints"] = benchmarks, constraints
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    found = meaning("guidellm", tmp_path / "a.yaml")
    assert (found.online, {**found.otherwise, **found.workload}["prompts"]) == (expected, prompts)


def test_the_profile_that_is_kept_has_what_the_launch_knows(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(FLAGS + "base-url: REPLACE_ENV_LLMDBENCH_HARNESS_STACK_ENDPOINT_URL\n")
    profile = WorkloadProfile(harness="vllm-benchmark", path=str(tmp_path / "a.yaml"), overrides={"num-prompts": 9})
    known = {"LLMDBENCH_DEPLOY_CURRENT_MODEL": "m/n", "LLMDBENCH_HARNESS_STACK_ENDPOINT_URL": "http://h:1"}
    text = rendered(profile, CONFIG, known)
    assert "a.yaml, with {num-prompts: 9}, as" in text
    kept = yaml.safe_load(text)
    assert kept == {"executable": "x", "model": "m/n", "num-prompts": 9, "max-concurrency": 1, "base-url": "http://h:1"}


def test_what_the_profile_says_nothing_of_may_stand_beside_it(tmp_path: Path):
    assert planned_profile("guidellm", "sanity_concurrent", prompts=1000)["prompts"] == 1000
    (tmp_path / "a.yaml").write_text(FLAGS)
    found = planned_profile("vllm-benchmark", tmp_path / "a.yaml", seed=5, online={"prompts_as": "text"})
    assert (found["seed"], found["online"]) == (5, {"prompts_as": "text", "concurrency": 1})


def test_a_profile_workload_has_the_key_of_its_load(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(FLAGS)
    with_profile = f"{{profile: {{harness: vllm-benchmark, path: {tmp_path}/a.yaml}}}}"
    written = (
        "{prompts: 4, samples_per_prompt: 1, prompt_tokens: 1024, output_tokens: 128, ignore_eos: true,"
        " online: {concurrency: 1}}"
    )
    found = [
        planned(f"{{modes: [online], quants: [bf16], workloads: [w], workload_settings: {{w: {own}}}}}")
        .experiments[0]
        .spec
        for own in (with_profile, written)
    ]
    assert (found[0], found[0].key()) == (found[1], found[1].key())


def test_a_profile_given_as_argument_becomes_an_online_workload():
    config = read_config(merged_with("{profile: vllm-benchmark/sanity_random, overrides: {num-prompts: '7'}}"))
    assert read_config(merged_with("{profile: nop/nop}")).modes == ["startup"]
    assert (config.workloads, config.modes) == (["sanity-random"], ["online"])
    assert (config.workload_settings["sanity-random"].prompts, config.profile.steps) == (7, 8)


def test_the_longer_form_stands_on_the_command_line_too():
    short = read_config(merged_with("{profile: guidellm/sanity_concurrent, overrides: {seconds: '3'}}"))
    path = REPOSITORY / "config/llm-d/guidellm/sanity_concurrent.yaml.in"
    longer = f"{{profile: {{harness: guidellm, path: {path}}}, overrides: {{seconds: '3'}}}}"
    [one], [other] = (
        [(name, config.workload_settings[name].online) for name in config.workloads]
        for config in (short, read_config(merged_with(longer)))
    )
    assert one == other


@pytest.mark.parametrize(
    ("profile", "beside", "problem"),
    [
        ("inference-perf/sanity_random", {"modes": ["offline"]}, "measures only online"),
        ("inference-perf/sanity_random", {"workloads": ["demo"]}, "measures only sanity-random"),
        ("nop/nop", {"modes": ["online"]}, "measures only startup"),
    ],
)
def test_options_beside_a_profile_are_not_dropped_silently(profile: str, beside: dict[str, Any], problem: str):
    with pytest.raises(UserError, match=problem):
        read_config(merged_with(f"profile: {profile}") | beside, {"profile": profile, **beside})
    read_config(merged_with(f"profile: {profile}") | beside)  # of a file that is laid over: it measures this alone


def test_the_reading_of_a_profile_is_told_with_its_overrides():
    own = {"overrides": {"load.worker_max_concurrency": 7, "rate": 2}}
    perf = {"profile": {"harness": "inference-perf", "path": "sanity_random", **own}}
    flags = {"profile": {"harness": "vllm-benchmark", "path": "sanity_random", "overrides": {"num-warmups": 3}}}
    read, *notes = profile_lines(
        {**CONFIG, "workloads": ["a", "b"], "workload_settings": {"a": perf, "b": flags, "c": {}}}
    )
    assert "sanity_random.yaml.in, with {load.worker_max_concurrency: 7, rate: 2}, read as {" in read
    assert "online: {request_rate: 2, duration_s: 30}}" in read
    assert any(note.startswith("profile: a: load.worker_max_concurrency: limits nothing") for note in notes)
    assert any(note.startswith("profile: b: num-warmups: not sent") for note in notes)


def test_the_filled_profile_lies_beside_the_spec(tmp_path: Path):
    config = read_config(merged_with("{profile: vllm-benchmark/sanity_random, quants: [bf16]}"))
    plan = schedule(config, expand(config, probe_engine(None)))
    write_plan_and_specs(ResultsState(plan, tmp_path), set(plan.jobs))
    [kept] = tmp_path.glob("online/*/profile.yaml")
    assert kept.with_name("spec.json").exists()
    content = yaml.safe_load(kept.read_text())
    assert content["base-url"] == "http://127.0.0.1:PORT"
    assert content["model"].startswith("./models/synthetic/")


def test_a_profiles_limits_are_slo_unless_the_config_sets_it(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(FLAGS + "goodput: ttft:500\n")
    own = {"profile": {"harness": "vllm-benchmark", "path": str(tmp_path / "a.yaml")}}
    config = {**CONFIG, "workloads": ["w"], "workload_settings": {"w": own}}
    assert (with_profiles(config)["slo"], with_profiles({**config, "slo": {"tpot_ms": 9}})["slo"]) == (
        {"ttft_ms": 500.0},
        {"tpot_ms": 9},
    )


def rows(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, and those of the mappings below."""
    for row in table.values():
        below = row.get("keys", row.get("each", {}))
        is_row = not {"take", "ignore", "refuse", "keys", "each"}.isdisjoint(row)
        yield from [row] if is_row else []
        yield from rows(below if is_row else row)


@pytest.mark.parametrize("harness", [name for name, table in HARNESSES.items() if "refuse" not in table])
def test_each_row_has_a_reader_or_a_reason(harness: str):
    for row in rows(HARNESSES[harness]["keys"]):
        take = row.get("take")
        assert not isinstance(take, str) or take in {*READERS, "model", "url"}, row
        assert all(isinstance(row[kind], str) and row[kind] for kind in ("ignore", "refuse") if kind in row), row


@refusals(__file__)
def test_a_wrong_profile_is_refused_in_two_lines(
    given: dict[str, Any], problem: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAD_PROFILES_TOKEN", "abcdef")
    write_files(__file__, tmp_path)
    with refused(problem, remedy):
        planned(given)
