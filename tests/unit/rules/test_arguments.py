"""Arguments of Snakemake that are read without its parser mean what they mean to it."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.common.configfile import load_configfile
from snakemake.settings.types import ConfigSettings
from snakemake.utils import update_config

from rollout_bench.core.errors import UserError
from rollout_bench.core.places import home
from rollout_bench.plan.config_file import check_config_file, read_config
from rollout_bench.rules import arguments
from rollout_bench.rules.arguments import Call, load, read_call, with_shipped
from rollout_bench.rules.checks import check_words
from rollout_bench.rules.planned import default_config, plan_of_call

FILES = {
    "one.yaml": "launches: 3\nengine: {python: null, environment: {A: on}}\nrate: 1e5\nday: 2026-01-01\n",
    "other.yaml": "engine: 5\nquants: [bf16]\n",
    "third.yaml": "engine: {seed: 0x10}\n",
    "some.json": '{"rate": 1e5, "name": "\\u00e9"}',
    "tabs.json": '{\t"launches":\t4}',
    "template.yaml": "__use_yte__: true\n?if True:\n  launches: 7\n",
    "off.yaml": "__use_yte__: false\n?if True:\n  launches: 7\n",
}


SLURM = str(Path("PROFILES", "slurm"))
"""A profile of the package, whose folder stands for PROFILES."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the call is made in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def plain(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a call that has to be read without Snakemake's parser."""
    with monkeypatch.context() as patched:
        patched.delattr(arguments, "_parsed")
        return read_call(words)


VALUES = """3 -1 1_000 0x10 1e5 nan True false null ~ bf16 [bf16,fp8] {a:1} {python:,b:2} '3' a=b [1,2 {a: *b} :"""
"""As people write them, and broken ones."""


@pytest.mark.parametrize("text", VALUES.split())
def test_values_of_the_command_line_are_those_of_snakemake(text: str, monkeypatch: pytest.MonkeyPatch):
    for entry in (f"key={text}", f"key= {text}", f"key={{offline: {text}}}"):
        assert repr(plain(["--config", entry], monkeypatch).config) == repr(parse_config([entry]))


def test_config_files_and_values_are_laid_over_each_other(monkeypatch: pytest.MonkeyPatch):
    files, entries = ["one.yaml", "other.yaml", "third.yaml"], ["launches=5", "engine={environment: {B: 1}}", "empty="]
    call = plain(["--configfile", *files, "--config", *entries, "-d", "sub"], monkeypatch)
    given = ConfigSettings(config=parse_config(entries), configfiles=[Path(file) for file in files])
    assert call.merged() == given.overwrite_config
    assert (call.configfiles, call.directory, call.jobs) == (given.configfiles, Path("sub"), False)


def test_a_config_that_this_folder_lacks_is_the_packages(folder: Path):
    ours = str(home() / "config" / "online.yaml")
    both = ["-n", "--configfile", ours, "one.yaml", "--cores", "1", f"--configfiles={ours}"]
    words = [word.replace(ours, "config/online.yaml") for word in both]
    assert with_shipped(words) == both
    (folder / "config").mkdir()
    (folder / "config" / "online.yaml").touch()
    assert with_shipped(words) == words


def test_config_files_are_laid_over_the_default_of_this_folder_or_of_the_package(folder: Path):
    assert default_config([Path("one.yaml")]) == home() / "config" / "config.yaml"
    assert default_config([]) == Path("config.yaml"), "a call without any config plans nothing"
    (folder / "config.yaml").touch()
    assert default_config([Path("one.yaml")]) == Path("config.yaml")


OWN = {"quants": ["bf16"], "models": ["m"], "workloads": ["step"], "workload_settings": {"step": {"prompts": 8}}}


@pytest.mark.parametrize(
    ("file", "problem", "remedy"),
    [
        ("config/online.yaml", "config/online.yaml: workloads: workload 'demo' is not", "do it in an empty folder"),
        ("mine.yaml", "mine.yaml: nothing to measure: all", "name them in model_settings.m.weights.bf16"),
    ],
)
def test_a_file_is_named_whose_values_do_not_fit_this_folders_config(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, problem: str, remedy: str
):
    (folder / "config.yaml").write_text(yaml.safe_dump({**OWN, "model_settings": {"m": {"weights": {"w8a8": "a"}}}}))
    (folder / "mine.yaml").write_text("launches: 1\n")
    call = read_call(["--configfile", file])
    merged = load(folder / "config.yaml")
    update_config(merged, call.merged())
    with pytest.raises(SystemExit):
        plan_of_call(merged, call, on_cluster=False, is_main=False)
    first, second = capsys.readouterr().err.splitlines()
    assert problem in first
    assert remedy in second


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("config/onlin.yaml", "did you mean 'config/online.yaml'?"),
        ("on.yaml", "did you mean 'one.yaml'?"),
        ("price", "did you mean 'config/price-list.yaml'?"),
        ("one.yaml,other.yaml", "separate files by spaces: one.yaml other.yaml"),
    ],
)
def test_a_misspelt_config_file_names_the_one_that_was_meant(file: str, remedy: str):
    with pytest.raises(UserError) as caught:
        read_call(["--configfile", file])
    assert (caught.value.problem, caught.value.remedy) == (f"{file}: there is no such config file", remedy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_content_that_snakemake_reads(name: str):
    assert load(Path(name)) == load_configfile(name)


@pytest.mark.parametrize(
    ("profile", "words", "variables"),
    [
        ("configfile: one.yaml\n", [], {}),
        ("default-resources: [a=1]\n?if True:\n  jobs: 3\n", [], {}),
        ("cores: 1\n", ["--jobs", "2"], {}),
        ("cores: 1\n", ["--config", "launches"], {}),
        ("cores: 1\n", ["--config", "3=3"], {}),
        ("cores: 1\n", ["--configfile"], {}),
        ("cores: 1\n", ["--conf", "a=1"], {}),
        ("cores: 1\n", [], {"SNAKEMAKE_PROFILE": "mine"}),
    ],
)
def test_whatever_may_say_more_is_left_to_snakemake(
    folder: Path, monkeypatch: pytest.MonkeyPatch, profile: str, words: list[str], variables: Mapping[str, str]
):
    asked: list[Any] = []
    monkeypatch.setattr(arguments, "_parsed", asked.append)
    read_call([])
    assert asked == []
    (folder / "profiles" / "default").mkdir(parents=True)
    (folder / "profiles" / "default" / "config.yaml").write_text(profile)
    monkeypatch.setattr(os, "environ", {**os.environ, **variables})
    read_call(words)
    assert asked == [words]


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (
            ["--configfile", "broken.yaml"],
            "broken.yaml: line 2, column 9: is not valid YAML",
            "write ] where its values end",
        ),
        (["--config", "{launches=3}"], "'{launches' is no key", "write --config launches=3"),
        (["--configfile", "nofile.yaml"], "nofile.yaml: there is no such config file", "name one that is there"),
        (["--configfile", "absent.yaml"], "absent.yaml: there is no such config file", "name one that is there"),
        (
            ["--cores", "1", "--config", "quants=[bf16,", "w8a8]", "launches=2"],
            "--config quants=[bf16, w8a8]: the shell splits it",
            "quote it: --config 'quants=[bf16, w8a8]'",
        ),
        (["-n", "--config", "launches=2", "all"], "--config all: is not name=value", "a target before --config"),
        (["launches=2"], "launches=2: is a value of the config, not a target", "write --config launches=2"),
        (["--config", "launches:2"], "--config launches:2: is not name=value", "did you mean launches=2?"),
        (["--config", "launches", "3"], "--config launches: is not name=value", "write --config launches=3"),
        (["--config", "n=2"], "'n' is no key", "write --config 'workload_settings={demo: {samples_per_prompt: 2}}'"),
        (["--config", "launches=3;iterations=4"], "has several values", "by spaces: launches=3 iterations=4"),
        (["--config", "launches=3,iterations=4"], "has several values", "by spaces: launches=3 iterations=4"),
        (["--config", "launches=3", "--config", "iterations=4"], "--config: stands twice", "all after one --config"),
        (
            ["--configfile", "one.yaml", "--configfiles=other.yaml"],
            "--configfile: stands twice",
            "after one --configfile",
        ),
        (["sumary"], "sumary: is no target", "did you mean results/summary.md?"),
        (["results/sumary.html"], "results/sumary.html: is no target", "did you mean results/summary.html?"),
        (["one.yaml"], "one.yaml: is no target", "write --configfile one.yaml"),
        (["absent.yaml"], "absent.yaml: there is no such config file", "name one that is there"),
        (["--config", "launches=3", "one.yaml"], "--config one.yaml: is not name=value", "write --configfile one.yaml"),
        (["--directory", "out"], "--directory out: there is no such folder", "`rollout-bench init` there writes one"),
        (["--results", "out"], "--results: there is no such option", "results/ beside config.yaml"),
        (["--output=out"], "--output: there is no such option", "results/ beside config.yaml"),
        (
            ["--config", "workload_settings.demo.prompts=8"],
            "'workload_settings.demo.prompts' is no key",
            "write --config 'workload_settings={demo: {prompts: 8}}'",
        ),
        (
            ["--config", "rollout.n=8"],
            "'rollout.n' is no key",
            "write --config 'workload_settings={demo: {samples_per_prompt: 8}}'",
        ),
        (
            ["--config", "online.rps=8"],
            "'online.rps' is no key",
            "write --config 'workload_settings={demo: {online: {request_rate: 8}}}'",
        ),
        (
            ["--configfile", "one.yaml", "results/summary.md"],
            "results/summary.md: is a target, and stands among the config files",
            "put it first: results/summary.md --configfile one.yaml",
        ),
        (["--config", "modes={}"], "--config modes: is empty", "modes: [...]"),
        (["--config", "sweep={}"], "--config sweep: is empty, and changes nothing", "write sweep=null for no sweep"),
        (["--config", "none.such=8"], "'none.such' is no key", "`rollout-bench keys` lists the keys"),
        (["--config", "launches=", "2"], "--config 2: is not name=value", "without spaces around ="),
        (["--config", "quants", "=", "[bf16]"], "--config quants: is not name=value", "without spaces around ="),
        (["--config", "2x=1"], "--config 2x=1: '2x' is no key", "`rollout-bench keys` lists"),
        (["--confgifile", "one.yaml"], "--confgifile: there is no such option", "did you mean '--configfile'?"),
        (["--quants", "bf16"], "--quants: is a key of the config", "write --config 'quants=[bf16]'"),
        (["--quants", "bf16", "fp8", "-n"], "--quants: is a key of the config", "--config 'quants=[bf16, fp8]'"),
        (["--models=a"], "--models: is a key of the config", "its key is models, where model 'a' is not defined"),
        (["--lauches", "3"], "--lauches: there is no such option", "did you mean `--config launches=3`?"),
        (["--lauches=3"], "--lauches: there is no such option", "did you mean `--config launches=3`?"),
        (["--model-base", "-n"], "--model-base: is a key of the config", "write -n --config model_base=VALUE"),
        (["--quant", "[bf16, fp8]"], "--quant: there is no such option", "write --config 'quants=[bf16, fp8]'"),
        (["--launches", "5", "--iterations", "3"], "--launches: is a key", "write --config launches=5 iterations=3"),
        (
            ["--max-num-seqs", "4", "--launchs", "2", "quants=[bf16]"],
            "--max-num-seqs: there is no such",
            "write --config 'quants=[bf16]' 'engine_args={max_num_seqs: 4}' launches=2",
        ),
        (
            ["--config", "launches=5", "workload_settings={demo:{output_tokens:9}}", "--num-prompts", "8"],
            "--num-prompts: there is no such",
            "write --config launches=5 'workload_settings={demo: {output_tokens: 9, prompts: 8}}'",
        ),
        (
            ["--config", "launch=3", "quant=fp8", "iteration=4"],
            "'quant' is no key",
            "write --config launches=3 iterations=4 'quants=[bf16, fp8]'",
        ),
        (
            ["--config", "model_settings.mine.weights=/data", "models=[mine]"],
            "'model_settings.mine.weights' is no key",
            "its key is model_settings.mine.weights, where '/data' is no mapping: name the quantization that they are",
        ),
        (
            ["--config", "slo=ttft_ms:300", "slo=tpot_ms:30"],
            "--config slo={...}: the shell makes several words of braces",
            "write --config 'slo={ttft_ms: 300, tpot_ms: 30}'",
        ),
        (
            ["--config", "workload_settings={demo:prompts:8}", "workload_settings={demo:output_tokens:8}"],
            "the shell makes several words",
            "write --config 'workload_settings={demo: {prompts: 8, output_tokens: 8}}'",
        ),
        (
            ["--config", "sweep=max_num_seqs:[2", "sweep=4]"],
            "the shell makes several words",
            "write --config 'sweep={max_num_seqs: [2, 4]}'",
        ),
        (["--config", "quants=bf16", "quants=w8a8"], "several words", "write --config 'quants=[bf16, w8a8]'"),
        (["--config", "launches=2", "launches=3"], "--config launches: stands twice", "write it once"),
        (
            ["--config", "workload_settings={demo: {prompts: 16}"],
            "a bracket is not closed",
            "write --config 'workload_settings={demo: {prompts: 16}}'",
        ),
        (
            ["--config", "workload_settings={demo: prompts: 16}", "launches=2"],
            "YAML can't read it",
            "write --config launches=2 'workload_settings={demo: {prompts: 16}}'",
        ),
        (["--config", "quants=[fp8,", "bf16]"], "the shell splits it", "quote it: --config 'quants=[fp8, bf16]'"),
        (
            ["--config", "quants=[fp8,", "bf16]", "launches=2"],
            "--config quants=[fp8, bf16]: the shell splits it",
            "quote it: --config 'quants=[fp8, bf16]' launches=2",
        ),
        (
            ["--configfile", "one.yaml", "launches=2"],
            "launches=2: is a value of the config, and stands among the config files",
            "write --configfile one.yaml --config launches=2",
        ),
        (["one.yaml", "launches=2"], "one.yaml: is no target", "write --configfile one.yaml --config launches=2"),
        (["--quants", "[bf16,", "w8a8]"], "--quants: is a key", "write --config 'quants=[bf16, w8a8]'"),
        (
            ["actor_rollout_ref.model.path=Qwen/Qwen3-8B", "actor_rollout_ref.rollout.n=4", "trainer.logger=wandb"],
            "is a value, not a target, and no key has trainer.logger=wandb",
            "'workload_settings={demo: {samples_per_prompt: 4}}'",
        ),
        (["--model_name_or_path", "Qwen/Qwen3-8B"], "there is no such option", "{weights: {bf16: hub:Qwen/Qwen3-8B}}"),
        (
            ["--rollout.n=4"],
            "--rollout.n: there is no such option",
            "'workload_settings={demo: {samples_per_prompt: 4}}'",
        ),
        (
            ["--profile", "concurrent", "--rate", "4", "--max-seconds", "30"],
            "--profile concurrent: is a profile of guidellm's",
            "online: {duration_s: 30, concurrency: 4, requests: null}}",
        ),
        (
            ["--config", "shared_prefix={groups:2,tokens:8}"],
            "'shared_prefix' is no key",
            "write --config 'workload_settings={demo: {shared_prefix: {groups: 2, tokens: 8}}}'",
        ),
        (
            ["--config", "launches=2,", "iterations=3"],
            "launches=2,: ends with a comma",
            "write --config launches=2 iterations=3",
        ),
        (["--config", "launches=2 iterations=3"], "has several values", "spaces: launches=2 iterations=3"),
        (
            ["--config", "max_model_len=96", "prompts=4"],
            "'max_model_len' is no key",
            "write --config 'workload_settings={demo: {prompts: 4}}' 'engine_args={max_model_len: 96}'",
        ),
        (
            ["--num-prompts", "8", "--ramp-up-strategy", "linear"],
            "--num-prompts: there is no such option, and no key has the value of --ramp-up-strategy",
            "write --config 'workload_settings={demo: {prompts: 8}}'",
        ),
        (
            ["--config", "sweep=max_num_seqs=2,4"],
            "a value below sweep",
            "write --config 'sweep={max_num_seqs: [2, 4]}'",
        ),
        (["--cfg", "one.yaml"], "--cfg: there is no such option", "write --configfile one.yaml"),
        (["tests/a.py::test"], "tests/a.py::test: is no target", "leave it out"),
        (["--model", "qwen3-90m"], "--model: there is no such", "write --config 'models=[qwen3-90m]'"),
        (
            ["--host", "h", "--port", "8001", "--request-rate", "2"],
            "--host: there is no such",
            "write `rollout-bench init --from endpoint http://h:8001/v1`, which writes config.yaml; type the rest in",
        ),
        (
            ["--max-num-seqs", "8"],
            "--max-num-seqs: there is no such",
            "write --config 'engine_args={max_num_seqs: 8}'",
        ),
        (
            ["--num-prompts=32"],
            "--num-prompts: there is no such",
            "write --config 'workload_settings={demo: {prompts: 32}}'",
        ),
        (
            ["--rate", "4"],
            "--rate: there is no such",
            "--config 'workload_settings={demo: {online: {request_rate: 4}}}'",
        ),
        (
            ["--endpoint", "http://h:8000/v1"],
            "--endpoint: there is no such",
            "write `rollout-bench init --from endpoint http",
        ),
        (["--mode", "offline"], "--mode: to Snakemake it is", "write --config 'modes=[offline]'"),
        (["--mode", "nonsense"], "the value of an option can't be read", "`snakemake --help`"),
        (
            ["--goodput", "ttft:500", "tpot:50"],
            "--goodput: there is no such",
            "write --config 'slo={ttft_ms: 500, tpot_ms: 50}' 'modes=[online]'",
        ),
        (
            ["--target", "http://h:8000/v1"],
            "--target: there is no such",
            "write `rollout-bench init --from endpoint http://h",
        ),
        (
            ["--max-requests", "9"],
            "--max-requests: there is no such",
            "{online: {requests: 9}, prompts: 5}}' 'modes=[online]'",
        ),
        (["num_generations=16"], "is a value, not", "--config 'workload_settings={demo: {samples_per_prompt: 16}}'"),
        (["--configfile", "verl.sh"], "verl.sh: is a script, not", "rollout-bench from-verl verl.sh > mine.yaml"),
        (["--dtype", "float16"], "--dtype: there is no such", "write --config 'quants=[bf16, fp16]'"),
        (["--quantization", "awq"], "--quantization: there is no", "write --config 'quants=[bf16, w4a16]'"),
        (["--config", "quant=fp8"], "'quant' is no key", "write --config 'quants=[bf16, fp8]'"),
        (["-k", "fp8"], "fp8: is no target", "write --config 'quants=[bf16, fp8]'"),
        (["offline"], "offline: is no target", "write --config 'modes=[offline]'"),
        (
            ["--model", "Qwen/Qwen3-8B"],
            "--model: there is no such",
            "{qwen3-8b: {weights: {bf16: hub:Qwen/Qwen3-8B}}}'",
        ),
        (["--ttft", "300"], "--ttft: there is no such", "write --config 'slo={ttft_ms: 300}'"),
        (["--lora-rank", "16"], "--lora-rank: there is no such", "write --config 'lora={rank: 16}'"),
        (["--gpus", "2"], "--gpus: there is no such", "write --config devices=2"),
        (["--ignore-eos"], "--ignore-eos: there is no such", "'workload_settings={demo: {ignore_eos: true}}'"),
        (["--request-rate", "4"], "--request-rate: there is no such", "{online: {request_rate: 4}}}' 'modes=[online]'"),
        (
            ["--data", "prompt_tokens=9,output_tokens=8"],
            "--data: there is",
            "{demo: {prompt_tokens: 9, output_tokens: 8}}",
        ),
        (["--dataset-name", "mine"], "--dataset-name: there is no", "{dataset: {format: prompts, path: FILE}}"),
        (
            ["--dataset-name", "random", "--random-input-len", "512"],
            "--dataset-name: there is no such",
            "write --config 'workload_settings={demo: {prompt_tokens: 512, output_tokens: 128}}'",
        ),
        (
            ["--rate-type", "concurrent"],
            "--rate-type: there is no",
            "{online: {concurrency: [1, 2, 4, 8]}}}' 'modes=[onli",
        ),
        (["--profile", "sweep"], "is a profile of guidellm's", "{online: {request_rate: [1, 2, 4, 8]}}}' 'modes=[onli"),
        (["-o", "out"], "-o: there is no such option", "leave it out: results lie in results/ beside config.yaml"),
        (["--json"], "--json: there is no such option", "leave it out: every run writes results/summary.json"),
        (["--nnodes", "2"], "--nnodes: there is no such option", "leave it out: an engine has all its devices on one"),
        (["--vllm-max-model-length", "999"], "there is no such option", "'engine_args={max_model_len: 999}'"),
        (["--served-model-name", "m"], "--served-model-name: there is no such option", "leave it out: of a server,"),
        (
            ["--max-seconds", "9"],
            "--max-seconds: there is no",
            "{online: {duration_s: 9, request_rate: 4}, prompts: 18}}' '",
        ),
        (
            ["--config", "workload_settings.demo.online.request_rate=4"],
            "'workload_settings.demo.online.request_rate' is no key",
            "{demo: {online: {request_rate: 4}}}' 'modes=[online]'",
        ),
        (
            ["--config-name", "one"],
            "--config-name: there is no such option",
            "leave it out: config files stand after --configfile",
        ),
        (
            ["--num-iters", "5", "--num-iters-warmup", "2"],
            "--num-iters: there is",
            "--config iterations=5 warmup_iterations=2",
        ),
        (
            ["--enable-lora", "--max-lora-rank", "32"],
            "--enable-lora: there is no such",
            "write --config 'lora={rank: 32}'",
        ),
        (
            ["--config", "launches=4", "n=8", "max_num_seqs=4"],
            "'n' is no key",
            "'workload_settings={demo: {samples_per_prompt: 8}}' 'engine_args={max_num_seqs: 4}' launches=4",
        ),
        (
            ["launches=4", "quants=[bf16]"],
            "launches=4: is a value of the config",
            "write --config launches=4 'quants=[bf16]'",
        ),
        (["--config", "sweep=max_num_seqs=[2,4]"], "has a value below sweep", "'sweep={max_num_seqs: [2, 4]}'"),
        (["--config", "launches=4", "launches=5"], "launches: stands twice", "write it once"),
        (
            ["--multirun"],
            "--multirun: there is no such option",
            "leave it out: sweep={KEY: [VALUE, VALUE]} measures",
        ),
        (["max_num_seqs=4,16"], "max_num_seqs=4,16: is a value", "write --config 'sweep={max_num_seqs: [4, 16]}'"),
        (["++launches=4"], "++launches=4: is a value of the config", "write --config launches=4"),
        (["--config", "+launches=4"], "--config +launches=4: a key has no + here", "write --config launches=4"),
        (["--config", "sweep={max_num_seqs: 4,16}"], "a list of values stands in", "'sweep={max_num_seqs: [4,16]}'"),
        (["--save-result"], "--save-result: there is no such option", "leave it out: the times of each request"),
        (["--lf"], "--lf: there is no such option", "leave it out: a run measures what is missing"),
        (["--maxfail", "1"], "--maxfail: there is no such option", "leave it out: a run stops when"),
        (
            ["--endpoint-type", "openai"],
            "--endpoint-type: there is no such option",
            "at the url of its entry in endpoints",
        ),
        (["--config", "min_p=0.1"], "'min_p' is no key", "leave it out: of sampling"),
        (["-tp", "2"], "-tp: there is no such option", "write --config 'engine_args={tensor_parallel_size: 2}'"),
        (
            ["--enforce-eager"],
            "--enforce-eager: there is no such",
            "write --config 'engine_args={enforce_eager: true}'",
        ),
        (
            ["--no-async-scheduling"],
            "there is no such option",
            "write --config 'engine_args={async_scheduling: false}'",
        ),
        (["--enable-lora"], "--enable-lora: there is no such option", "write --config 'lora={rank: 16}'"),
        (["--port", "8000"], "--port: there is no such option", "leave it out: each server gets a free port"),
        (["--api-key", "abc"], "--api-key: there is no such option", "{mine: {api_key_env: MY_SERVER_KEY}}"),
        (
            ["--dataset-name", "sharegpt", "--dataset-path", "x.json"],
            "--dataset-name: there is no such",
            "--config 'workload_settings={demo: {dataset: {format: sharegpt, path: x.json}}}'",
        ),
        (["--rate-type", "concurrent", "--rate", "4"], "--rate-type: there is", "{online: {concurrency: 4}}}' 'modes="),
        (["--foo"], "--foo: there is no such option", "`rollout-bench keys` lists the keys of a config"),
        (["-v"], "-v: is --version to Snakemake", "write --verbose"),
        (["-c", "mine.yaml"], "must be integer", "write --configfile mine.yaml"),
        (["--dry-rum"], "--dry-rum: there is no such option", "did you mean '--dry-run'?"),
        (["--configfil", "one.yaml"], "ambiguous option: --configfil", "write --configfile one.yaml"),
        (["--cores", "two"], "must be integer or 'all'", "`snakemake --help`"),
        (["--cores"], "expected one argument", "`snakemake --help`"),
        (["--cores", "four", "-p"], "cores", "`snakemake --help`"),
        (["--resources", "gpu", "-p"], "the value of an option can't be read", "`snakemake --help`"),
        (["-c", "launches=3"], "must be integer", "write --config launches=3"),
        (["--jobs", "launches=3"], "must be integer", "write --config launches=3"),
        (["--set", "launches=3"], "ambiguous option: --set", "write --config launches=3"),
        (["-configfile", "one.yaml"], "-configfile: there is no such option", "write two dashes: --configfile"),
        (["-directory", "."], "-directory: there is no such option", "write two dashes: --directory"),
        (["--profile", "slurm"], "--profile slurm: there is no such profile", f"did you mean --profile {SLURM}?"),
        (["--workflow-profile", "mine/slrum"], "there is no such profile", f"did you mean --workflow-profile {SLURM}?"),
        (["--profile", "lsf"], "--profile lsf: there is no such profile", "docs/clusters.md"),
        (["-O3"], "-O3: is --omit-from to Snakemake", "write --config 'engine_args={optimization_level: 3}'"),
        (["-dp", "2"], "-dp: there is no such option", "write --config 'engine_args={data_parallel_size: 2}'"),
        (["-q", "fp8"], "-q: is --quiet to Snakemake", "write --config 'quants=[fp8]'"),
        (["--cpu-offload-gb", "4"], "there is no such option", "write --config 'engine_args={cpu_offload_gb: 4}'"),
        (["--turns", "3"], "there is no such option", "its key is workload_settings.demo.turns, where '3' is no map"),
        (["--lora"], "--lora: is a key of the config", "write --config 'lora={rank: 16}'"),
        (["--repeat", "5"], "--repeat: there is no such option", "write --config launches=5"),
        (["--config", "quants=[bf16,", "fp8", "modes=[online"], "a bracket is not closed", "'modes=[online]'"),
        (["--config", "quants=[bf16", "fp8]"], "a list has commas", "write --config 'quants=[bf16, fp8]'"),
        (["--config", "sweep={max_num_seqs: [1 2]}"], "has commas", "write --config 'sweep={max_num_seqs: [1, 2]}'"),
        (
            ["--config", "engine_args={max_num_seqs=64}"],
            "has = in place of a colon",
            "write --config 'engine_args={max_num_seqs: 64}'",
        ),
        (
            ["results/summary.md", "--configfile", "one.yaml", "--quants", "fp8"],
            "--quants: is a key of the config",
            "write results/summary.md --configfile one.yaml --config 'quants=[fp8]'",
        ),
        (
            ["--config", "workload_settings.mine.prompts=8"],
            "'workload_settings.mine.prompts' is no key",
            "write --config 'workload_settings={mine: {prompts: 8}}' 'workloads=[mine]'",
        ),
        (["--config", "baseline.quant=fp8"], "is no key", "write --config 'baseline={quant: fp8}'"),
        (["--config", "quants=bf16,", "w8a8"], "a list stands in brackets", "write --config 'quants=[bf16, w8a8]'"),
        (["--config", "quants=bf16", "w8a8"], "is not name=value", "write --config 'quants=[bf16, w8a8]'"),
        (
            ["-tp", "2", "--max-model-len", "4096", "-pp", "2"],
            "-tp: there is no such option",
            "'engine_args={tensor_parallel_size: 2, max_model_len: 4096, pipeline_parallel_size: 2}'",
        ),
        (["--header", "X=1"], "there is no such option", "leave it out: headers go to a server"),
        (["--num-prompts", "1,000"], "there is no such option", "{demo: {prompts: 1000}}"),
        (["-r"], "-r: there is no such option", "`rollout-bench keys` lists"),
        (
            ["--config", "workload_settings.demo=prompts:64", "workload_settings.demo=output_tokens:8"],
            "the shell makes several words of braces",
            "write --config 'workload_settings={demo: {prompts: 64, output_tokens: 8}}'",
        ),
        (
            ["--config", "engine_args.max_num_seqs=8", "quants=bf16,fp8", "modes=online"],
            "is no key",
            "write --config 'quants=[bf16, fp8]' 'modes=[online]' 'engine_args={max_num_seqs: 8}'",
        ),
        (["--config", "goodput=ttft:200"], "is no key", "write --config 'slo={ttft_ms: 200}'"),
        (
            ["--config", "max_completion_length=8", "per_device_train_batch_size=4"],
            "and no key has per_device_train_batch_size=4",
            "{demo: {output_tokens: 8}}",
        ),
        (["-tp=2"], "-tp=2: there is no such option", "write --config 'engine_args={tensor_parallel_size: 2}'"),
        (
            ["--port", "8000", "--max-num-seqs", "4"],
            "--port: leave it out: each server gets a free port",
            "write --config 'engine_args={max_num_seqs: 4}'",
        ),
        (["launches=2", "-n"], "is a value of the config", "write -n --config launches=2"),
        (["--config", "quants", "bf16", "w8a8"], "is not name=value", "write --config 'quants=[bf16, w8a8]'"),
        (["--config", "quants={bf16, w8a8}"], "is no list", "write --config 'quants=[bf16, w8a8]'"),
        (["--config", "launches = 3"], "has spaces around =", "write --config launches=3"),
        (["launches", "3"], "launches: is no target", "write --config launches=3"),
        (["--env", "A=4"], "no such option", "write --config 'engine={environment: {A: \"4\"}}'"),
        (["--model", "x"], "no such option", "name a folder or OWNER/NAME in place of x"),
        (
            ["--config", "launches.online=3", "launches.offline=2"],
            "is no key",
            "write --config 'launches={online: 3, offline: 2}'",
        ),
        (["-t", "http://h:1/v1"], "-t: is --touch to Snakemake", "init --from endpoint http://h:1/v1"),
        (["--config", "~baseline"], "~baseline: is not name=value", "leave it out: no key is removed here"),
        (["nonsense"], "nonsense: is no target", "leave it out to measure what is missing; targets: results/summary"),
        (["-p", "results/offline/a.json"], "results/offline/a.json: is no target", "leave it out"),
        (["--cores", "2", "results/"], "results/: is no target", "leave it out"),
        (["--config", "engine_args.tp=2"], "is no key", "write --config 'engine_args={tensor_parallel_size: 2}'"),
        (
            ["--config", "gpu_memory_utilization=90"],
            "is no key",
            "where 90 is not a share of the memory: give a number",
        ),
        (["--config", "launches={offline:6}"], "a space follows a colon", "write --config 'launches={offline: 6}'"),
        (["--config", "env={VLLM_X:1}"], "is no key", "write --config 'engine={environment: {VLLM_X: 1}}'"),
        (["--config", "quants+=fp16"], "+= adds nothing", "write --config 'quants=[bf16, w8a16, w8a8, fp16]'"),
        (["--max-seconds", "9", "--max-requests", "8"], "ends after its time or its requests", "leave one of the two"),
        (
            ["--config", "trainer.n_gpus_per_node=8", "actor_rollout_ref.rollout.n=8"],
            "is no key",
            "`rollout-bench init --from verl trainer.n_gpus_per_node=8 actor_rollout_ref.rollout.n=8` makes",
        ),
        (
            ["--config", "endpoints={mine:url:http://127.0.0.1:9}", "endpoints={mine:model:x}"],
            "the shell makes several words",
            "write --config 'endpoints={mine: {url: \"http://127.0.0.1:9/v1\", model: x}}'",
        ),
        (
            ["--config", "workload_settings.demo.shared_prefix={groups:9,tokens:4}"],
            "is no key",
            "write --config 'workload_settings={demo: {shared_prefix: {groups: 4, tokens: 4}}}'",
        ),
        (["--n_gpus", "4"], "no such option", "write --config devices=4"),
        (["--config", "engine_args={a: 4, a: 8}"], "key 'a' stands twice", "leave one of the two out"),
        (["--k"], "ambiguous option: --k could match --keep-going", "`snakemake --help`"),
    ],
)
def test_files_and_values_that_snakemake_cannot_read_are_refused_in_two_lines(
    words: list[str], problem: str, remedy: str, folder: Path
) -> None:
    (folder / "verl.sh").write_text("python -m verl.trainer.main_ppo")
    (folder / "broken.yaml").write_text("launches: 2\nmodels: [a, b\nquants: [bf16]\n")
    with pytest.raises(UserError) as raised:
        check_words(words)
    assert problem in raised.value.problem
    assert remedy.replace("PROFILES", os.path.relpath(home() / "profiles")) in raised.value.remedy
    for typed in re.findall(r"--config(?:file)? .*?(?=`|\?|$)|--(?:workflow-)?profile [^?]*", raised.value.remedy):
        (folder / "mine.yaml").write_text("launches: 2\n")
        check_words(["-n", *shlex.split(typed)])


def test_a_remedy_fits_the_config_files_of_the_call(folder: Path) -> None:
    quant = "quant_settings: {mine: {weights_format: bf16, linear_dtypes: [bfloat16]}}"
    (folder / "quant.yaml").write_text(f"{quant}\nmodel_settings: {{qwen3-90m: {{weights: {{mine: /data}}}}}}\n")
    with pytest.raises(UserError) as raised:
        check_words(["--configfile", "quant.yaml", "--quants", "mine"])
    assert raised.value.remedy == "write --configfile quant.yaml --config 'quants=[mine]'"


@pytest.mark.parametrize("place", ["config.yml", "config/config.yaml"])
def test_a_config_of_this_folder_by_another_name_is_seen(folder: Path, place: str) -> None:
    (folder / "config").mkdir()
    (folder / place).write_text("launches: 2\n")
    with pytest.raises(UserError) as raised:
        check_config_file(Path("config.yaml"))
    assert raised.value.remedy == f"write --configfile {place}"


@pytest.mark.parametrize(
    ("option", "load"),
    [
        ("--max-seconds", "{asked: {online: {duration_s: 30, requests: null}}}"),
        ("--num-prompts", "{asked: {online: {requests: 30}}}"),
        ("--max-requests", "{asked: {online: {requests: 30}}}"),
        ("--rate", "{asked: {online: {request_rate: 30, requests: 480}}}"),
        ("--max-concurrency", "{asked: {online: {concurrency: 30, requests: 480, request_rate: inf}}}"),
        ("--request-rate 1,2,6 --x", "{asked: {online: {request_rate: [1, 2, 6], requests: [60, 120, 360]}}}"),
        ("--concurrency 1,2 --x", "{asked: {online: {concurrency: [1, 2], requests: 480, request_rate: inf}}}"),
        ("--request-rate 4 --num-prompts", "{asked: {online: {request_rate: 4, requests: 30}}}"),
        ("--request-rate 4 --max-concurrency", "{asked: {online: {concurrency: 30, requests: 480, request_rate: 4}}}"),
        (
            "--profile constant --rate 4 --max-requests",
            "{asked: {online: {request_rate: 4, requests: 30, burstiness: constant}}}",
        ),
        (
            "--rate-type sweep --rate 10 --output-len",
            "{asked: {online: {request_rate: [1, 2, 4, 8], requests: [60, 120, 240, 480]}, output_tokens: 30}}",
        ),
        (
            "--max-seconds 60 --rate",
            "{asked: {online: {duration_s: 60, requests: null, request_rate: 30}, prompts: 1800}}",
        ),
        ("--endpoint /v1/chat/completions --rate", "{asked: {online: {request_rate: 30, requests: 480, api: chat}}}"),
        ("--concurrency 1 2", "{asked: {online: {concurrency: [1, 2, 30], requests: 480, request_rate: inf}}}"),
        ("--rate 1 --rate", "{asked: {online: {request_rate: [1, 30], requests: [60, 1800]}, prompts: 1800}}"),
        (
            "--max-concurrency 4 --seed",
            "{asked: {online: {concurrency: 4, requests: 480, request_rate: inf}, seed: 30}}",
        ),
        (
            "--rate-type concurrent --rate 4 --max-seconds",
            "{asked: {online: {concurrency: 4, requests: null, request_rate: inf, duration_s: 30}}}",
        ),
        (
            "--data {'prompt_tokens':9,'output_tokens':8} --max-requests",
            "{asked: {prompt_tokens: 9, output_tokens: 8, online: {requests: 30}}}",
        ),
        (
            "--data prompt_tokens:9 output_tokens:8 --max-requests",  # as a shell takes braces apart
            "{asked: {prompt_tokens: 9, output_tokens: 8, online: {requests: 30}}}",
        ),
        ("--backend openai-chat --n", "{asked: {online: {api: chat}, samples_per_prompt: 30}}"),
        ("--input-len 128 --output-len", "{asked: {prompt_tokens: 128, output_tokens: 30}}"),
    ],
)
def test_an_option_for_a_server_becomes_a_load_that_can_be_sent(folder: Path, option: str, load: str) -> None:
    (folder / "config.yaml").write_text((home() / "config" / "endpoint.yaml").read_text())
    with pytest.raises(UserError) as raised:
        check_words([*option.split(), "30"])
    assert raised.value.remedy == f"write --config 'workload_settings={load}'"
    given = read_call(shlex.split(raised.value.remedy.removeprefix("write "))).config
    config = load_configfile("config.yaml")
    update_config(config, given)
    (asked,) = read_config(config, given).workload_settings.values()
    assert len({(one.request_rate, one.concurrency) for one in asked.online.points}) == len(asked.online.points)


def test_the_model_of_a_server_is_that_of_its_entry(folder: Path) -> None:
    (folder / "config.yaml").write_text((home() / "config" / "endpoint.yaml").read_text())
    with pytest.raises(UserError) as raised:
        check_words(["--model", "Qwen/Qwen3-8B"])
    assert raised.value.remedy == "write --config 'endpoints={mine: {model: Qwen/Qwen3-8B}}'"


def test_targets_and_profiles_that_there_are_are_accepted(folder: Path) -> None:
    slurm = os.path.relpath(home() / "profiles" / "slurm")
    check_words(["--profile", slurm, "results/summary.html", "./results/summary.csv", "results/figures"])
    check_words(["results/blocks/offline/a/launch-0", "models/synthetic/x", "logs/a.log", "--cores", "2"])
    (folder / "profiles" / "mine").mkdir(parents=True)
    (folder / "profiles" / "mine" / "config.yaml").write_text("cores: 1\n")
    check_words(["--workflow-profile", "mine", "summary", "-np", "-c4"])
    (folder / "Snakefile").write_text("rule mine: ...\n")
    check_words(["mine"])
    (folder / "Snakefile").rename(folder / "other.smk")
    check_words(["mine", "-s", "other.smk"])


def test_words_that_snakemake_reads_are_accepted() -> None:
    check_words(["all", "-n", "--configfile", "one.yaml", "--config", "quants=[bf16, w8a8]", "engine={python: null}"])
    check_words(["all", "--cores", "2", "--executor=slurm", "--keep-going", "--set-resources", "measure:mem_mb=9"])


@pytest.mark.parametrize(
    "words", ["--base-url http://h:1", "-u h:1", "--host h --port 1", "--config url=http://h:1/v1"]
)
def test_an_address_goes_to_the_server_that_the_config_has(folder: Path, words: str) -> None:
    (folder / "config.yaml").write_text((home() / "config" / "endpoint.yaml").read_text())
    with pytest.raises(UserError) as raised:
        check_words(words.split())
    name = next(iter(load(folder / "config.yaml")["endpoints"]))
    assert raised.value.remedy == f"write --config 'endpoints={{{name}: {{url: \"http://h:1/v1\"}}}}'"


def test_a_config_without_modes_gets_them(folder: Path) -> None:
    (folder / "config.yaml").write_text("models: [m]\nworkloads: [step]\nworkload_settings: {step: {prompts: 4}}\n")
    with pytest.raises(UserError) as raised:
        check_words(["--max-concurrency", "16"])
    assert raised.value.remedy.endswith("'modes=[online]'")


def test_a_header_goes_to_the_server_that_the_config_has(folder: Path) -> None:
    (folder / "config.yaml").write_text((home() / "config" / "endpoint.yaml").read_text())
    with pytest.raises(UserError) as raised:
        check_words(["--header", "X-Team:rl"])
    name = next(iter(load(folder / "config.yaml")["endpoints"]))
    assert raised.value.remedy == f"write --config 'endpoints={{{name}: {{headers: {{X-Team: rl}}}}}}'"
