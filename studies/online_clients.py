"""Clients that put the same load on a server, each in a process of its own that lives as long as its parent.

All send `requests` prompts of the same length to /v1/completions, `concurrency` at a time. Times are taken
as each client takes them; ours are worked out here from when each piece came, those of `vllm bench serve` are read from
the JSON that it writes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rollout_bench.contracts.fields import Strict
from rollout_bench.measure.server import stream
from rollout_bench.measure.server.stream import LoadPass, Prompt, RequestOutcome, Target
from rollout_bench.workloads.requests import Request

NAME = "fidelity"
"""The model's name at the server."""

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "ignore_eos": True}
ANSWER_S = 300.0
"""How long a client may take to import what it needs, or to send a load."""

HASHED = 16
"""`vllm bench serve` makes so many token ids from each number of a trace."""


class Load(Strict):
    """What each pass sends.

    With `text`, `vllm bench serve` sends its prompts as text: up to vLLM 0.23 it has no data set of token ids.
    """

    requests: int
    concurrency: int
    prompt_tokens: int
    output_tokens: int
    text: bool = False


class Seen(Strict):
    """Means over the requests of a pass, or over all gaps, as a client saw them; `steps` are the engine's meanwhile."""

    ttft_ms: float
    tpot_ms: float
    itl_ms: float
    output_tokens_per_s: float
    output_tokens: int
    prompt_tokens: int | None = None
    steps: int | None = None


class ClientFailed(Exception):  # noqa: N818 (an outcome)
    """A client did not bring what it was asked for."""


@dataclass(frozen=True)
class Aim:
    """Where a client sends its load.

    Args:
        url: the server's address, up to and with /v1.
        model: folder of the checkpoint, whose tokenizer `vllm bench serve` takes its token ids from.
        vocabulary: token ids are below it.
        load: what to send.
    """

    url: str
    model: Path
    vocabulary: int
    load: Load


def ours(aim: Aim) -> Callable[[int], Seen]:
    """Return what rollout-bench does with its requests."""
    from rollout_bench.measure.server.paced import prepare

    return lambda index: _sent(aim, _drawn(aim, index), prepare)


def ours_as_text(aim: Aim) -> Callable[[int], Seen]:
    """Return what rollout-bench does with the very texts that `vllm bench serve` sends: only the client differs."""
    from vllm.benchmarks.serve import get_samples, get_tokenizer

    from rollout_bench.measure.server.paced import prepare

    parsed, tokenizer = _command_line(), get_tokenizer(aim.model)

    def sent(index: int) -> Seen:
        asked = get_samples(parsed(["--num-prompts", aim.load.requests, *_random(aim.load, index)]), tokenizer)
        return _sent(aim, [one.prompt for one in asked], prepare)

    return sent


def bench(aim: Aim) -> Callable[[int], Seen]:
    """`vllm bench serve`, by the function that its command calls, with a command line as one types it."""
    from vllm.benchmarks.serve import main

    parsed, load = _command_line(), aim.load

    def sent(index: int) -> Seen:
        with tempfile.TemporaryDirectory() as folder:
            words = ["--base-url", aim.url.removesuffix("/v1"), "--model", aim.model, "--served-model-name", NAME]
            words += ["--num-prompts", load.requests, "--max-concurrency", load.concurrency, "--request-rate", "inf"]
            words += _random(load, index) if load.text else _timed(load, index, Path(folder) / "trace.jsonl")
            words += ["--temperature", 1.0, "--top-p", 1.0, "--ignore-eos", "--disable-tqdm"]
            words += ["--save-result", "--save-detailed", "--result-dir", folder, "--result-filename", "result.json"]
            main(parsed(words))
            found = json.loads((Path(folder) / "result.json").read_text())
        if found["completed"] != load.requests:
            raise ClientFailed(f"{load.requests - found['completed']} requests failed")
        return Seen(
            ttft_ms=found["mean_ttft_ms"],
            tpot_ms=found["mean_tpot_ms"],
            itl_ms=found["mean_itl_ms"],
            output_tokens_per_s=found["output_throughput"],
            output_tokens=found["total_output_tokens"],
            prompt_tokens=found["total_input_tokens"],
        )

    return sent


CLIENTS = {"ours": ours, "bench": bench}
TEXT_CLIENTS = {"ours_as_text": ours_as_text}
"""Also asked where `vllm bench serve` sends text."""


def _command_line() -> Callable[[list[object]], Any]:
    """Return what reads a command line of `vllm bench serve`."""
    from vllm.benchmarks.serve import add_cli_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    return lambda words: parser.parse_args([str(word) for word in words])


def _random(load: Load, index: int) -> list[object]:
    """Return the options of a data set of text."""
    lengths = ["--random-input-len", load.prompt_tokens, "--random-output-len", load.output_tokens]
    return ["--dataset-name", "random", *lengths, "--seed", index + 1]


def _timed(load: Load, index: int, trace: Path) -> list[object]:
    """Return the options of the one data set of token ids, which is written: the server needs no tokenizer for it."""
    trace.write_text("\n".join(_trace(load, index)))
    return ["--dataset-name", "timed_trace", "--dataset-path", trace, "--no-self-timed"]


def _trace(load: Load, index: int) -> list[str]:
    pieces = -(-load.prompt_tokens // HASHED)
    first = (index + 1) * load.requests * pieces
    return [
        json.dumps(
            {
                "timestamp": 0,
                "input_length": load.prompt_tokens,
                "output_length": load.output_tokens,
                "hash_ids": [first + number * pieces + piece for piece in range(pieces)],
            }
        )
        for number in range(load.requests)
    ]


def _drawn(aim: Aim, index: int) -> list[Prompt]:
    load, draw = aim.load, random.Random(f"online-fidelity/{index}")
    return [[draw.randrange(aim.vocabulary) for _ in range(load.prompt_tokens)] for _ in range(load.requests)]


def _sent(aim: Aim, prompts: list[Prompt], prepare: Callable[..., Callable[[], LoadPass]]) -> Seen:
    load = aim.load
    asked = [Request(number, 0, prompt, load.output_tokens) for number, prompt in enumerate(prompts)]
    body = {**SAMPLING, "return_token_ids": True}
    target = Target(url=aim.url, model=NAME, headers={}, verify_tls=True, body=body)
    return seen(prepare(stream.Load(asked, prompts, None, load.concurrency, len(asked)), target)())


def seen(done: LoadPass) -> Seen:
    """Return the measures of a pass, by vLLM's definitions: TPOT without the first token, ITL over all gaps.

    Raises:
        ClientFailed: a request failed.
    """
    failed = [outcome.error for outcome in done.outcomes if outcome.error is not None]
    if failed:
        raise ClientFailed(f"{len(failed)} requests failed, the first with: {failed[0]}")
    tokens = sum(outcome.output_tokens for outcome in done.outcomes)
    gaps = [gap for outcome in done.outcomes for gap in _gaps_s(outcome)]
    return Seen(
        ttft_ms=1e3 * statistics.fmean(outcome.pieces_s[0] - (outcome.sent_s or 0.0) for outcome in done.outcomes),
        tpot_ms=1e3 * statistics.fmean(sum(_gaps_s(one)) / (one.output_tokens - 1) for one in done.outcomes),
        itl_ms=1e3 * statistics.fmean(gaps),
        output_tokens_per_s=tokens / done.elapsed_s,
        output_tokens=tokens,
        prompt_tokens=sum(outcome.prompt_tokens or 0 for outcome in done.outcomes),
    )


def _gaps_s(outcome: RequestOutcome) -> list[float]:
    return [after - before for before, after in zip(outcome.pieces_s, outcome.pieces_s[1:], strict=False)]


class Client:
    """A client in a process of its own; making one waits until it has imported what it needs.

    Args:
        name: one of `CLIENTS`.
        aim: where it sends its load.
        log: file for what it says.
    """

    def __init__(self, name: str, aim: Aim, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._name, self._log = name, log
        log.touch()
        self._answers, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(name, aim, log, theirs))
        self._process.start()
        theirs.close()
        self._answer()

    def sends(self, index: int) -> Seen:
        """Send the load once, with the prompts of that index."""
        self._answers.send(index)
        found = self._answer()
        assert isinstance(found, Seen)
        return found

    def ends(self) -> None:
        """End the process."""
        self._answers.close()
        self._process.join(10)
        self._process.kill()

    def _answer(self) -> Any:
        try:
            found = self._answers.recv() if self._answers.poll(ANSWER_S) else f"no answer for {ANSWER_S:.0f} s"
        except EOFError:
            found = "it ended"
        if not isinstance(found, Seen | bool):
            self.ends()
            output = self._log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{output}\nthe client {self._name} failed: {found}\nthe whole log is {self._log}")
        return found


def _live(name: str, aim: Aim, log: Path, orders: Connection) -> None:
    """Send a load for each index that comes, until the parent ends."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        send = {**CLIENTS, **TEXT_CLIENTS}[name](aim)
        orders.send(True)
        while True:
            orders.send(send(orders.recv()))
    except EOFError:
        sys.exit(0)
    except Exception as error:
        orders.send(f"{type(error).__name__}: {error}")
        raise
