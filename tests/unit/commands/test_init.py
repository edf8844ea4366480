"""`rollout-bench init` writes a config from what a user has."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from comparing import run

from rollout_bench.commands import init
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config

SANITY = {"harness": "inference-perf", "path": "sanity_random"}


@pytest.mark.parametrize("model", ["org/name", "a: b", "123", "true", 'the "best" #1', "\N{SNOWMAN} 🚀"])
def test_a_server_and_its_model_may_have_any_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["--from", "endpoint", "http://my-model:8000/v1", model]) == 0
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert {"modes", "models", "workloads", "launches", "slo", "endpoints", "workload_settings"} <= written.keys()
    endpoint = written["endpoints"]["mine"]
    assert (endpoint["url"], endpoint["model"]) == ("http://my-model:8000/v1", model)


def test_a_trainers_settings_are_read_with_the_options_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ["actor_rollout_ref.model.path=Qwen/Qwen3-8B", "trainer.n_gpus_per_node=8"]
    assert init.main(["--from", "verl", *keys, "--one-engine"]) == 0
    assert "--one-engine" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(("place", "weights"), [("Qwen/Qwen3-8B", "hub:Qwen/Qwen3-8B"), ("./mine", "./mine")])
def test_a_model_is_measured_in_the_quantizations_that_are_named(
    place: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert init.main(["--from", "model", place, "bf16", "fp8"]) == 0
    config = read_config(yaml.safe_load((tmp_path / "config.yaml").read_text()))
    assert config.quants == ["bf16", "fp8"]
    ((name, settings),) = config.model_settings.items()
    assert (config.models, settings.weights) == ([name], {"bf16": weights})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "verl"], "write --from verl training.yaml"),
        (["--from", "model"], "write --from model OWNER/NAME bf16 fp8"),
        (["--from", "model", "none"], "is no folder, and no OWNER/NAME of the hub"),
        (["--from", "Qwen/Qwen3-8B", "fp8"], "write --from model Qwen/Qwen3-8B fp8"),
        (["--from", "model", "Qwen/Qwen3-8B", "bf16,int4"], "int4: is no quantization\n  -> did you mean 'w4a16'"),
        (["--form", "verl"], "did you mean --from?"),
        (["--force"], "nothing is overwritten\n  -> leave it out, and move config.yaml away"),
        (["verl.yaml"], "say whose it is: --from verl verl.yaml, or --from trl verl.yaml"),
        (
            ["--from", "endpoint", "http://127.0.0.1:9/v1"],
            "http://127.0.0.1:9/v1: connection refused: nothing listens there\n  -> check its url",
        ),
        (["--from", "sglang"], "write the URL of a server that is up: --from endpoint http"),
        (["--from", "endpoint"], "write the URL of a server that is up: --from endpoint http"),
        (["--from", "grpo.sh"], "--from verl grpo.sh, or --from trl grpo.sh"),
        (["--from", "exmaple", "online"], "did you mean 'example'?"),
        (["--from", "example", "online", "--one-engine"], "unrecognized arguments: --one-engine"),
    ],
)
def test_wrong_arguments_are_named_with_their_remedy(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        init.main(words)
    assert message in str(raised.value)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("words", [["vllm", "http://h:8000/v1", "org/m"], ["http://h:8000/v1", "org/m"]])
def test_a_server_without_its_kind_is_an_endpoint(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        init.main(["--from", *words])
    assert raised.value.remedy == "write --from endpoint http://h:8000/v1 org/m"
    assert init.main(raised.value.remedy.split()[1:]) == 0


@pytest.mark.parametrize(
    ("words", "config"),
    [
        (["endpoint", "http://127.0.0.1:9/v1", "served"], {"modes": ["online"], "models": []}),
        (["llm-d", "guidellm/sanity_random"], {"modes": ["online"], "workloads": ["llm-d"]}),
        (["llm-d", "nop/nop"], {"modes": ["startup"]}),
        (["llm-d"], {"modes": ["online"], "workload_settings": {"llm-d": {"profile": SANITY}}}),
        (["llm-d", "http://127.0.0.1:9/v1", "m"], {"models": [], "workload_settings": {"llm-d": {"profile": SANITY}}}),
        (
            ["trl", "model_name_or_path=Qwen/Qwen3-8B", "use_vllm=true", "num_processes=2", "max_prompt_length=64"],
            {"modes": ["rollout"]},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_config_is_made_from_what_a_user_has(tmp_path: Path, words: list[str], config: dict[str, list[str]]) -> None:
    done = run(tmp_path, "--from", *words, main=init.main)
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "config.yaml").read_text()
    assert config.items() <= yaml.safe_load(written).items()
    assert "config/" not in "".join(re.findall("--configfile.*", written)), "a config names itself"


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (["verk", "x"], "--from verk: is no kind of source", "did you mean 'verl'?"),
        (["endpoint", "http://x/v1", "m", "n"], "--from: needs URL and MODEL, and has http", "init --help` has each"),
        (["endpoint", "http://127.0.0.1:9/v1"], ": connection refused", "endpoint http://127.0.0.1:9/v1 MODEL"),
        (["example", "onlin"], "--from example onlin: there is no such example", "did you mean 'online'?"),
        (["llm-d", "guidelm/x"], "harness: 'guidelm' is not known", "did you mean 'guidellm'?"),
        (["verl", "missing.yaml"], "missing.yaml: cannot be read", "give the YAML that verl is started with"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_source_is_refused_in_two_lines(tmp_path: Path, words: list[str], problem: str, remedy: str) -> None:
    done = run(tmp_path, "--from", *words, main=init.main)
    first, second = done.stderr.splitlines()
    assert done.returncode == 1
    assert problem in first
    assert remedy in second
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["--from", "endpoint", "org/m", "http://127.0.0.1:9/v1"], "endpoint http://127.0.0.1:9/v1 org/m"),
        (["--from", "endpoint", "127.0.0.1:9", "org/m"], "endpoint http://127.0.0.1:9/v1 org/m"),
        (["--from", "endpoint", "http://127.0.0.1:9/V1", "m"], "endpoint http://127.0.0.1:9/v1 m"),
        (["endpoint", "http://127.0.0.1:9/v1", "m"], "endpoint http://127.0.0.1:9/v1 m"),
        (["--url", "http://127.0.0.1:9/v1", "--model", "m"], "endpoint http://127.0.0.1:9/v1 m"),
        (["--base-url=http://127.0.0.1:9/v1", "--model=m"], "endpoint http://127.0.0.1:9/v1 m"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"], "endpoint http://127.0.0.1:9/v1 m"),
        (["--from", "endpoint", "http://127.0.0.1:9/v1", "--model", "m"], "endpoint http://127.0.0.1:9/v1 m"),
        (["http://127.0.0.1:9/v1", "m"], "endpoint http://127.0.0.1:9/v1 m"),
        (["--from", "llm-d", "sanity_concurrent"], "llm-d guidellm/sanity_concurrent"),
        (["--from", "llm-d", "http://127.0.0.1:9/V1", "m"], "llm-d http://127.0.0.1:9/v1 m"),
        (["example", "online"], "example online"),
        (["--example", "online"], "example online"),
    ],
)
def test_the_command_that_was_meant_can_be_typed(
    words: list[str], typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        init.main(words)
    assert raised.value.remedy == f"write --from {typed}"
    assert init.main(["--from", *typed.split()]) == 0


class WithModels(BaseHTTPRequestHandler):
    """A server that lists its models."""

    models: ClassVar = ["tiny"]

    def do_GET(self) -> None:
        content = json.dumps({"data": [{"id": name} for name in self.models]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class WithoutAnApi(BaseHTTPRequestHandler):
    """A server that answers each request with 501."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), WithModels) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_a_server_that_is_up_is_asked_for_its_models(tmp_path: Path, url: str) -> None:
    refused = run(tmp_path, "--from", "endpoint", url, "tinny", main=init.main)
    assert refused.stderr.splitlines() == [
        f"{url}: the server has no model 'tinny', but tiny",
        f"  -> write --from endpoint {url} tiny",
    ]
    assert not (tmp_path / "config.yaml").exists(), "the right name can be typed then"
    done = run(tmp_path, "--from", "endpoint", url, "tiny", main=init.main)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_only_model_of_a_server_needs_no_name_and_one_of_several_does(tmp_path: Path, url: str) -> None:
    WithModels.models = ["tiny", "small"]
    refused = run(tmp_path, "--from", "endpoint", url, main=init.main)
    assert refused.stderr.splitlines() == [
        f"{url}: which model? The server has tiny, small",
        f"  -> write --from endpoint {url} tiny",
    ]
    WithModels.models = ["tiny"]
    done = run(tmp_path, "--from", "endpoint", url, main=init.main)
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["endpoints"]["mine"]["model"] == "tiny"


def test_a_server_without_an_api_gets_no_config(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), WithoutAnApi) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/v1"
        refused = run(tmp_path, "--from", "endpoint", address, "m", main=init.main)
        server.shutdown()
    first, second = refused.stderr.splitlines()
    assert first == f"{address}: there is no completions API at this address: /v1/completions answers 501"
    assert second.startswith("  -> correct the url")
    assert not (tmp_path / "config.yaml").exists()


def test_a_profile_is_for_the_only_model_of_a_server_that_is_up(tmp_path: Path, url: str) -> None:
    done = run(tmp_path, "--from", "llm-d", "guidellm/sanity_concurrent", url, main=init.main)
    assert (done.returncode, done.stderr) == (0, "")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["endpoints"] == {"mine": {"url": url, "model": "tiny", "api_key_env": None}}
    assert written["workload_settings"]["llm-d"]["profile"]["path"] == "sanity_concurrent"


def test_a_server_that_speaks_http_is_not_written_with_https(tmp_path: Path, url: str) -> None:
    secure = url.replace("http:", "https:")
    refused = run(tmp_path, "--from", "endpoint", secure, "tiny", main=init.main)
    assert (
        f"{secure}: the server speaks plain http there, not https\n  -> write --from endpoint {url} tiny\n"
        in refused.stderr
    )
    assert not (tmp_path / "config.yaml").exists()


def test_a_server_that_is_down_is_told_and_its_config_written(tmp_path: Path) -> None:
    done = run(tmp_path, "--from", "endpoint", "http://127.0.0.1:9/v1", "m", main=init.main)
    assert done.returncode == 0
    assert "not asked for its models: http://127.0.0.1:9/v1: connection refused" in done.stderr
    assert (tmp_path / "config.yaml").exists()


SCENARIO = """# on another machine: $(kubectl get nodes)
export LLMDBENCH_DEPLOY_MODEL_LIST="meta-llama/Llama-3.2-1B-Instruct,facebook/opt-125m"
export LLMDBENCH_VLLM_COMMON_NAMESPACE=$(whoami)
LLMDBENCH_HARNESS_NAME=vllm-benchmark
export LLMDBENCH_HARNESS_EXPERIMENT_PROFILE=random_concurrent.yaml
export LLMDBENCH_HARNESS_EXPERIMENT_PROFILE_OVERRIDES=max-concurrency=4,num-prompts=40
"""


def test_a_scenario_of_llm_d_benchmark_names_harness_profile_overrides_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu.sh").write_text(SCENARIO)
    assert init.main(["--from", "llm-d", "gpu.sh", "http://127.0.0.1:9/v1"]) == 0
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["endpoints"]["mine"]["model"] == "meta-llama/Llama-3.2-1B-Instruct"
    load = read_config(config).workload_settings["llm-d"]
    assert ([point.concurrency for point in load.online.points], load.prompts) == ([4], 40)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "gpu.sh").write_text("echo ready")
    with pytest.raises(UserError, match=r"gpu\.sh: assigns no LLMDBENCH_"):
        init.main(["--from", "llm-d", "gpu.sh"])
