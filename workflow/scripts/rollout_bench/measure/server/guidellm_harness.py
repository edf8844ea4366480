"""Requests sent by guidellm: its scheduler, its worker processes and its HTTP client, but our requests and times.

Every request is sent exactly once. guidellm's own data sets, tokenizers, reports and command line are not used.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence

from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.stream import LoadPass, ServingFailed, Target
from rollout_bench.measure.server.vllm_bench import questions
from rollout_bench.workloads.requests import Request

# Importing guidellm puts uvloop into this process for good; its worker processes see to that themselves.
_policy = asyncio.get_event_loop_policy()
from rollout_bench.measure.server.guidellm import Driven, drive  # noqa: E402

asyncio.set_event_loop_policy(_policy)

CLOCK_TOLERANCE_S = 1e-3


def prepare(
    requests: Sequence[Request],
    prompts: Sequence[list[int] | str],
    due_s: Sequence[float] | None,
    concurrency: int | None,
    target: Target,
) -> Callable[[], LoadPass]:
    """Makes what is needed to send all `requests`; what is returned sends them and waits for the answers.

    Args:
        requests: what is asked for.
        prompts: the prompt of each, as token ids or text.
        due_s: when each is to be sent, in seconds after the beginning; None: all as soon as possible.
        concurrency: how many may be under way at once; None: any number.
        target: where they go.
    """
    contents = questions(requests, prompts, target)

    def run() -> LoadPass:
        """Raises `ServingFailed` where guidellm failed, or the wall clock was set during the pass."""
        offset_s = time.time() - time.monotonic()
        driven = asyncio.run(drive(contents, due_s, concurrency, target))
        # guidellm takes times from the wall clock. Where that was set in the meantime they are worthless.
        if abs(time.time() - time.monotonic() - offset_s) > CLOCK_TOLERANCE_S:
            raise ServingFailed(
                "load_generator",
                "the wall clock was set during the pass, which guidellm's times depend on",
                "run again, or set harness: vllm",
            )
        return _pass_of(driven, due_s, len(contents))

    gc.collect()
    return run


def _pass_of(driven: Driven, due_s: Sequence[float] | None, count: int) -> LoadPass:
    outcomes = [driven.outcomes[number] for number in range(count)]
    for outcome, due in zip(outcomes, due_s or [], strict=False):
        outcome.due_s = driven.began_s + due
    ended_s = max((outcome.ended_s for outcome in outcomes if outcome.ended_s is not None), default=driven.began_s)
    used = ClientUse(cpu_share=max(driven.cpu_s, 0.0) / max(driven.measured_s, 1e-9))
    return LoadPass(driven.began_s, max(ended_s - driven.began_s, 1e-9), outcomes, used)
