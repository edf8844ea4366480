"""Sections of the validation page on other clients of the same server."""

from __future__ import annotations

import statistics

from markdown_parts import percent, table
from online_fidelity import MEASURES, OnlineFidelity

from rollout_bench.analysis.stats.intervals import RatioInterval
from rollout_bench.core.numbers import several

TOLERANCE = 0.02
"""How far two clients' means may lie apart for them to have seen the same."""

PAIRS = (
    ("ours", "bench", "rollout-bench / `vllm bench serve`"),
    ("ours_as_text", "bench", "rollout-bench with its texts / `vllm bench serve`"),
    ("guidellm", "ours", "guidellm / rollout-bench"),
)
"""guidellm is no client any more: its own command sends text, and the load is of token ids. Its rounds stay shown."""


def online_fidelity(result: OnlineFidelity) -> str:
    """Return the ratios of what the clients saw, each with an interval, and every round."""
    if len(result.rounds) < 2:
        return "Not run often enough: two rounds are the least."
    load, rows, lines = result.load, [], []
    for side, base, title in PAIRS:
        if sum({side, base} <= set(one.clients) for one in result.rounds) < 2:
            continue
        found = {name: result.ratio(measure, side, base) for measure, name in MEASURES.items()}
        rows += [[title, name, _interval(ratio), _holds_one(ratio), _within(ratio)] for name, ratio in found.items()]
        apart = [name for name, ratio in found.items() if _within(ratio) == "no"]
        unsure = [name for name, ratio in found.items() if _within(ratio) == "?"]
        outcomes = [f"{', '.join(apart)} MORE than {percent(TOLERANCE, 0)} apart"] if apart else []
        outcomes += [f"more rounds are needed to tell for {', '.join(unsure)}"] if unsure else []
        lines.append(f"- {title}: {'; '.join(outcomes) or f'all within {percent(TOLERANCE, 0)} of 1'}.")
    lines += _steps(result)
    summary = "\n".join(lines)
    rounds = [
        [one.index, name, *(f"{getattr(seen, measure):.3f}" for measure in MEASURES)]
        for one in result.rounds
        for name, seen in one.clients.items()
    ]
    options = " ".join(result.server)
    return f"""\
{table(["clients", "measure", "ratio", "holds 1", f"within {percent(TOLERANCE, 0)} of 1"], rows)}

{summary}

Ratios are geometric means with their 95 % t interval, from the log ratio of each round with both clients.
{len(result.rounds)} rounds on {several(result.servers, "server")}, each on a machine of its own, of
{result.model} in bf16: {load.requests} prompts of {load.prompt_tokens} tokens, {load.output_tokens} tokens each,
{load.concurrency} at once. The order of the clients is drawn anew for each round. They live through all rounds, each
having sent one load that is not kept; so nobody's imports are timed. The server:
`python -m vllm.entrypoints.openai.api_server` with
`{options}`.

What differs by definition, and is not taken out:

- TTFT begins when `vllm bench serve` asks for a connection. With rollout-bench it begins when the request's head has
  been sent over one.
- Output tokens per second: `vllm bench serve` divides by the time from before its first request until all its tasks are
  done; here it is the time from when the first request may be sent until the last answer ended.
- guidellm is not among the clients: its own command, which `harness: guidellm` runs, sends text and has no time of
  each piece.
- {_TEXT if load.text else _TOKEN_IDS} It sends a `repetition_penalty` of 1;
  rollout-bench asks for token ids in the answers, so that tokens are counted. `vllm bench serve` takes the
  server's count.

Milliseconds, and output tokens per second, of each client, in the order of their turns:

{table(["round", "client", *MEASURES.values()], rounds)}

Not shown: {_NOT_ON_CPU if result.device is None else "other loads"}, a server on another machine, a rate of arrivals.

Measured on {"" if result.device is None else f"{result.device}, "}{result.place}."""


_TOKEN_IDS = "`vllm bench serve` draws its own token ids, with as many in each prompt."

_TEXT = """\
`vllm bench serve` sends text, which the server tokenizes and which can be some tokens longer or shorter; rollout-bench
  sends token ids."""

_NOT_ON_CPU = "an accelerator, a server that makes text"


def _steps(result: OnlineFidelity) -> list[str]:
    """Return a line on the engine's steps of a pass, by client; none where they were not counted."""
    counted = {name: result.steps(name) for name in ("ours", "bench")}
    if not all(counted.values()):
        return []
    ours, bench = (statistics.fmean(steps) for steps in counted.values())
    if len({*counted["ours"], *counted["bench"]}) == 1:
        meaning = "so requests reach the engine alike, and a difference is the client's own"
    else:
        meaning = (
            "so requests reach the engine at other moments" if abs(ours / bench - 1) > 0.002 else "alike on average"
        )
    return [
        f"- Steps of the engine in a pass: {ours:.2f} for rollout-bench, {bench:.2f} for `vllm bench serve`, {meaning}."
    ]


def _interval(ratio: RatioInterval) -> str:
    return f"{float(ratio.ratio):.4f} [{float(ratio.low):.4f}, {float(ratio.high):.4f}]"


def _holds_one(ratio: RatioInterval) -> str:
    return "yes" if float(ratio.low) <= 1 <= float(ratio.high) else "no"


def _within(ratio: RatioInterval) -> str:
    """Return whether a ratio surely is near 1, surely is not, or neither."""
    low, high = float(ratio.low), float(ratio.high)
    if low >= 1 - TOLERANCE and high <= 1 + TOLERANCE:
        return "yes"
    return "no" if high < 1 - TOLERANCE or low > 1 + TOLERANCE else "?"
