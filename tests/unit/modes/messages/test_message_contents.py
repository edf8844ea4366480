"""What is in a message: its size, its fields and its distance to the one before, by hand."""

import pickle
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from rollout_bench.modes.messages.contents import EXACT_BYTES, distance_between, message_of, values_in


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


def test_formats_without_names_or_with_changes_only_have_fewer_bytes():
    first, second = SchedulerOutput(), SchedulerOutput(num_scheduled_tokens={"a": 2})
    found = message_of(pickled(second), pickled(first), pickled, lambda it: [msgspec.msgpack.encode(it)])
    sizes = {name: cost.size_bytes for name, cost in found.formats.items()}
    values = [list(range(100)), {"a": 2}]
    assert sizes == {
        "pickle_values": len(pickle.dumps(values, protocol=5)),
        "msgpack_values": len(msgspec.msgpack.encode(values)),
        "msgpack_vllm": len(msgspec.msgpack.encode(second)),
        "pickle_changes": len(pickle.dumps({"num_scheduled_tokens": {"a": 2}}, protocol=5)),
    }
    assert all(cost.coding_s > 0 for cost in found.formats.values())
    assert "pickle_changes" not in message_of(pickled(first), None, pickled).formats


def test_values_are_found_in_dataclasses_structs_and_collections():
    class Sampling(msgspec.Struct):
        temperature: float
        stop: tuple[str, ...]

    nested = SchedulerOutput(scheduled_new_reqs=[Sampling(0.8, ("a", "b"))], num_scheduled_tokens={"x": {3}})
    assert values_in(nested) == [[[0.8, ["a", "b"]]], {"x": [3]}]


def test_long_messages_are_compared_by_common_runs():
    before = np.random.default_rng(0).bytes(EXACT_BYTES + 1)
    longer = [before, before + b"0123456789", before[:1000] + b"0123456789" + before[1000:]]
    assert [distance_between(after, before) for after in longer] == [(0, "runs"), (10, "runs"), (10, "runs")]
