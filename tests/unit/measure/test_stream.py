"""What is read from an answer, however it is cut into pieces, and what of it is no answer at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.measure.server.stream import Answer, Question, RequestOutcome, Target


def event(ids: list[int] | None, finish: str | None = None, text: str = "", **more: Any) -> str:
    choice = {"index": 0, "text": text, "finish_reason": finish, "token_ids": ids, **more}
    return f"data: {json.dumps({'choices': [choice]})}"


def read(*lines: str) -> RequestOutcome:
    outcome = RequestOutcome()
    answer = Answer(Question(b"x" * 100, 100), outcome)
    for number, line in enumerate(lines):
        answer.take(line.encode(), float(number))
    answer.end()
    return outcome


@given(st.lists(st.lists(st.integers(0, 200_000), min_size=1, max_size=5), min_size=1, max_size=8))
def test_tokens_are_counted_from_their_ids_piece_by_piece(pieces: list[list[int]]):
    events = [event(ids, "length" if number == len(pieces) - 1 else None) for number, ids in enumerate(pieces)]
    outcome = read(*events, "data: [DONE]")
    assert outcome.error is None
    assert outcome.piece_tokens == [len(ids) for ids in pieces]
    assert outcome.output_tokens == sum(len(ids) for ids in pieces)
    assert outcome.pieces_s == [float(number) for number in range(len(pieces))]


def test_text_resembling_token_ids_is_not_counted_as_such():
    outcome = read(event(None, text='"token_ids": [1, 2, 3]'), event(None, "stop", text=""))
    assert (outcome.counted, len(outcome.pieces_s)) == (False, 1)


def test_the_last_empty_choice_gives_the_count_but_no_token():
    last = 'data: {"choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 7}}'
    outcome = read(event(None, text="a"), event(None, text="b"), last)
    assert (outcome.error, len(outcome.pieces_s), outcome.output_tokens) == (None, 2, 7)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([event([1])], "broke off"),
        ([event([], "length"), "data: [DONE]"], "no tokens"),
        ([event([1]), event([2], "abort")], "finish_reason abort"),
        ([event([1]), 'data: {"error": {"message": "engine died", "code": 500}}'], "engine died"),
        ([event([1, 2], "stop"), 'data: {"choices": [], "usage": {"completion_tokens": 3}}'], "the server says 3"),
        ([event(None, text="a") for _ in range(101)] + [event(None, "stop")], "101 tokens came where 100 were"),
        ([event([1], "stop", prompt_token_ids=[1] * 101)], "101 prompt tokens came back of a request of 100 bytes"),
    ],
    ids=["cut", "empty", "abort", "error", "counts_differ", "too_many", "prompt"],
)
def test_an_answer_that_is_none_is_a_failure(lines: list[str], words: str):
    outcome = read(*lines)
    assert words in (outcome.error or "")


@pytest.mark.parametrize("usage", ["null", '"none"', "[]", "3"])
def test_a_usage_that_is_none_is_no_failure(usage: str):
    outcome = read(event([1, 2], "length"), f'data: {{"choices": [], "error": null, "usage": {usage}}}', "data: [DONE]")
    assert (outcome.error, outcome.output_tokens) == (None, 2)


def test_a_key_that_a_server_quotes_is_struck_out():
    target = Target("http://x/v1", "m", {"Authorization": "Bearer sk-secret-1234"}, True, {})
    assert target.quoted("401: key sk-secret-1234 is wrong") == "401: key *** is wrong"
    assert "sk-secret" not in repr(target)
