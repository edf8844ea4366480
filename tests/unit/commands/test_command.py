"""The command `rollout-bench`: it finds its sub-commands, and is installed with the package."""

import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from refusals import refused
from workspace import REPOSITORY

from rollout_bench.__main__ import INTERNAL, all_commands, dispatch
from rollout_bench.commands import run as command_run
from rollout_bench.commands.groups import OTHERS
from rollout_bench.plan.config import Config

SOURCES = REPOSITORY / "src"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rollout_bench", *arguments]
    return subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)


def test_a_misspelt_sub_command_names_the_one_that_was_meant() -> None:
    done = run("comparre", "a", "b")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "there is no command 'comparre'\n  -> did you mean 'compare'?\n",
    )


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("gate", "write rollout-bench compare BASELINE results --fail-if default"),
        ("from-openrlhf", "for another trainer write config.yaml by hand"),
        ("dry-run", "write rollout-bench plan: it measures nothing"),
        ("llm-d", "write rollout-bench init --from llm-d URL: inference-perf/sanity_random against a server"),
        ("clean", "write rollout-bench run: it keeps what is measured; to measure all again, move results/ away"),
        ("serve", "write rollout-bench init --from endpoint URL: it measures a server that `vllm serve MODEL` started"),
    ],
)
def test_what_other_programs_call_a_command_leads_to_the_command_here(word: str, remedy: str) -> None:
    with refused(f"there is no command '{word}'", remedy):
        dispatch([word])


def test_a_demo_refuses_a_wrong_value_before_it_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with refused("launches: 'x' is neither a number nor auto", "launches takes: whole number from 1"):
        dispatch(["demo", "--config", "launches=x"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("pa", "pack"),
        ("pack --an", "--anonymous"),
        ("run --configf", "--configfile"),
        ("kit pa", "pack"),
        ("buil", ""),
        ("plan --config quan", "quants= quant_settings="),
        ("init --from endp", "endpoint"),
        ("keys ttf", "ttft_ms"),
    ],
)
def test_a_shell_completes_commands_and_options(typed: str, completed: str, tmp_path: Path) -> None:
    line = f"rollout-bench {typed}"
    script = f"""source <(rollout-bench completion bash)
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDS=({line}) COMP_CWORD=1
        _python_argcomplete rollout-bench; echo "${{COMPREPLY[@]}}" """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == completed


def test_an_address_leads_to_the_command_that_measures_a_server() -> None:
    with refused("there is no command 'benchmark'", "write rollout-bench init --from endpoint http://h:8000/v1"):
        dispatch(["benchmark", "run", "--target", "http://h:8000/v1"])
    with refused("there is no command 'profile'", "write rollout-bench init --from endpoint http://localhost:8000/v1"):
        dispatch(["profile", "-m", "qwen", "--url", "localhost:8000"])


def test_the_load_of_another_programs_command_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["throughput", "--input-len", "8", "--output-len", "4", "--num-prompts", "2"]
    load = "'workload_settings={demo: {prompt_tokens: 8, output_tokens: 4, prompts: 2}}'"
    with refused("there is no command 'bench'", f"write rollout-bench run --config {load}"):
        dispatch(["bench", *words])
    with refused("there is no command 'bench'", "http://h:1/v1; then type the options after `rollout-bench plan`"):
        dispatch(["bench", "serve", "--host", "h", "--port", "1", "--request-rate", "4"])
    with refused("--request-rate: there is no such option", "`rollout-bench plan --request-rate 4` takes it, or names"):
        dispatch(["init", "--from", "endpoint", "http://h:1/v1", "m", "--request-rate", "4"])


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("slo", "slo.ttft_ms: number above 0"),
        ("num-prompts", "workload_settings.<name>.prompts: whole number from 1"),
        ("tensor-parallel-size", "an argument of vLLM's: --config 'engine_args={tensor_parallel_size: VALUE}'"),
        ("attention-backend", "an argument of vLLM's: --config 'engine_args={attention_backend: VALUE}'"),
        ("token", "Tokens generated for each sequence"),
        ("parallel", "engine_args.tensor_parallel_size"),
        ("quantization", "quants: list of text"),
        ("limit", "slo.ttft_ms"),
        ("int8", "w8a16: a quantization: --config 'quants=[bf16, w8a16]'"),
        ("kv_cache", "engine_args.kv_cache_dtype"),
    ],
)
def test_keys_are_told_by_any_of_their_names(word: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["keys", word]) == 0
    assert shown in capsys.readouterr().out


def test_keys_lists_all_at_the_top(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["keys"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed[: len(Config.model_fields)]] == [*Config.model_fields]
    with refused("no key of a config has 'outputtokens' in its name", "did you mean output_tokens?"):
        dispatch(["keys", "outputtokens"])


def test_every_command_that_is_named_for_another_word_exists() -> None:
    named = {remedy.split()[1].rstrip(":") for remedy in OTHERS.values()}
    assert named <= {*all_commands(), "--help", "--version"}
    assert not OTHERS.keys() & all_commands().keys()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["compare", "a"], "write rollout-bench compare A B; "),
        (["history"], "write rollout-bench history FILE; "),
        (["kit"], "write rollout-bench kit pack|run DIR; "),
        (["export"], "write rollout-bench export RESULTS --out DIR; "),
    ],
)
def test_the_whole_command_is_shown_where_words_are_missing(words: list[str], remedy: str) -> None:
    with refused("arguments are required", remedy):
        dispatch(words)


def test_options_before_the_command_and_an_option_for_its_file_are_moved() -> None:
    first, file = run("--config", "launches=3", "plan"), run("from-verl", "--file", "training.yaml")
    assert first.stderr == ("--config: the command stands first\n  -> write rollout-bench plan --config launches=3\n")
    assert file.stderr.endswith("  -> leave --file out: FILE stands alone\n")


@pytest.mark.parametrize(("words", "command"), [(["--config", "launches=3"], "run"), (["-n", "--cores", "1"], "plan")])
def test_options_without_a_command_get_the_one_that_takes_them(words: list[str], command: str) -> None:
    with refused(f"{words[0]}: is an option of a command", f"write rollout-bench {command} {' '.join(words)}"):
        dispatch(words)


def test_help_has_each_command_in_a_group_with_an_example_and_hides_internal_ones() -> None:
    titles, shown, examples = [], [], []
    for line in run("--help").stdout.partition("exit\n\n")[2].splitlines():
        kind = titles if line.endswith(":") and line[0] != " " else examples if "$ rollout-bench" in line else shown
        kind.append(line.split()[-1 if kind is titles else 0 if kind is shown else 2]) if line else None
    assert titles == ["measure:", "read:", "convert:", "compare:", "share:"]
    assert shown == examples
    assert set(shown) == all_commands().keys() - INTERNAL.keys()
    assert INTERNAL.keys() == {"measure", "build"}


@pytest.mark.parametrize("name", ["run", "plan"])
def test_help_of_a_snakemake_call_has_its_common_options_and_an_example(name: str) -> None:
    said = run(name, "--help").stdout
    assert all(f"  {option}" in said for option in ("--configfile FILE", "--config KEY=VALUE"))
    assert [option in said for option in ("-n, ", "--cores N", "when a launch failed")] == [name == "run"] * 3
    assert f"example:\n  rollout-bench {name} --configfile" in said


def test_a_run_in_a_folder_that_cannot_be_written_is_refused_in_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write into any folder of a file system that it can
    with refused(f"{tmp_path}: cannot be written", "another folder"):
        command_run.run(["--cores", "1"])


def test_help_of_compare_has_every_exit_status() -> None:
    said = " ".join(run("compare", "--help").stdout.partition("Exit status")[2].split())
    assert all(f" {status} " in said for status in range(5))


def test_help_of_run_says_what_targets_and_ctrl_c_do() -> None:
    said = " ".join(run("run", "--help").stdout.split())
    assert "A target, which stands before --config" in said
    assert "Ctrl-C ends engines that run" in said
    assert "--fail-if 'output_tokens_per_s < -3%'`" in " ".join(run("compare", "--help").stdout.split())


def test_a_sub_command_reports_its_error_under_its_own_name(tmp_path: Path) -> None:
    assert run("summarise", "--device").returncode == 2
    done = run("summarise", str(tmp_path / "nowhere"), "--all")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert done.stderr.startswith(f"{tmp_path / 'nowhere'}: ")
    done = run("compare", "a", "b", "--confidence", "2")
    assert "rollout-bench compare --help" in done.stderr


@pytest.mark.parametrize(
    "words", [["rollout_bench", "measure"], ["rollout_bench", "build"], ["rollout_bench.commands.check"]]
)
def test_what_runs_in_an_engines_python_needs_nothing_installed(tmp_path: Path, words: list[str]) -> None:
    bare = tmp_path / "engine"
    venv.create(bare, symlinks=True)
    # what vLLM installs, without the file by which this environment finds the package
    packages = next(bare.glob("lib/python3*/site-packages"))
    for path in Path(yaml.__file__).parents[1].iterdir():
        if path.suffix != ".pth" and path.name != "rollout_bench":  # an editable wheel has its folder share
            (packages / path.name).symlink_to(path)
    environment = {"PATH": ""}
    found = [str(bare / "bin" / "python"), "-c", "import pydantic, rollout_bench"]
    done = subprocess.run(found, env=environment, capture_output=True, text=True, check=False)
    assert "No module named 'rollout_bench'" in done.stderr
    command = [str(bare / "bin" / "python"), "-m", *words, "--help"]
    environment["PYTHONPATH"] = str(SOURCES)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: " in done.stdout
