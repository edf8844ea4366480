"""The harnesses of llm-d-benchmark: the reader of each harness's profiles, or the reason why there is none."""

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
        name: the harness's name in llm-d-benchmark, and the name of its folder of profiles.
        reader: function that makes a workload from a profile's keys; None if the harness is not supported.
        keys: typical keys of an unsupported harness; the error names the first of these keys in the file.
        reason: why the harness is not supported.
        instead: what the user can do instead.
    """

    name: str
    reader: Callable[[Keys, MeasuredHere], Meaning] | None
    keys: tuple[str, ...] = ()
    reason: str = ""
    instead: str = ""

    def meaning_of(self, keys: Keys, served: MeasuredHere) -> Meaning:
        """Return the workload of a profile.

        Raises:
            UserError: if the harness is unsupported, or a key is unknown, unsupported or has an invalid value.
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
"""Name -> harness."""
