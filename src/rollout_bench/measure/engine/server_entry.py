"""The entry of a rollout's replica over HTTP: vLLM's own server, asked for one sequence at a time."""

from __future__ import annotations

import time

from rollout_bench.contracts.record import Drafting
from rollout_bench.measure.engine.entries import EntryPoint, Outcome, finite
from rollout_bench.measure.engine.vllm import imported, of_one_engine, tell_ready
from rollout_bench.measure.launch.protocol import Job, Tell
from rollout_bench.measure.routing.exchange import Generate
from rollout_bench.measure.server.server_metrics import drafted, risen
from rollout_bench.measure.server.session import Opened, check_answer, open_own, served_alone
from rollout_bench.measure.server.stream import RequestOutcome, ServingFailed, open_session, parsed


class ServerEntry(EntryPoint):
    """A completion for each sequence, as it comes; the answer comes whole, as a trainer asks for it.

    Args:
        opened: the server.
    """

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened.vocabulary)
        self._opened = opened
        self._session = open_session(opened.target.verify_tls)
        self._before = ""
        """What its metrics were as the step began; empty where it has none."""
        self._after: str | None = None
        """The same when it was over; None as long as nobody has asked."""

    async def generate(self, word: Generate) -> Outcome:
        """Return what comes of a sequence; raise `ServingFailed` where the server refuses it."""
        target = self._opened.target
        body = {**target.body, "model": target.model, "prompt": word.prompt_token_ids, "max_tokens": word.output_tokens}
        noted = RequestOutcome()  # in which the session notes when it was sent
        asked = self._session.post(
            f"{target.url}/completions",
            json=body,
            headers=target.headers,
            trace_request_ctx=noted,
        )
        async with asked as answer:
            text, status = await answer.text(), answer.status
        check_answer(status, text, target)
        content, back = parsed(text), time.monotonic()
        try:
            (choice,), counted = content["choices"], int(content["usage"]["prompt_tokens"])
            said = choice.get("logprobs")
            logprobs = None if said is None else finite(said["token_logprobs"])
            ids, reason = choice["token_ids"], choice["finish_reason"]
            return Outcome(ids, logprobs, reason, counted, None, sent=noted.sent_s, last_token=back)
        except (KeyError, TypeError, ValueError):
            cause = f"the server answers no completion: {target.quoted(text, 200)}"
            raise ServingFailed("request_refused", cause, "read the end of the log") from None

    async def reset(self) -> None:
        """Empty the prefix cache, before a step."""
        self._opened.check()
        with self._opened.between_passes():
            self._opened.reset()
            self._before, self._after = self._opened.connection.metrics(), None

    def preemptions(self) -> int | None:
        """Return by how much the server's own counter rose since the step began; None where it has none."""
        after = self._metrics_after()
        return risen(self._before, after, None).preemptions if self._before and after else None

    def drafting(self) -> Drafting | None:
        """Return by how much the server's own counters rose since the step began; None where it has none."""
        after = self._metrics_after()
        return drafted(self._before, after) if self._before and after else None

    def _metrics_after(self) -> str:
        """Return the metrics of the step that is over, asked for once."""
        if self._after is None:
            with self._opened.between_passes():
                self._after = self._opened.connection.metrics()
        return self._after


def open_server(job: Job, tell: Tell) -> ServerEntry:
    """Return the entry of a server of ours once it has answered, of which all is told."""
    spec = job.spec
    engine = spec.engine.model_copy(update={"args": of_one_engine(spec)})
    served = served_alone(spec.model_copy(update={"engine": engine}))
    opening = open_own(served, job.model)
    start = imported(tell)  # while the server does too
    opened = opening()
    told = (opened.facts, opened.device, opened.processes)
    entry = ServerEntry(opened)
    tell_ready(job, tell, start, time.perf_counter() - start.began, told, opened.world_size, entry.vocabulary)
    return entry
