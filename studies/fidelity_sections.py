"""Sections of the validation page on vLLM's own benchmark of throughput: beside launches, and on one engine."""

from __future__ import annotations

from fidelity import AIMS, BARE, COMMAND, OURS, OURS_AGAIN, THEIRS, Fidelity
from markdown_parts import percent, table

CRITERIA = (0.02, 0.005)
"""How far two ways to time the same may lie apart: what is promised, then half of a relevant difference."""


TITLES = {
    (OURS, THEIRS): "rollout-bench / vLLM's benchmark",
    (OURS_AGAIN, BARE): "rollout-bench / its worker without supervisor and guardian",
    (OURS, COMMAND): "rollout-bench / the command vllm bench throughput",
}


def against(low: float, high: float, limit: float) -> str:
    """Return whether an interval of a ratio shows that it is within `limit` of 1, shows that it is not, or neither."""
    if low >= 1 - limit and high <= 1 + limit:
        return "held"
    if high < 1 - limit or low > 1 + limit:
        return "FAILED"
    return "not decided"


def _in_words(title: str, low: float, high: float) -> str:
    """Return a sentence for each of `CRITERIA`."""
    found = [(percent(limit, 1 if limit < 0.01 else 0), against(low, high, limit)) for limit in CRITERIA]
    words = {
        "held": "the whole interval lies within {} of 1: held",
        "FAILED": "the two are MORE than {} apart: FAILED",
        "not decided": "the interval reaches further than {} from 1: not decided",
    }
    return f"- {title}: {'; '.join(words[outcome].format(limit) for limit, outcome in found)}."


def fidelity(result: Fidelity) -> str:
    """Return the ratios of throughputs, each with an interval, and every round."""
    load, rounds = result.load, result.rounds
    aim = AIMS["cpu" if result.device is None else "cuda"]
    compared = [(TITLES[pair], result.ratio(*pair)) for pair in aim.compared]
    rows = [
        [title, f"{ratio.ratio:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"]
        for title, ratio in compared
        if ratio is not None
    ]
    if not rows:
        return "Not run often enough: two rounds are the least."
    sentences = "\n".join(
        _in_words(title, float(one.low), float(one.high)) for title, one in compared if one is not None
    )
    arms = list(dict.fromkeys(arm for one in rounds for arm in one.passes_s))
    seconds = [
        [one.index, *(f"{one.passes_s[arm]:.3f}" if arm in one.passes_s else "" for arm in arms)] for one in rounds
    ]
    order = (
        "The order of the arms is drawn for each round, and no launch is in two rows of the first table."
        if result.drawn
        else "The order of the arms rotated: it was measured before orders were drawn."
    )
    several = "" if result.machines == 1 else _SEVERAL.format(result.machines)
    return f"""\
{table(["throughput of", "ratio"], rows)}

{sentences}

{len(rounds)} rounds of {result.model} in bf16, {load["prompts"]} prompts of {load["prompt_tokens"]} tokens with
{load["samples_per_prompt"]} samples of {load["output_tokens"]} tokens each, no text made, after a warm-up of the same
size. {order}

Seconds of each pass:

{table(["round", *arms], seconds)}

{several}{_BESIDE_ITS_FUNCTION if result.device is None else _BESIDE_THE_COMMAND}

Measured on {"" if result.device is None else f"{result.device}, "}{result.place}."""


_SEVERAL = "The rounds ran on {} machines of one kind, each round on one of them.\n\n"

_BESIDE_ITS_FUNCTION = """\
What still differs: vLLM's benchmark shows a progress bar while it is timed; rollout-bench empties the prefix cache and
collects garbage before, and reads the host's counters before and after. What the command `vllm bench throughput` does
besides and was left out here: it makes its own prompts as text, tokenizes them while it is timed, and sends one request
of n samples for each prompt; rollout-bench sends one for each sequence.

Not shown: an accelerator, the engine core as a process of its own, `--async-engine`."""

_BESIDE_THE_COMMAND = """\
The command has the engine arguments of the launch, and `--num-warmups`, `--disable-detokenize` and a seed for each
round. What still differs: its prompts are text that is tokenized while it is timed, one request of n samples for each,
with a progress bar; rollout-bench sends token ids, a request for each sequence, and reads counters before and after.

Not shown: `--async-engine`, other loads, other devices."""
