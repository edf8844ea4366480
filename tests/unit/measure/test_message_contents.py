"""What is in a message: distances and differences by hand, fields that sum up, and ends of links that must fit."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from rollout_bench.measure.engine.message_contents import (
    Contents,
    fields_of,
    pickled_size,
)
from rollout_bench.measure.engine.message_rows import NotedPass, rows_of, steps_of
from rollout_bench.measure.probes.message_notes import Noted
from rollout_bench.measure.server.stream import ServingFailed


@dataclass
class NewRequestData:
    req_id: str = "a"
    prompt_token_ids: Any = field(default_factory=lambda: list(range(100)))
    sampling_params: Any = "parameters"
    block_ids: Any = ((1, 2),)


@dataclass
class CachedRequestData:
    req_ids: list[str] = field(default_factory=lambda: ["b", "c"])
    new_block_ids: Any = field(default_factory=lambda: [None, ((70000,),)])


@dataclass
class SchedulerOutput:
    """Named as vLLM's: what is emptied goes by the name."""

    scheduled_new_reqs: Any = field(default_factory=lambda: [NewRequestData()])
    scheduled_cached_reqs: Any = field(default_factory=CachedRequestData)


def test_fields_sum_up_to_the_message_and_leave_it_unchanged():
    message = ("execute_model", (SchedulerOutput(),), {}, 0)
    whole = pickle.dumps(message, protocol=5)
    found = fields_of(message, pickled_size)
    assert sum(found.values()) == len(whole)
    assert pickle.dumps(message, protocol=5) == whole
    assert found["prompt_token_ids"] == 2 * 100 + 4 - 1  # two bytes each, a list's marks, and None instead
    assert all(found[name] > 0 for name in ("sampling_parameters", "block_ids", "new_requests", "cached_requests"))
    assert fields_of(("sample_tokens", (None,), {}, 0), pickled_size).keys() == {"rest"}


def test_a_message_is_compared_with_its_predecessor_of_that_kind():
    contents = Contents()

    def look(method: str, value: str, rank: int = 0) -> Any:
        return contents.of((pickle.dumps(value, protocol=5),), False, "workers_to_core", rank, method)

    first = look("execute_model", "a long enough answer")
    look("sample_tokens", "something that is very different")
    look("execute_model", "and so is what this worker says", rank=1)
    again = look("execute_model", "a long enough answer")
    assert (first.distance, first.difference, first.repeated_bytes) == (None, None, None)
    assert (again.distance, again.repeated_bytes) == (0, again.inline_bytes)
    assert again.difference is not None
    assert again.difference.size_bytes < again.inline_bytes
    assert again.formats["pickle5"].size_bytes == again.inline_bytes == again.fields["rest"]
    assert (again.through, look("execute_model", "x").out_of_band_bytes) == ("ring", 0)


CALLS = [("begin", None, None), ("execute_model", 0, 0), ("sample_tokens", 0, 0), ("end", None, None)]


def noted_pass(**changes: Any) -> NotedPass:
    """Return a pass of one step and one worker, a microsecond between two moments.

    `changes` are laid over its parts.
    """

    def end(name: str, writes: bool, tags: list[Any], at: int, size: int = -1, first: int = 5) -> Noted:
        times = [at + 100_000 * place for place in range(len(tags))]
        rows = [(first + place, t, t + 1000, t + 2000, size) for place, t in enumerate(times)]
        return Noted(name, writes, rows, tags, 0, None, set())

    parts = {
        "calls": end("q", True, CALLS, 0),
        "called": end("q", False, [None] * 4, 2000),
        "answers": end("r", True, [None] * 4, 10_000, first=9),
        "answered": end("r", False, [None] * 4, 12_000, first=9),
        "asked": end("front_end_to_core", True, ["x"], 0, 50),
        "taken": end("front_end_to_core", False, ["x"], 5000, 50),
        "outputs": end("core_to_front_end", True, [(1.5, 0)], 400_000, 60),
        "received": end("core_to_front_end", False, [1.5], 405_000, 60),
        **changes,
    }
    step = {"began": 50_000, "ended": 350_000, "tokens": 4, "sequences": 1, "new_requests": 1}
    step |= {"new_prompt_tokens": 4, "requests": ["x"], "prefill": 1}
    core = {"noted": [parts[n] for n in ("calls", "answered", "taken", "outputs")], "steps": [step]}
    front_end = {"noted": [parts["asked"], parts["received"]]}
    return NotedPass("times", 1, 0, front_end, core, [{"noted": [parts["called"], parts["answers"]]}])


def test_messages_are_matched_and_those_of_no_step_left_out():
    noted = noted_pass()
    rows = rows_of(noted, None)
    assert [(row.link, row.method, row.step, row.rank) for row in rows] == [
        ("front_end_to_core", "add", 0, None),
        ("core_to_workers", "execute_model", 0, None),
        ("core_to_workers", "sample_tokens", 0, None),
        ("workers_to_core", "execute_model", 0, 0),
        ("workers_to_core", "sample_tokens", 0, 0),
        ("core_to_front_end", "outputs", 0, None),
    ]
    call = rows[1]
    assert call.reads is not None
    assert (call.encode_s, call.reads[0].rank) == (pytest.approx(1e-6), 0)
    assert call.reads[0].transport_s == pytest.approx(2e-6)  # encoded at 1000, got at 3000
    assert call.reads[0].waited_s == pytest.approx(1e-6)  # but asked for only at 2000
    assert call.busy_s() == pytest.approx(1e-6 + 1e-6 + 1e-6)
    assert rows[0].reads is not None
    assert (rows[0].reads[0].transport_s, rows[0].reads[0].waited_s) == (pytest.approx(5e-6), 0)
    (step,) = steps_of(noted)
    assert (step.phase, step.elapsed_s, step.latency_s) == ("prefill", pytest.approx(3e-4), pytest.approx(3e-4))
    assert noted.calls() == {"put_s": 8, "got_s": 8, "encode_s": 2, "decode_s": 2, "step_s": 1}


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("answered", {"rows": []}, "gave 0 answers to 4 calls"),
        ("called", {"rows": []}, "worker 0 never got one of execute_model"),
        ("answers", {"rows": [(90, 1, 2, 3, -1)]}, "never put an answer"),
        ("received", {"tags": [9.9]}, "one of 60 bytes from core to front end never came"),
        ("taken", {"rows": [(5, 5000, 6000, 7000, 51)]}, "has 50 bytes, and 51 where it was read"),
        ("calls", {"dropped": 3}, "3 messages were not noted for want of room"),
        ("called", {"rows": [(n, 0, 1, 2, -1) for n in range(5, 9)]}, "before it was encoded"),
    ],
)
def test_ends_that_do_not_fit_are_a_failure(part: str, change: dict[str, Any], says: str):
    whole = noted_pass()
    ends = {e.name + str(e.writes): e for p in (whole.front_end, whole.core, *whole.workers) for e in p["noted"]}
    names = {"answered": "rFalse", "called": "qFalse", "answers": "rTrue", "calls": "qTrue"}
    names |= {"received": "core_to_front_endFalse", "taken": "front_end_to_coreFalse"}
    broken = Noted(**{**ends[names[part]].__dict__, **change})
    with pytest.raises(ServingFailed) as raised:
        rows_of(noted_pass(**{part: broken}), None)
    assert raised.value.category == "messages_unmatched"
    assert says in raised.value.cause
