"""vLLM's OpenAI-compatible server as a child process: started on a free port, queried and ended."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.core.processes import die_with_parent, end_groups, group_of
from rollout_bench.measure.engine import lora
from rollout_bench.measure.engine.draft_models import args_with_draft
from rollout_bench.measure.launch.protocol import SERVER
from rollout_bench.measure.probes.loaded_weights import CENSUS
from rollout_bench.measure.server.guard import KEY_VARIABLE, KeyForAll

MODULE = "vllm.entrypoints.openai.api_server"
NAME = "rollout-bench"
"""The model's name on servers that are started here."""

POLL_S = 0.1

ORPHANS_S = 3.0
"""Time for the engine of a server that has ended to end by itself, in seconds."""


def arguments(spec: Spec, model: str, more: Mapping[str, Any], adapter: Path | None = None) -> list[str]:
    """Return the server's command line; with the folder of an `adapter`, it serves that as a model besides.

    Port 0 lets the kernel choose a free port at binding, so no other process can take it first. The other arguments are
    the engine arguments of offline mode in the command line's spelling, and `more`.
    """
    load = spec.load
    assert load is not None, "an online spec has a load"
    ours = {
        "skip_tokenizer_init": load.token_ids,
        "worker_extension_cls": CENSUS,
        "enable_prompt_tokens_details": True,  # so that an answer says how many of its prompt's tokens were cached
    }
    given: dict[str, Any] = {**ours, **args_with_draft(spec, model), **more}
    needs_template = load.api == "chat" and not _has_template(Path(str(given.get("tokenizer") or model)))
    return [
        *("--model", model, "--served-model-name", NAME, "--host", "127.0.0.1", "--port", "0"),
        *("--disable-uvicorn-access-log", "--middleware", f"{KeyForAll.__module__}.{KeyForAll.__qualname__}"),
        *(("--chat-template", PLAIN_TEMPLATE) if needs_template else ()),
        *(("--lora-modules", f"{lora.NAME}={adapter}") if adapter else ()),
        *(word for name, value in given.items() for word in _option_words(name.replace("_", "-"), value)),
    ]


PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Chat template for models without one: messages unchanged."""


def _has_template(model: Path) -> bool:
    """Return whether a model has its own chat template; a model that is not a local folder is assumed to have one."""
    if not model.is_dir() or any(model.glob("chat_template*")):
        return True
    settings = model / "tokenizer_config.json"
    return settings.is_file() and '"chat_template"' in settings.read_text(errors="replace")


def _option_words(option: str, value: Any) -> list[str]:
    if value is None or isinstance(value, bool):
        return [] if value is None else [f"--{'' if value else 'no-'}{option}"]
    if isinstance(value, list | tuple) and not any(isinstance(item, dict | list) for item in value):
        return [f"--{option}", *map(str, value)]
    # with =, so that argparse does not read a value with a leading dash as an option
    return [f"--{option}={json.dumps(value) if isinstance(value, dict | list) else value}"]


def how_ended(status: int) -> str:
    """Return how a process with exit status `status` ended, as the end of a sentence."""
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


class Server:
    """A running server. Its log is this process's output.

    Args:
        spec: the spec of the launch.
        model: local folder or hub id of the weights.
        more: engine arguments that are not settings of the experiment.
        adapter: folder of the adapter, if it has one.
    """

    def __init__(self, spec: Spec, model: str, more: Mapping[str, Any], adapter: Path | None = None) -> None:
        self.key = secrets.token_urlsafe(24)
        environment = {**os.environ, KEY_VARIABLE: self.key, "VLLM_SERVER_DEV_MODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, *arguments(spec, model, more, adapter)],
            stdin=subprocess.DEVNULL,
            env=environment,
            process_group=0,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )
        self.pid = self._process.pid
        self._group = group_of(self.pid)
        threading.Thread(target=self._end_orphans, daemon=True).start()

    def _end_orphans(self) -> None:
        """Wait for the server's end, and end its engine.

        An engine that is a fork of the server holds the listening socket open: the kernel would go on to accept
        requests that nobody answers.
        """
        self._process.wait()
        end_groups([self._group], ORPHANS_S)

    def wait_for_port(self) -> int:
        """Wait until the server listens, and return its port; the caller has its own time limit.

        vLLM binds first and listens once the engine is loaded.

        Raises:
            MeasuringFailed: if the server ends.
        """
        while True:
            self.check()
            with contextlib.suppress(psutil.Error):
                for connection in psutil.Process(self.pid).net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        return int(connection.laddr.port)
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise `MeasuringFailed` if the server has ended."""
        if (status := self._process.poll()) is not None:
            raise MeasuringFailed("", f"the server {how_ended(status)}", "")  # the end of the log has the reason

    def processes(self) -> dict[int, str]:
        """Return pids of the server and its engine -> their names.

        Python's helper processes are left out, because they may end at any time.
        """
        named = {self.pid: SERVER}
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    title = " ".join(child.cmdline()) or child.name()
                    if title.startswith("VLLM::"):
                        named[child.pid] = title.strip()
        return named

    def stop(self) -> None:
        """Ask the server to end and wait for it; the caller has its own time limit."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
