"""The command lines that users type: each is planned as they expect, each wrong one told in two lines."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from workspace import Workspace

from rollout_bench.plan.config_file import name_after
from rollout_bench.rules.planned import check_call


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a clone whose path holds spaces and umlauts."""
    return Workspace(tmp_path_factory.mktemp("workspace") / "a bü c")


def test_the_default_config_measures_each_quant_in_each_launch(workspace: Workspace):
    jobs = workspace.planned()
    assert (jobs["measure"], jobs["checkpoint"]) == (9, 2)
    assert workspace.measurements("results/summary.md", "--config", "quants=[bf16,w8a8]") == 18


def test_a_plan_goes_on_with_the_order_drawn_before(workspace: Workspace):
    path = workspace.path / "results" / "plan.json"

    def launches() -> list[str]:
        assert workspace.bench("plan", "--config", "launches=12").returncode == 0
        return [launch["record"] for launch in json.loads(path.read_text())["launches"]]

    drawn = launches()
    assert launches() == drawn
    path.unlink()
    assert launches() != drawn
    assert not (workspace.path / "results/offline").exists(), "planning leaves no folders of what was not measured"


def test_a_plan_shows_what_a_profile_is_read_as(workspace: Workspace):
    done = workspace.bench("plan", "--config", "profile=guidellm/sanity_concurrent", "overrides=seconds=7")
    (read,) = [line for line in done.stdout.splitlines() if line.startswith("profile: sanity-concurrent is ")]
    assert "with {seconds: 7}, read as {" in read
    assert "online: {concurrency: 2, duration_s: 7}" in read


def test_the_full_matrix_lists_what_it_skips(workspace: Workspace):
    done = workspace.bench("plan", "--configfile", "config/cuda.yaml")
    assert "skipped: offline qwen3-30b-a3b w8a16 verl-default: qwen3-30b-a3b has no weights for w8a16" in done.stdout
    assert "0 of 24 launches done" in done.stdout


# A sample: tests/unit/plan/test_bad_configs.py has the words of all that can be wrong in a config.
@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (["--config", "quants=[w8a9]"], "quant 'w8a9' is not defined", "write --config 'quants=[w8a8]'"),
        (["--config", "engine={python: /nowhere}"], "/nowhere does not run", "engine.python"),
        (["--configfile", "bad.yaml"], "prompts: 'none'", "prompts takes: whole number"),
        (["models/synthetic/qwen3-00000000-bf16"], "models/synthetic/qwen3-00000000-bf16", "rollout-bench plan"),
    ],
)
def test_a_wrong_call_stops_in_two_lines(workspace: Workspace, arguments: list[str], problem: str, remedy: str):
    (workspace.path / "bad.yaml").write_text("workload_settings: {demo: {prompts: none}}")
    done = workspace.snakemake("-n", *arguments)
    assert done.returncode == 1
    chatter = ("Using workflow", "Config file", "Assuming unrestricted", "Building DAG")
    lines = [line for line in done.stdout.splitlines() if not line.startswith(chatter)]
    assert len(lines) == 2, done.stdout
    assert problem in lines[0]
    assert lines[1].startswith("  -> ")
    assert remedy in lines[1]


@pytest.mark.parametrize(
    ("name", "content", "problem", "remedy"),
    [
        ("config.yaml", b"\xff\xfe", "is not UTF-8", "`rollout-bench keys` lists"),
        ("config.yaml", b"models: [a", "line 1, column 9: is not valid YAML", "write ] where"),
        ("config.yaml", b"- a", "must have keys", "`rollout-bench keys` lists"),
        ("config.yaml", None, "cannot be read", "`rollout-bench keys` lists"),
        ("logs", None, "logs: is a link to nowhere", "make that folder"),
        ("results", b"", "results: is a file", "move it away"),
        (
            ".snakemake/metadata/cmVzdWx0cw==",
            b"\xff\x00\x80",
            "cmVzdWx0cw==: is damaged",
            "move .snakemake/metadata away",
        ),
    ],
    ids=["not_utf8", "syntax", "a_list", "missing", "dead_link", "a_file", "metadata"],
)
def test_an_unusable_file_is_told_in_two_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    problem: str,
    remedy: str,
):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("nowhere") if content is None else path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        check_call(is_job=False)
    first, second = capsys.readouterr().err.splitlines()
    assert problem in first
    assert remedy in second


def test_two_configs_can_be_planned_at_the_same_time(workspace: Workspace):
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: workspace.by_itself("--quiet", "host", "reason", "-n"), range(2)))
    counts = [len(re.findall(r"^    results/\S+/launch-\d+\.json$", run.stdout, re.MULTILINE)) for run in runs]
    assert counts == [27, 27]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ([], "default"),
        (["config/cuda.yaml", "config/online.yaml"], "cuda+online"),
        (["my_own.v2.yml"], "my_own.v2"),
        (["what {is} this?.yaml"], "what-is-this-"),
        ([".yaml"], "yaml"),
        (["-.yaml"], "default"),
        (["x" * 300], "x" * 60),
    ],
)
def test_a_config_is_called_after_its_files(files: list[str], name: str):
    assert name_after([Path(file) for file in files]) == name
