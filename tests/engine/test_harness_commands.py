"""What sends the requests of a real server: `vllm bench serve` itself, chats with a template; at last it is killed.

They share one engine, which the test's own process starts.
"""

import dataclasses
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from forked_programs import ForkedProgram
from launching import SETTINGS, TINY_MODEL, online_spec
from needing_vllm import program_environment, starter_of_tests

from rollout_bench.checkpoints.tokenizer import write_tokenizer
from rollout_bench.contracts.load import LoadSpec
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import source_of
from rollout_bench.measure.launch.protocol import IterationDone, Job
from rollout_bench.measure.server import server
from rollout_bench.measure.server.session import Opened, PromptText, start_server
from rollout_bench.modes.online.worker import LoadPasses

pytestmark = pytest.mark.engine

BLOCK = 128
"""Tokens of a block of the prefix cache on a CPU."""

TEMPLATE = " cfg" * (2 * BLOCK) + "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Puts two blocks of one word in front of each prompt."""

SPEC = online_spec(
    {"points": [{"concurrency": 2}], "token_ids": False, "api": "chat"},
    workload={"prompts": 3, "samples_per_prompt": 2, "prompt_tokens": 40, "output_tokens": 8},
    engine={"args": {**SETTINGS["engine"]["args"], "max_model_len": 512}},
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Opened, Path]]:
    """Yield a server of a model whose chat template is long, as a launch has it, and the model's folder."""
    model = tmp_path_factory.mktemp("models") / "templated"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(TINY_MODEL))
    write_tokenizer(model, 2048, 2048)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    popen = partial(ForkedProgram, starter_of_tests())  # its core is a fork, too, as on GPUs
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (program_environment() | SPEC.engine.environment).items():
            patch.setenv(name, value)
        patch.setattr(server, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=None))
        opened = start_server(SPEC, str(model))
        yield opened, model
        opened.stop()


def passed(served: tuple[Opened, Path], **load: Any) -> IterationDone:
    """Return a pass of a load through the server, as a launch makes it."""
    opened, model = served
    loaded = LoadSpec.model_validate({**SPEC.load.model_dump(), **load})
    job = Job(spec=SPEC.model_copy(update={"load": loaded}), model=str(model), launch=0, timeout_s=600)
    target = dataclasses.replace(opened.target, chat=loaded.api == "chat")
    at = dataclasses.replace(opened, target=target, text=None if loaded.token_ids else PromptText(str(model)))
    sending = LoadPasses(
        job, loaded, at, source_of(job, opened.vocabulary), EngineContext(lambda event: None, lambda: None)
    )
    return sending.send(loaded.points[0], 0, False)


def test_the_command_sends_our_prompts_and_reports_what_servers_count(served: tuple[Opened, Path]) -> None:
    done = passed(served, harness="vllm-bench", api=None)
    ours = passed(served, api=None, points=[{"concurrency": 2, "requests": 6}])
    for it in (done.iteration, ours.iteration):
        assert (it.sequences, it.failed, it.output_tokens) == (6, 0, 48)
        assert (it.server.output_tokens, it.server.prompt_tokens) == (48, it.prompt_tokens)
    # the very same prompts: each is as long as the server counted it of the other
    lengths = [[(row.prompt, row.sample, row.prompt_tokens) for row in one.sequences] for one in (done, ours)]
    assert lengths[0] == lengths[1]
    assert {(row.status, row.error, row.output_tokens) for row in done.sequences} == {(200, None, 8)}
    for row in done.sequences:
        assert 0 <= row.sent_s < row.first_token_s <= row.last_token_s <= done.iteration.elapsed_s
    assert done.iteration.client.cpu_share > 0
    assert {flag.severity for flag in done.flags} <= {"warning"}


def test_a_cached_chat_template_does_not_invalidate_the_launch(served: tuple[Opened, Path]) -> None:
    done = passed(served, points=[{"concurrency": 1, "requests": 6}])
    assert min(row.prompt_tokens for row in done.sequences) > 2 * BLOCK + 30
    # The first one puts both blocks there, which nothing in the load shares: all others find them.
    assert done.iteration.cached_prompt_tokens == 5 * 2 * BLOCK
    assert ("cross_iteration_prefix_hits", "warning") in {(flag.code, flag.severity) for flag in done.flags}


def test_a_server_killed_in_a_pass_is_the_cause(served: tuple[Opened, Path]) -> None:
    processes = {name: psutil.Process(pid) for pid, name in served[0].processes.items()}
    threading.Timer(0.3, processes["server"].kill).start()
    with pytest.raises(MeasuringFailed, match="the server was ended by signal 9") as failed:
        passed(served, points=[{"requests": 400}])
    assert failed.value.category == ""  # a crash, unless the engine's log has another cause
    assert psutil.wait_procs(processes.values(), timeout=20)[1] == []
