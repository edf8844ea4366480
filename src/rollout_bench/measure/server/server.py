"""vLLM's OpenAI-compatible server as a child process: started on a port of the kernel's choice, asked, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from rollout_bench.contracts.spec import Spec
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.server.guard import KEY_VARIABLE, KeyForAll
from rollout_bench.measure.server.stream import ServingFailed

MODULE = "vllm.entrypoints.openai.api_server"
NAME = "rollout-bench"
"""The model's name at servers of ours."""

CENSUS = "rollout_bench.measure.probes.census.WeightCensus"
POLL_S = 0.1


def arguments(spec: Spec, model: str, more: Mapping[str, Any]) -> list[str]:
    """Return the server's command line.

    The port is 0: the kernel picks a free one as it is bound, so nothing can be raced.

    Engine arguments are those of offline mode, in the command line's spelling, and `more`.
    """
    load = spec.load
    assert load is not None, "an online spec has a load"
    given: dict[str, Any] = {"skip_tokenizer_init": load.token_ids, "worker_extension_cls": CENSUS, **spec.engine.args}
    given |= more
    words = ["--model", model, "--served-model-name", NAME, "--host", "127.0.0.1", "--port", "0"]
    words += ["--disable-uvicorn-access-log", "--middleware", f"{KeyForAll.__module__}.{KeyForAll.__qualname__}"]
    if load.api == "chat" and not _has_template(Path(str(given.get("tokenizer") or model))):
        words += ["--chat-template", PLAIN_TEMPLATE]
    for name, value in given.items():
        words += _words(name.replace("_", "-"), value)
    return words


PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The chat template of models that have none: messages as they are."""


def _has_template(model: Path) -> bool:
    """Return whether a model has a chat template of its own; one that is not a folder here has, as far as we know."""
    if not model.is_dir() or any(model.glob("chat_template*")):
        return True
    settings = model / "tokenizer_config.json"
    return settings.is_file() and '"chat_template"' in settings.read_text(errors="replace")


def _words(option: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    if isinstance(value, list | tuple) and not any(isinstance(item, dict | list) for item in value):
        return [f"--{option}", *map(str, value)]
    # with =, so that a value beginning with a dash is none of argparse's options
    return [f"--{option}={json.dumps(value) if isinstance(value, dict | list) else value}"]


class Server:
    """A running server. Its log is this process's output.

    Args:
        spec: what is measured.
        model: local folder or hub id of the weights.
        more: arguments of the engine that are no settings of the experiment.
    """

    def __init__(self, spec: Spec, model: str, more: Mapping[str, Any]) -> None:
        self.key = secrets.token_urlsafe(24)
        environment = {**os.environ, KEY_VARIABLE: self.key, "VLLM_SERVER_DEV_MODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *arguments(spec, model, more)],
            stdin=subprocess.DEVNULL,
            env=environment,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
        self.pid = self._process.pid

    def wait_for_port(self) -> int:
        """Wait until it listens, and return where; whoever calls has a limit of its own.

        vLLM binds first and listens once the engine is loaded. Raises `ServingFailed` where it ends.
        """
        while True:
            self.check()
            with contextlib.suppress(psutil.Error):
                for connection in psutil.Process(self.pid).net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        return int(connection.laddr.port)
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise `ServingFailed` where the server has ended."""
        status = self._process.poll()
        if status is not None:
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            raise ServingFailed("", f"the server {how}", "")  # the log's end says why

    def processes(self) -> dict[int, str]:
        """Return pids of the server and of the engine behind it -> what they are."""
        try:
            children = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            children = []
        named = {child.pid: _name(child) for child in children}
        return {self.pid: "server", **{pid: name for pid, name in named.items() if name}}

    def stop(self) -> None:
        """Ask it to end and wait until it has; whoever calls has a limit of its own."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def _name(process: psutil.Process) -> str:
    """Return what a process of the engine is; empty for Python's helpers, which may end whenever they like."""
    try:
        title = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""
    return title.strip() if title.startswith("VLLM::") else ""
