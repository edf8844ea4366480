"""The harnesses of llm-d-benchmark: what reads the profiles of each, or why nobody does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rollout_bench.contracts.load import LoadPoint, Normal, Traffic
from rollout_bench.contracts.spec import Workload
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
        return _as_far_as_sent(meaning, keys)


LACKING = {
    name
    for name, model in (
        ("pool", Workload),
        ("outside", Normal),
        ("api", Traffic),
        ("request_timeout_s", Traffic),
        ("requests", LoadPoint),
        ("duration_s", LoadPoint),
    )
    if name not in model.model_fields
}
"""What profiles ask for, and workloads of this version can't have."""


def _as_far_as_sent(meaning: Meaning, keys: Keys) -> Meaning:
    """Return a meaning without what changes nothing of it and is `LACKING`; raise `UserError` for what is missed."""
    load, points = meaning.workload, meaning.online.get("stages") or [meaning.online]
    if "api" in meaning.online and "api" in LACKING:
        raise keys.error("api", "asks for chats, and requests are completions here", "write the API of completions")
    if "duration_s" in LACKING and any("duration_s" in point for point in points):
        raise keys.error("load", "ends by time, and loads end by number here", "give it a number of requests")
    if "pool" in LACKING and load.pop("pool", load.get("prompts", 1)) < load.get("prompts", 1):
        raise keys.error("data", "sends a prompt twice, which is not done here", "raise how many prompts it has")
    if "requests" in LACKING and any("requests" in point for point in points):
        raise keys.error("load", "has stages that send different numbers of requests", "give all of them one number")
    if "request_timeout_s" in LACKING and meaning.online.pop("request_timeout_s", None):
        meaning.notes.append("no request is cut by request_timeout; slo: {e2el_ms: ...} counts those that take longer")
    if "outside" in LACKING:
        for length in (load.get("prompt_tokens"), load.get("output_tokens")):
            if isinstance(length, dict) and length.pop("outside", None):
                meaning.notes.append("lengths outside the bounds are drawn again, where the harness clips them")
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
