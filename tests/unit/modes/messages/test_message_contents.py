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
    assert [(each.distance, each.distance_by) for each in (one, other)] == [(None, None), (1, "levenshtein")]
    sizes = {name: len(pickled(value)[0]) for name, value in vars(first).items()}
    assert one.fields == sizes
    assert min(one.make_s, one.read_s) > 0


def test_long_messages_are_compared_by_common_runs():
    before = np.random.default_rng(0).bytes(EXACT_BYTES + 1)
    longer = [before, before + b"0123456789", before[:1000] + b"0123456789" + before[1000:]]
    assert [distance_between(after, before) for after in longer] == [(0, "runs"), (10, "runs"), (10, "runs")]
