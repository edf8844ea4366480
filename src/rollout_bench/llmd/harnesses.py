"""The harnesses of llm-d-benchmark: what reads the profiles of each, or why nobody does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rollout_bench.llmd import guidellm_scenario, inference_perf, nop, vllm_benchmark
from rollout_bench.llmd.content import Keys
from rollout_bench.llmd.meaning import Meaning, MeasuredHere


@dataclass(frozen=True)
class LlmdHarness:
    """One harness.

    Attributes:
        name: as llm-d-benchmark calls it, and as its folder of profiles is called.
        reader: what makes a workload of its keys; None where nothing does.
        keys: keys of its profiles that can't be honoured, the first of them in the file being named.
        reason: why not.
        instead: what to do.
    """

    name: str
    reader: Callable[[Keys, MeasuredHere], Meaning] | None
    keys: tuple[str, ...] = ()
    reason: str = ""
    instead: str = ""

    def meaning_of(self, keys: Keys, served: MeasuredHere) -> Meaning:
        """Return what a profile means.

        Raises:
            UserError: a key that there is not, that can't be honoured, or has a value that it can't have.
        """
        if self.reader is None:
            named = next((key for key in self.keys if key in keys), self.keys[0])
            raise keys.error(named, self.reason, self.instead)
        meaning = self.reader(keys, served)
        keys.finish()
        return meaning


HARNESSES = {
    harness.name: harness
    for harness in (
        LlmdHarness("inference-perf", inference_perf.meaning_of),
        LlmdHarness("guidellm", guidellm_scenario.meaning_of),
        LlmdHarness("vllm-benchmark", vllm_benchmark.meaning_of),
        LlmdHarness("nop", nop.meaning_of),
        LlmdHarness("inferencemax", vllm_benchmark.meaning_of),
        LlmdHarness(
            "aiperf",
            None,
            ("custom-dataset-type", "endpoint-type", "isl"),
            "flags of aiperf are not read here",
            "write the same load for vllm-benchmark: random-input-len, random-output-len, max-concurrency, num-prompts",
        ),
        LlmdHarness(
            "lm-eval",
            None,
            ("evaluation",),
            "asks how right answers are, and speed is measured here",
            "run lm-eval itself; a profile of inference-perf, guidellm or vllm-benchmark measures speed",
        ),
        LlmdHarness(
            "priority-mix",
            None,
            ("trafficClasses",),
            "classes of traffic differ in headers for priority, which are not sent here",
            "make a profile of one class, or run priority-mix itself",
        ),
        LlmdHarness(
            "eval-containers",
            None,
            ("benchmark",),
            "tasks of agents are judged by their result, and speed is measured here",
            "run eval-containers itself; a profile of inference-perf, guidellm or vllm-benchmark measures speed",
        ),
    )
}
"""By name."""
