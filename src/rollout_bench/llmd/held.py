"""Loads that a profile holds for a time, or for a number of requests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.llmd.keys import Meaning
from rollout_bench.llmd.lengths import middle_of, plain

EXPECTED_STEP_S = 0.01
"""Minimum expected seconds for an output token, which gives the number of prompts for a closed loop by duration."""

MOST_PROMPT_TOKENS = 4_000_000
"""Maximum tokens of all prompts for a closed loop by duration. After the last prompt, the loop repeats them."""


@dataclass(frozen=True)
class HeldLoad:
    """A load that a profile holds for a time, or for a number of requests.

    Attributes:
        rate: requests per second; None: the concurrency alone limits requests.
        concurrency: maximum simultaneous requests; None: no limit.
        duration_s: duration of the load in seconds; None if the number of requests limits it.
        requests: number of requests; None if the duration limits the load.
    """

    rate: float | None = None
    concurrency: int | None = None
    duration_s: float | None = None
    requests: int | None = None

    def sent(self, prompt_tokens: float, output_tokens: float) -> int:
        """Return the number of requests; for a closed loop by duration, the estimated number of prompts it needs."""
        if self.requests is not None:
            return self.requests
        assert self.duration_s is not None, "a stage has an end"
        if self.rate is not None:
            return max(1, round(self.rate * self.duration_s))
        users = self.concurrency or 1
        most = max(users, int(MOST_PROMPT_TOKENS / prompt_tokens))
        return min(most, math.ceil(users * max(1.0, self.duration_s / (output_tokens * EXPECTED_STEP_S))))


def write_arrivals(meaning: Meaning, stages: Sequence[HeldLoad]) -> None:
    """Write the arrival of requests and the number of prompts into `meaning`.

    Args:
        meaning: settings to change, which must have prompt and output lengths already.
        stages: the loads in order, at least one.
    """
    known = {"prompt_tokens": 1, "output_tokens": 1, **meaning.otherwise, **meaning.workload}  # not of a trace
    prompt, output = (middle_of(known[key]) for key in ("prompt_tokens", "output_tokens"))
    turns = middle_of(meaning.workload["turns"]["count"]) if "turns" in meaning.workload else 1.0
    prompt, output = prompt * turns, output * turns
    most = max(stage.sent(prompt, output) for stage in stages)
    if all(stage.requests is None for stage in stages):
        most = max(meaning.workload.get("shared_prefix", {}).get("groups", 1), most)
    # In a closed loop by duration, the server's speed decides how many prompts are sent.
    is_open = any(stage.requests is not None or stage.rate is not None for stage in stages)
    counts_turns = "conversations" in meaning.online  # of conversations whose number is in the profile
    if not counts_turns:
        (meaning.workload if is_open else meaning.otherwise)["prompts"] = most
    users, rates = [stage.concurrency for stage in stages], [plain(stage.rate) or "inf" for stage in stages]
    seconds, counted = [plain(stage.duration_s) for stage in stages], [stage.requests for stage in stages]
    by_rate, several = any(stage.rate for stage in stages), len(stages) > 1
    online = {
        "concurrency": users if several and (any(users) or not by_rate) else users[0],
        "request_rate": None if not by_rate else rates if several else rates[0],
        "duration_s": seconds if len(set(seconds)) > 1 else seconds[0],
        "requests": counted if len(set(counted)) > 1 else counted[0] if counts_turns else None,
    }
    meaning.online |= {key: value for key, value in online.items() if value is not None}
