"""How exact the load generator is: what it saw of a stub's tokens, beside the stub's own notes of when it sent them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Iteration
from rollout_bench.measure.launch.flags import client_flags
from rollout_bench.measure.server.served import rows_of
from rollout_bench.measure.server.stream import Load, LoadPass, Target
from rollout_bench.modes.online.collector import sent_late_flags
from rollout_bench.workloads.requests import Request

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / "fixtures")]

from page import machine_facts  # noqa: E402
from stub_server import running_stub  # noqa: E402

PROMPT_TOKENS = 64
MEDIAN_MS, P99_MS = 1.0, 5.0
"""How far off the generator may be without a flag."""


@dataclass(frozen=True)
class Case:
    """A load: requests, how many are sent each second (None: all at once), tokens of each, milliseconds between two."""

    requests: int
    rate: float | None
    tokens: int
    itl_ms: float

    @property
    def under_way(self) -> int:
        """Requests under way at once, at most."""
        if self.rate is None:
            return self.requests
        return min(self.requests, round(self.rate * self.tokens * self.itl_ms / 1000))

    @property
    def tokens_per_s(self) -> float:
        """Tokens each second while that many are under way."""
        return 1000 * self.under_way / self.itl_ms


CASES = (
    Case(100, None, 40, 50),
    Case(1_000, None, 20, 250),
    Case(2_000, 200, 50, 100),
    Case(4_000, 400, 20, 500),
    Case(10_000, 500, 20, 1000),
    Case(10_000, 1000, 10, 1000),
    Case(10_000, None, 10, 1000),
)


@dataclass(frozen=True)
class Outcome:
    """Errors in milliseconds (median, 99th percentile) of TTFT and ITL, what sending cost, and if it was flagged."""

    ttft_ms: tuple[float, float]
    itl_ms: tuple[float, float]
    cpu_share: float
    failed: int
    flagged: bool

    @property
    def exact(self) -> bool:
        """Whether it is within what may go without a flag."""
        return all(errors[0] <= MEDIAN_MS and errors[1] <= P99_MS for errors in (self.ttft_ms, self.itl_ms))


def measure(case: Case) -> Outcome:
    """Send one load and compares."""
    from rollout_bench.measure.server.paced import prepare

    asked = [Request(number, 0, list(range(100, 100 + PROMPT_TOKENS)), case.tokens) for number in range(case.requests)]
    due_s = [number / case.rate if case.rate else 0.0 for number in range(case.requests)]
    with running_stub(ttft_ms=case.itl_ms, itl_ms=case.itl_ms) as stub:
        target = Target(f"{stub.url}/v1", "stub", {}, True, {"return_token_ids": True})
        prompts = [request.prompt_token_ids for request in asked]
        done = prepare(Load(asked, prompts, due_s, None, len(asked)), target)()
        truth = stub.truth()["requests"]
    return compare(done, asked, {entry["request_id"].rpartition("-")[2]: entry for entry in truth})


def compare(done: LoadPass, asked: list[Request], truth: dict[str, dict]) -> Outcome:
    """Return what the generator saw against what the stub did; gaps between tokens against the stub's own gaps."""
    ttft, itl, failed = [], [], 0
    for number, outcome in enumerate(done.outcomes):
        entry = truth.get(str(number))
        if outcome.error is not None or entry is None or outcome.sent_s is None:
            failed += 1
            continue
        sent = np.array(entry["chunks_s"])
        seen = np.array(outcome.pieces_s)
        ttft.append((seen[0] - outcome.sent_s) - (sent[0] - entry["head_read_s"]))
        if len(seen) == len(sent):
            itl.append(np.abs(np.diff(seen) - np.diff(sent)))
    iteration = Iteration(
        index=0, warmup=False, elapsed_s=done.elapsed_s, requests=1, sequences=1, prompt_tokens=0, output_tokens=0,
        point=LoadPoint(), client=done.client,
    )  # fmt: skip
    return Outcome(
        _percentiles(np.abs(np.array(ttft))),
        _percentiles(np.concatenate(itl)),
        done.client.cpu_share,
        failed,
        bool(client_flags([iteration]) or sent_late_flags(rows_of(asked, done, 0))),
    )


def _percentiles(errors_s: np.ndarray) -> tuple[float, float]:
    median, p99 = np.percentile(1000 * errors_s, (50, 99))
    return float(median), float(p99)


def _pair(errors_ms: tuple[float, float]) -> str:
    return f"{errors_ms[0]:.2f} / {errors_ms[1]:.1f}"


def table(found: Sequence[tuple[Case, Outcome]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        "| requests | sent per s | under way | tokens/s | TTFT error ms, median / p99 | ITL error ms, median / p99 "
        "| CPU share | failed | within 1 / 5 ms | flagged |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | :-- | :-- |",
    ]
    for case, outcome in found:
        rate = "all at once" if case.rate is None else f"{case.rate:,g}"
        lines.append(
            f"| {case.requests:,} | {rate} | {case.under_way:,} | {case.tokens_per_s:,.0f} "
            f"| {_pair(outcome.ttft_ms)} | {_pair(outcome.itl_ms)} "
            f"| {outcome.cpu_share:.2f} | {outcome.failed} | {'yes' if outcome.exact else 'no'} "
            f"| {'yes' if outcome.flagged else 'no'} |"
        )
    return lines


def main() -> int:
    """Measure every case; 1 where one is off and would not be flagged."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Exit status: 1 where a load is off and not flagged.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this page")
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many")
    arguments = parser.parse_args()
    os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
    facts = machine_facts(os.getloadavg()[0])
    found = []
    for case in CASES[: arguments.cases]:
        found.append((case, measure(case)))
        print(table(found)[-1], file=sys.stderr, flush=True)
    lines = [*facts, "", *table(found)]
    print("\n".join(lines))
    if arguments.write is not None:
        text = arguments.write.read_text()
        head, _, rest = text.partition("<!-- measured -->\n")
        tail = rest.partition("<!-- /measured -->")[2]
        arguments.write.write_text(head + "<!-- measured -->\n\n" + "\n".join(lines) + "\n\n<!-- /measured -->" + tail)
    return int(any(not outcome.exact and not outcome.flagged for _, outcome in found))


if __name__ == "__main__":
    sys.exit(main())
