"""A start is taken apart into phases that add up to it, with cold and with warm caches."""

import json
from pathlib import Path
from typing import Any

import pytest
from launching import COMPILING, SETTINGS, Launching

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.spec import Spec

pytestmark = pytest.mark.engine

SHAPE: dict[str, Any] = {
    "preset": "qwen3-90m",
    "shape": {"num_hidden_layers": 1, "hidden_size": 128, "intermediate_size": 256, "vocab_size": 2048},
}


def start(folder: Path, model: Path, startup: dict[str, str], *, eager: bool) -> Launching:
    """Return a launch that is over, whose caches lie below `folder`."""
    engine = SETTINGS["engine"] if eager else COMPILING
    arguments = {name: value for name, value in engine["args"].items() if name != "load_format"}
    settings = {
        **SETTINGS,
        "mode": "startup",
        "startup": startup,
        "engine": {**engine, "args": arguments},
        "workload": {**SETTINGS["workload"], "prompts": 1, "samples_per_prompt": 1, "output_tokens": 1},
        "measuring": {"warmup_iterations": 0, "iterations": 1},
    }
    spec = Spec.model_validate_json(json.dumps(settings))
    prefix = ["env", f"XDG_CACHE_HOME={folder / 'cache'}"]
    launch = Launching(folder, spec, model=model, prefix=prefix, forks_core=True)  # which looks at the model itself
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_checkpoint(SyntheticModel(**SHAPE).resolve(), "bf16", folder)
    return folder


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Launching:
    startup = {"caches": "cold", "load_format": "auto"}
    return start(tmp_path_factory.mktemp("cold"), model, startup, eager=False)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Launching:
    startup = {"caches": "warm", "load_format": "dummy", "launcher": "warm"}
    return start(tmp_path_factory.mktemp("warm"), model, startup, eager=True)


@pytest.mark.parametrize("name", ["cold", "warm"])
def test_phases_and_the_rest_are_the_whole_start(name: str, request: pytest.FixtureRequest) -> None:
    record = request.getfixturevalue(name).record()
    course = record.startup.course
    shared = {"config", "worker_start", "model_build", "weights", "memory_profiling", "kv_cache", "engine_ready"}
    # a warm launcher begins with the word: it is a process that has imported, and nothing compiles
    only_cold = {"process", "import", "platform", "inductor"} if name == "cold" else set()
    assert {phase.name for phase in course.phases} == shared | only_cold | {"first_token"}
    total_s = sum(phase.elapsed_s for phase in course.phases) + course.rest_s
    assert total_s == pytest.approx(course.until_token_s, rel=1e-6)
    assert course.rest_s < 0.02 * course.until_token_s
    # the launch's wall time has a last look at the engine besides
    assert record.startup.init_s <= course.until_token_s <= record.wall_s
    assert (record.startup.import_s == 0) == (name == "warm")


def test_a_cold_start_finds_nothing_in_its_caches_and_compiles(cold: Launching) -> None:
    course = cold.record().startup.course
    assert (course.cache_files, course.phase_s("cached_graphs")) == (0, None)
    assert (course.phase_s("inductor") or 0) > (course.phase_s("first_token") or 0)
    assert not list((cold.folder / "cache").rglob("*aot*"))


def test_it_generates_one_token_and_names_what_it_read(cold: Launching, model: Path) -> None:
    record = cold.record()
    (iteration,) = record.iterations
    assert (iteration.sequences, iteration.output_tokens, iteration.warmup) == (1, 1, False)
    read_bytes = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    assert record.startup.course.weights_bytes == read_bytes


def test_only_the_engine_debugs_and_launch_paths_stay_unrecorded(cold: Launching) -> None:
    assert "DEBUG" in cold.log_text()
    assert "DEBUG" not in cold.said
    variables = cold.record().environment.variables
    assert not {"VLLM_LOGGING_CONFIG_PATH", "VLLM_CACHE_ROOT"} & variables.keys()


def test_an_uncounted_start_fills_the_warm_caches(warm: Launching) -> None:
    course = warm.record().startup.course
    assert (course.cache_files or 0) > 0
    assert course.weights_bytes is None
    assert "Loaded model info for class" in warm.log_text()  # and not found out again
    assert len(list((warm.folder / "cache").rglob(".filled"))) == 1
