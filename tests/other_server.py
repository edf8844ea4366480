"""An OpenAI-compatible server of another make, for trials of `endpoints:`: `transformers serve`, pinned anyway.

It differs from vLLM where a client may have grown careless: it takes no prompts of token ids and refuses every field
that OpenAI's API has not; its stream ends with an empty choice that has finish_reason and usage, asked for or not, and
without [DONE]; its errors are `{"detail": ...}`; it knows no key, and decodes greedily at any temperature. By hand:

    python tests/other_server.py MODEL_FOLDER --cache EMPTY_FOLDER --port 8000
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from rollout_bench.core.processes import die_with_parent, end_groups, group_of

START_S = 120
REVISION = "0" * 40
BATCHING = ("--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", "512")
"""Without a number of blocks its KV cache takes nearly all of the machine's memory."""


@dataclass(frozen=True)
class OtherServer:
    """A server that runs, and the name by which it knows its model."""

    url: str
    model: str
    pid: int
    log: Path


@contextlib.contextmanager
def running_other_server(model_folder: Path, folder: Path, *, batching: bool = False) -> Iterator[OtherServer]:
    """Return serves a checkpoint while the block runs; it is ready when it has completed a prompt.

    Args:
        model_folder: the checkpoint; its tokenizer must lie there too.
        folder: where log and cache may go.
        batching: serve requests together instead of one after the other.

    Raises:
        RuntimeError: it did not start; holds the end of its log.
    """
    log = folder / "other_server.log"
    command = [sys.executable, str(Path(__file__).resolve()), str(model_folder), "--cache", str(folder / "hub")]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *(BATCHING if batching else ())], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    group = group_of(process.pid)
    try:
        server = OtherServer(_address(process, log), _served_name(model_folder), process.pid, log)
        question = {"model": server.model, "prompt": "a", "max_tokens": 1}
        httpx.post(f"{server.url}/v1/completions", json=question, timeout=START_S).raise_for_status()
        yield server
    finally:
        end_groups([group])
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"transformers serve did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _served_name(model_folder: Path) -> str:
    return f"synthetic/{model_folder.resolve().name}"


def _put_into_cache(model_folder: Path, cache: Path) -> None:
    """Lay a checkpoint out as if it had come from the hub: /v1/models lists what the cache holds, and no folder."""
    repository = cache / f"models--{_served_name(model_folder).replace('/', '--')}"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in model_folder.resolve().iterdir():
        link = snapshot / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(REVISION)


def main() -> None:
    """Serve one checkpoint on the CPU until a signal comes; further options go to `transformers serve`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="is made to look like a cache of the model hub")
    parser.add_argument("--port", default="0", help="0: a free one, which its log names")
    options, further = parser.parse_known_args()
    die_with_parent(signal.SIGTERM)
    _put_into_cache(options.model_folder, options.cache)
    os.environ.update(HF_HUB_CACHE=str(options.cache), HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")

    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.transformers import main as transformers

    # To name a device, even the CPU, takes the accelerate package; without one the model stays where it was loaded.
    ModelManager.device = property(lambda self: None, lambda self, value: None)
    name = _served_name(options.model_folder)
    sys.argv = ["transformers", "serve", name, "--host", "127.0.0.1", "--port", options.port, *further]
    transformers()


if __name__ == "__main__":
    main()
