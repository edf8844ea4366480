"""Requests sent through vLLM's own benchmark, against a stub whose pace and faults are known."""

from __future__ import annotations

import functools
import inspect
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from stub_server import running_stub

from rollout_bench.measure.server.stream import LoadPass, ServingFailed, Target
from rollout_bench.workloads.requests import Request

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

PROMPT = [100, 200, 300, 400]
ATTEMPTS = 5
"""Another process may take the cores for a moment, but hardly in every attempt; times that are wrong stay so."""

Send = Callable[..., LoadPass]


@pytest.fixture(autouse=True, scope="module")
def vllm() -> Iterator[None]:
    """Yield imports vLLM, whose own warnings are no concern of these tests."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("VLLM_TARGET_DEVICE", "cpu")
        warnings.simplefilter("ignore")
        import vllm.benchmarks.serve  # noqa: F401

        yield


@pytest.fixture
def send(tmp_path: Path) -> Iterator[Send]:
    """Start a stub with the given options and send it a pass of requests of the given output lengths."""
    from rollout_bench.measure.server.vllm_bench import prepare

    with ExitStack() as running:

        def sent(
            *options: str,
            lengths: Sequence[int] = (8,) * 6,
            due_s: Sequence[float] | None = None,
            concurrency: int | None = None,
            stream: bool = True,
            headers: dict[str, str] | None = None,
            token_ids: bool = True,
            env: dict[str, str] | None = None,
        ) -> LoadPass:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            url = running.enter_context(running_stub(folder, *options, env=env))
            body = {"temperature": 1.0, **({"return_token_ids": True} if token_ids else {})}
            target = Target(f"{url}/v1", "stub", headers or {}, True, stream, body)
            asked = [Request(number, 0, PROMPT, length) for number, length in enumerate(lengths)]
            return prepare(asked, [PROMPT] * len(asked), due_s, concurrency, target)()

        yield sent


def test_tokens_and_times_are_those_that_the_stub_sent(send: Send) -> None:
    def in_time() -> bool:
        done = send("--ttft-ms", "60", "--itl-ms", "20", lengths=(8, 4, 1, 16))
        assert [outcome.output_tokens for outcome in done.outcomes] == [8, 4, 1, 16]
        assert [outcome.finish_reason for outcome in done.outcomes] == ["length"] * 4
        medians = []
        for outcome in done.outcomes:
            assert outcome.error is None
            assert outcome.counted
            assert outcome.prompt_tokens == len(PROMPT)
            assert outcome.sent_s is not None
            assert outcome.pieces_s[0] - outcome.sent_s >= 0.06
            gaps = [b - a for a, b in pairwise(outcome.pieces_s)]
            medians += [statistics.median(gaps)] if gaps else []
        assert done.client.loop_delay_max_s is not None
        lasted = pytest.approx(0.06 + 15 * 0.02, abs=0.25)
        return medians == pytest.approx([0.02] * 3, abs=0.01) and done.elapsed_s == lasted

    assert any(in_time() for _ in range(ATTEMPTS))


def test_a_piece_of_several_tokens_counts_as_so_many(send: Send) -> None:
    done = send("--tokens-per-chunk", "3", lengths=(7,))
    assert done.outcomes[0].piece_tokens == [3, 3, 1]
    assert done.outcomes[0].output_tokens == 7


def test_no_more_requests_are_under_way_than_the_concurrency_says(send: Send) -> None:
    done = send("--ttft-ms", "30", "--itl-ms", "5", lengths=(4,) * 9, concurrency=3)
    spans = sorted((o.sent_s or 0.0, o.ended_s or 0.0) for o in done.outcomes)
    for start, _ in spans:
        assert sum(other <= start < end for other, end in spans) <= 3
    assert done.elapsed_s >= 3 * 0.045


def test_requests_are_sent_when_they_are_due(send: Send) -> None:
    due_s = [0.0, 0.1, 0.15, 0.4]

    def worst_s() -> float:
        """Return how late a request was sent at most, and how far off its distance from the first one.

        None may be early.
        """
        done = send("--ttft-ms", "300", lengths=(2,) * 4, due_s=due_s)
        first = done.outcomes[0].sent_s or 0.0
        off_s = []
        for outcome, due in zip(done.outcomes, due_s, strict=True):
            assert outcome.sent_s is not None
            assert outcome.due_s is not None
            assert outcome.sent_s >= outcome.due_s
            assert outcome.due_s - done.began_s == pytest.approx(due)
            off_s += [outcome.sent_s - outcome.due_s, abs(outcome.sent_s - first - due)]
        return max(off_s)

    assert any(worst_s() < 0.1 for _ in range(ATTEMPTS))


def test_a_vllm_that_can_t_send_at_given_times_sends_at_them_all_the_same(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.benchmarks import serve

    newer = serve.benchmark
    names = [name for name in inspect.signature(newer).parameters if name != "self_timed"]
    older = functools.partial(newer, self_timed=False)
    older.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    monkeypatch.setattr(serve, "benchmark", older)
    due_s = [0.0, 0.1, 0.15, 0.4]

    def sent_s() -> list[float]:
        done = send("--ttft-ms", "20", lengths=(2,) * 4, due_s=due_s)
        return [(outcome.sent_s or 0.0) - done.began_s for outcome in done.outcomes]

    assert any(sent_s() == pytest.approx(due_s, abs=0.05) for _ in range(ATTEMPTS))
    with pytest.raises(ServingFailed, match="concurrency"):
        send(lengths=(2,) * 4, due_s=due_s, concurrency=2)


def test_an_answer_in_one_piece_has_an_end_and_no_first_token(send: Send) -> None:
    done = send("--ttft-ms", "40", "--itl-ms", "5", lengths=(4,), stream=False)
    outcome = done.outcomes[0]
    assert (outcome.error, outcome.output_tokens, outcome.streamed) == (None, 4, False)
    assert len(outcome.pieces_s) == 1


def test_without_token_ids_the_server_s_own_count_is_taken(send: Send) -> None:
    done = send(lengths=(5,), token_ids=False)
    assert (done.outcomes[0].counted, done.outcomes[0].output_tokens) == (False, 5)
    assert done.outcomes[0].prompt_tokens == len(PROMPT)


@pytest.mark.parametrize("status", [429, 500])
def test_a_refused_request_is_a_failure_and_no_fast_one(send: Send, status: int) -> None:
    done = send("--status", str(status), "--status-share", "0.5", lengths=(3,) * 8)
    failed = [outcome for outcome in done.outcomes if outcome.error is not None]
    assert len(failed) == 4
    assert {outcome.status for outcome in failed} == {status}
    assert all(str(status) in (outcome.error or "") and not outcome.pieces_s for outcome in failed)
    assert {outcome.output_tokens for outcome in done.outcomes if outcome.error is None} == {3}


def test_an_answer_that_breaks_off_is_a_failure(send: Send) -> None:
    done = send("--close-after", "3", "--close-share", "0.5", lengths=(8,) * 4)
    failed = [outcome for outcome in done.outcomes if outcome.error is not None]
    assert len(failed) == 2
    assert all(outcome.output_tokens == 3 and outcome.finish_reason is None for outcome in failed)


def test_a_missing_key_is_told_and_a_given_one_is_sent(send: Send) -> None:
    env = {"STUB_KEY": "sk-stub"}
    refused = send("--api-key-env", "STUB_KEY", lengths=(2,), env=env).outcomes[0]
    assert refused.status == 401
    assert refused.error
    given = {"Authorization": "Bearer sk-stub"}
    assert send("--api-key-env", "STUB_KEY", lengths=(2,), headers=given, env=env).outcomes[0].error is None


def test_nobody_there_is_an_error_of_each_request(tmp_path: Path) -> None:
    from rollout_bench.measure.server.vllm_bench import prepare

    with running_stub(tmp_path) as url:
        pass
    target = Target(f"{url}/v1", "stub", {}, True, True, {})
    done = prepare([Request(0, 0, PROMPT, 2)], [PROMPT], None, None, target)()
    assert done.outcomes[0].status is None
    assert "connect" in (done.outcomes[0].error or "").lower()


def test_what_the_client_saw_is_what_the_stub_did(tmp_path: Path) -> None:
    """By the stub's own clock; the bound is generous here and sharp in benchmarks/load_generator.py."""
    from rollout_bench.measure.server.vllm_bench import prepare

    with running_stub(tmp_path, "--ttft-ms", "100", "--itl-ms", "50") as url:
        target = Target(f"{url}/v1", "stub", {}, True, True, {"return_token_ids": True})
        asked = [Request(number, 0, PROMPT, 6) for number in range(100)]

        def late_s() -> float:
            """Return the median of how late the client saw chunks; none may be early."""
            httpx.delete(f"{url}/truth")
            done = prepare(asked, [PROMPT] * 100, None, None, target)()
            told = httpx.get(f"{url}/truth").json()["requests"]
            truth = {entry["request_id"].rpartition("-")[2]: entry for entry in told}
            late = [
                seen - sent
                for number, outcome in enumerate(done.outcomes)
                for seen, sent in zip(outcome.pieces_s, truth[str(number)]["chunks_s"], strict=True)
            ]
            assert min(late) >= 0
            return statistics.median(late)

        assert any(late_s() < 0.05 for _ in range(ATTEMPTS))
