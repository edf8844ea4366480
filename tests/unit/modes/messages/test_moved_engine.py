"""An engine that has moved what the probes of messages rest on is refused before anything starts."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from launching import tiny_spec
from planned import merged_with
from refusals import refused

from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.messages import vllm_symbols
from rollout_bench.modes.messages.hooks import obstacle
from rollout_bench.modes.messages.vllm_symbols import PLACES, installed, moved
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return the files of the installed vLLM that the probes rest on."""
    vllm = installed()
    for file in PLACES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(vllm / file, tmp_path / file)
    return tmp_path


def test_the_installed_engine_has_all_that_the_probes_rest_on(copied: Path):
    assert moved(copied) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "lacks"),
    [
        ("v1/core/sched/scheduler.py", "class Scheduler(", "class Planner(", "v1/core/sched/scheduler.py: Scheduler"),
        (
            "v1/executor/multiproc_executor.py",
            "    def collective_rpc(",
            "    def call(",
            "v1/executor/multiproc_executor.py: MultiprocExecutor.collective_rpc",
        ),
    ],
)
def test_an_engine_with_moved_internals_is_refused_when_planning(
    copied: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, lacks: str
):
    text = (copied / file).read_text()
    (copied / file).write_text(text.replace(old, new))
    assert moved(copied) == [lacks]
    engine = replace(probe_engine(None), folder=copied)
    with refused(lacks, "leave messages out of modes"):
        expand(read_config(merged_with("{modes: [messages], quants: [bf16], messages: {batches: [4]}}")), engine)
    expand(read_config(merged_with("{modes: [offline]}")), engine)

    monkeypatch.setattr(vllm_symbols, "installed", lambda: copied)
    content = tiny_spec(engine={"multiprocess": True}).model_dump(mode="json")
    cause = obstacle(Spec.model_validate(content | {"mode": "messages", "messages": {"batches": [4]}}), Path("l.json"))
    assert (cause.category, lacks in cause.cause) == ("messages_moved", True)


def test_an_engine_without_a_file_of_it_is_told_too(copied: Path):
    (copied / "v1/engine/core.py").unlink()
    assert moved(copied) == ["v1/engine/core.py: EngineCoreProc", "v1/engine/core.py: EngineCore"]
