"""What is in a message: its size, its fields and its distance to the one before, by hand."""

import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rollout_bench.modes.messages.contents import EXACT_BYTES, distance_between, message_of


@dataclass
class SchedulerOutput:
    scheduled_new_reqs: Any = field(default_factory=lambda: list(range(100)))
    num_scheduled_tokens: Any = field(default_factory=lambda: {"a": 1})


def pickled(message: Any) -> tuple[bytes, ...]:
    return (pickle.dumps(message, protocol=5),)


def test_a_message_has_its_size_its_fields_and_its_distance():
    first, second = SchedulerOutput(), SchedulerOutput(num_scheduled_tokens={"a": 2})
    one = message_of(pickled(first), None, pickled)
    other = message_of(pickled(second), pickled(first), pickled)
    assert one.size_bytes == other.size_bytes == len(pickled(first)[0])
    assert (one.distance, one.distance_by) == (None, None)
    assert (other.distance, other.distance_by) == (1, "levenshtein")
    assert one.fields == {
        "scheduled_new_reqs": len(pickled(list(range(100)))[0]),
        "num_scheduled_tokens": len(pickled({"a": 1})[0]),
    }
    assert one.make_s > 0
    assert one.read_s > 0


def test_long_messages_are_compared_by_common_runs():
    before = np.random.default_rng(0).bytes(EXACT_BYTES + 1)
    assert (distance_between(before, before), distance_between(before + b"0123456789", before)) == (
        (0, "runs"),
        (10, "runs"),
    )
    assert distance_between(before[:1000] + b"0123456789" + before[1000:], before) == (10, "runs")
