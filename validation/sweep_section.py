"""What docs/validation.md says about the best setting by vLLM's own way to sweep."""

from __future__ import annotations

from markdown_parts import table
from sweep_fidelity import SweepFidelity, agreement

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.core.numbers import several

SAID = {
    "same": "Both find the same best setting",
    "same within the noise": "The two name different settings, and neither rules out the other's: same within noise",
    "not the same": "The two do NOT find the same best setting",
}
"""What an agreement comes to."""


def sweep_fidelity(result: SweepFidelity) -> str:
    """Return which setting is best by each way, with its ties, and the means of every setting."""
    ours, theirs = result.ours, result.theirs
    if ours is None or theirs is None:
        return "Not run often enough: three launches of each setting are the least, and as many passes by vLLM's way."
    our_rates, their_rates = result.our_rates, result.their_rates
    names = sorted(our_rates, key=lambda name: -mean(our_rates[name]) if our_rates[name] else 0.0)
    rows = [
        [name, _rate(our_rates[name]), ours.says(name), _rate(their_rates.get(name, [])), theirs.says(name)]
        for name in names
    ]
    header = ["setting", "rollout-bench, tok/s", "its answer", "vLLM's way, tok/s", "by the same statistics"]
    said = f"rollout-bench: {_named(ours.best, ours.ties)}; vLLM's way: {_named(theirs.best, theirs.ties)}"
    highest = max(their_rates, key=lambda name: mean(their_rates[name]))
    load, passes = result.load, result.launches * result.iterations
    return f"""\
{SAID[agreement(ours, theirs)]}. {said}.

{table(header, rows)}

Means of output tokens per second. `vllm bench sweep` itself has no statistics; its highest mean is that of
{highest}.

{result.launches} launches with {several(result.iterations, "pass")} of each setting took
{result.ours_took_s / 60:.0f} min ({result.invalid} of all launches are invalid and in no number);
{several(passes, "run")} of each took {result.theirs_took_s / 60:.0f} min. {result.model} in bf16,
{load["prompts"]} prompts of {load["prompt_tokens"]} tokens with {load["samples_per_prompt"]} samples of
{load["output_tokens"]} tokens each.

What differs: rollout-bench lets all settings make their passes in turn, vLLM's way makes all runs of one point before
the next. `vllm bench throughput` makes its own prompts as text, and sends one request of n samples for each prompt
where rollout-bench sends a request for each sequence.

Not shown: an accelerator, more than {len(our_rates)} points, `vllm bench sweep serve`, which measures servers.

Measured on {result.place}."""


def _rate(values: list[float]) -> str:
    return f"{mean(values):,.0f}" if values else "-"


def _named(best: str, ties: list[str]) -> str:
    return f"{best}, can't be told from it: {', '.join(ties)}" if ties else f"{best} alone"
