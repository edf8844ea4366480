"""Whatever a server does, a request ends with an error in one short line, and costs no more than an answer may."""

import asyncio
import time

import pytest
from hostile_server import FIRST_KIND, KINDS, hostile_server

from rollout_bench.measure.server.paced import questions
from rollout_bench.measure.server.served import rows_of
from rollout_bench.measure.server.stream import LoadPass, Question, RequestOutcome, Target, open_session, send
from rollout_bench.workloads.requests import Request

KEY, API_KEY = "sk-never/to-be-seen-0815", "x-api-key-never-to-be-seen"
TOKENS = 8
MOST_BYTES = 20 << 20
"""More than a server gets rid of before a client has left, with what kernels hold for it."""

ERRORS = {
    "redirect": "307 Moved: it redirects to 127.0.0.1, and redirects are not followed",
    "redirect_get": "302 Moved: it redirects to 127.0.0.1, and redirects are not followed",
    "deep_json": "the answer had no tokens in it",
    "deep_error": '500 No: {"error":[{"a":',
    "negative_usage": "the server says completion_tokens: -7, where 0 to 8 can be",
    "claims_many": "the server says completion_tokens: 1000000000000, where 0 to 8 can be",
    "many_tokens": "9 tokens came where 8 were asked for at most",
    "endless_stream": "the answer is longer than",
    "endless_line": "the answer is longer than",
    "endless_error": "500 No: error error",
    "gzip_error": "500 No",
    "gzip_answer": "the answer is compressed (gzip), though that was not asked for",
    "long_head": "",
    "escapes": "500 No: \\x1b[31mred\\x1b]0;title\\x07 \\u202etxt.exe\\x9b2J",
    "echo": "429 No: xxx",
    "forged": None,
    "nested_ids": "the answer had no tokens in it",
}
"""By the kind of server, how the error of its request begins; None where there is none."""


def target(url: str) -> Target:
    headers = {"Authorization": f"Bearer {KEY}", "X-Api-Key": API_KEY}
    return Target(f"{url}/v1", "stub", headers, True, {"return_token_ids": True})


def sent_by_us(to: Target, asked: list[Question]) -> list[RequestOutcome]:
    """Return what becomes of `asked`, sent one after the other as we do."""
    outcomes = [RequestOutcome() for _ in asked]

    async def run() -> None:
        async with open_session(True) as session:
            for question, outcome in zip(asked, outcomes, strict=True):
                await send(session, f"{to.url}/completions", to.headers, question, outcome)
                to.settle(outcome)

    asyncio.run(run())
    return outcomes


def requests(kinds: list[str | None]) -> list[Request]:
    """Return requests that are answered by these kinds."""
    numbers = [1 if kind is None else FIRST_KIND + list(KINDS).index(kind) for kind in kinds]
    return [Request(i, 0, [number, i, 5], TOKENS) for i, number in enumerate(numbers)]


def check(kind: str, outcome: RequestOutcome) -> None:
    """Assert that `outcome` is what becomes of a request that is answered by `kind`."""
    begins = ERRORS[kind]
    assert (outcome.error is None) == (begins is None), outcome.error
    assert (outcome.error or "").startswith(begins or ""), outcome.error
    if outcome.error is not None:
        assert len(outcome.error) <= 300
        assert outcome.error.isprintable()
        assert not any(part in outcome.error for part in (KEY[:6], API_KEY[:6], "secret=path"))
    assert 0 <= outcome.output_tokens <= TOKENS + 1
    assert outcome.ended_s is not None


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_hostile_answer_fails_soon_and_the_next_request_succeeds(kind: str):
    with hostile_server() as server, hostile_server() as elsewhere:
        server.elsewhere = elsewhere.url
        to = target(server.url)
        asked = requests([kind, None])
        began_s = time.monotonic()
        bad, good = sent_by_us(to, questions(asked, [request.prompt_token_ids for request in asked], to))
        assert time.monotonic() - began_s < 50  # a server goes on for 60
        check(kind, bad)
        assert server.sent_bytes < MOST_BYTES
        assert (good.error, good.output_tokens) == (None, TOKENS)
        assert elsewhere.met == []
        rows_of(asked, LoadPass(began_s, 1.0, [bad, good], None, []), 0)  # type: ignore[arg-type]
