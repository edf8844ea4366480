"""Probes on vLLM's own queue and encoders, without an engine: a message is noted once, at both ends, as it was sent."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zmq
from queue_reader import serve

from rollout_bench.measure.probes.message_notes import HERE, Ending, Noted, costs, parts_of, size_of

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True, scope="module")
def vllm() -> None:
    """Import vLLM, which takes long, for these tests and not wherever they are collected; without its own warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rollout_bench.measure.probes.message_probes  # noqa: F401


MIB = 1 << 20

MESSAGES = [b"small", list(range(2000)), np.arange(MIB, dtype=np.uint8), np.arange(5 * MIB, dtype=np.uint8)]
"""Small, larger, with a buffer beside it (vLLM takes those of a MiB and more out of the pickle), and too large."""


class Sent:
    """What was put into a queue, as its two ends tell, and as the ring and the socket themselves have it."""

    def __init__(self) -> None:
        from rollout_bench.measure.probes.message_probes import NotedQueue

        context = multiprocessing.get_context("spawn")
        queue = NotedQueue(1, 1, max_chunk_bytes=3 * MIB, max_chunks=8)
        ours, theirs = context.Pipe()
        reader = context.Process(target=serve, args=(queue.export_handle(), len(MESSAGES), theirs))
        reader.start()
        queue.wait_until_ready()
        spy = zmq.Context.instance().socket(zmq.SUB)
        spy.setsockopt(zmq.SUBSCRIBE, b"")
        spy.connect(queue.handle.local_subscribe_addr)
        queue.local_socket.recv()  # the spy's subscription
        queue.enqueue("before")
        queue.ending.begin("contents", len(MESSAGES))
        self.slots = []
        for message in MESSAGES:
            place = queue.current_idx
            queue.enqueue(message)
            with queue.buffer.get_data(place) as slot:
                self.slots.append(None if slot[0] else parts_of(slot))
        self.spied = tuple(spy.recv_multipart())
        self.writer: Noted = queue.ending.end()
        assert ours.poll(60)
        self.got, self.reader = ours.recv()
        ours.send("end")
        reader.join(120)
        spy.close(linger=0)


@pytest.fixture(scope="module")
def sent(vllm: None) -> Iterator[Sent]:
    before = list(HERE.endings)
    yield Sent()
    HERE.endings[:] = before


def test_the_reader_gets_what_was_put(sent: Sent):
    assert sent.got == ["before", *map(len, MESSAGES)]


def test_kept_bytes_are_those_of_the_ring_and_the_socket(sent: Sent):
    assert sent.writer.sent is not None
    assert sent.writer.sent[:3] == sent.slots[:3]
    assert sent.slots[3] is None
    assert sent.writer.sent[3] == sent.spied
    assert sent.writer.through_socket == {3}
    assert [len(wire) for wire in sent.writer.sent] == [1, 1, 2, 2]
    assert [pickle.loads(wire[0], buffers=wire[1:])[-1] for wire in sent.writer.sent[1:]] == [1999, 255, 255]


def test_both_ends_count_alike_from_the_first_message_on(sent: Sent):
    numbers = [row[0] for row in sent.writer.rows]
    assert numbers == [row[0] for row in sent.reader.rows] == [1, 2, 3, 4]
    assert sent.writer.name == sent.reader.name
    assert (sent.writer.writes, sent.reader.writes) == (True, False)


def test_a_message_is_encoded_then_there_then_decoded(sent: Sent):
    for (_, began, encoded, put, _), (_, asked, got, decoded, _) in zip(
        sent.writer.rows, sent.reader.rows, strict=True
    ):
        assert began < encoded < put
        assert encoded < got < decoded
        assert asked < got
    took = [decoded - got for _, _, got, decoded, _ in sent.reader.rows]
    assert took[0] < min(took[1:])  # five bytes are read sooner than two thousand numbers


def test_a_message_over_a_socket_is_noted_with_its_bytes():
    from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs

    from rollout_bench.measure.probes.message_probes import CoreEncoder, FrontEndDecoder

    encoder, decoder = CoreEncoder(), FrontEndDecoder(EngineCoreOutputs)
    decoder.ending = Ending("core_to_front_end", writes=False)
    outputs = EngineCoreOutputs(outputs=[EngineCoreOutput("a", [7, 8])])
    encoder.encode_into(outputs, bytearray())
    encoder.ending.begin("contents", 4)
    decoder.ending.begin("times", 4)
    parts = encoder.encode_into(outputs, bytearray())
    assert decoder.decode(parts).outputs[0].new_token_ids == [7, 8]
    wrote, read = encoder.ending.end(), decoder.ending.end()
    HERE.endings.remove(encoder.ending)
    assert wrote.sent == [tuple(bytes(part) for part in parts)]
    assert wrote.rows[0][4] == read.rows[0][4] == size_of(parts) == len(parts[0])
    assert wrote.rows[0][0] == 0
    assert wrote.tags == [(outputs.timestamp, None)]
    assert read.tags == [outputs.timestamp]


def test_nothing_is_noted_before_a_pass_and_after_it():
    ending = Ending("queue", writes=True)
    ending.begin("times", 2)
    for _ in range(3):
        ending.note(1, 2, 3, -1, None)
    noted = ending.end()
    assert ([row[0] for row in noted.rows], noted.dropped) == ([0, 1], 1)
    assert not ending.noting
    assert ending.number == 3


def test_only_steps_with_tokens_count_and_outputs_know_theirs():
    from rollout_bench.measure.probes.message_probes import STEPS, noting

    class Bare:
        def schedule(self, tokens: int) -> Any:
            new = SimpleNamespace(req_id="a", prompt_token_ids=[1, 2, 3])
            cached = SimpleNamespace(num_output_tokens=[0, 5])
            return SimpleNamespace(
                total_num_scheduled_tokens=tokens,
                num_scheduled_tokens={"a": 3, "b": 2, "c": 1},
                scheduled_new_reqs=[new],
                scheduled_cached_reqs=cached,
            )

        def update_from_output(self, scheduled: Any, output: Any) -> dict[int, Any]:
            return {0: output}

    scheduler = noting(Bare)()
    STEPS.begin()
    first, empty, second = scheduler.schedule(6), scheduler.schedule(0), scheduler.schedule(6)
    assert STEPS.current == 1
    outputs = [SimpleNamespace() for _ in range(3)]
    for scheduled, output in zip((second, empty, first), outputs, strict=True):  # steps may overlap
        scheduler.update_from_output(scheduled, output)
    assert [STEPS.step_of_outputs(output) for output in outputs] == [1, None, 0]
    steps = STEPS.end()
    assert [step["began"] < step["ended"] for step in steps] == [True, True]
    del steps[0]["began"], steps[0]["ended"]
    counts = {"tokens": 6, "sequences": 3, "new_requests": 1, "new_prompt_tokens": 3, "prefill": 2}
    assert steps[0] == {**counts, "requests": ["a"]}


def test_looking_costs_microseconds():
    from rollout_bench.measure.probes.message_probes import probe_costs

    assert all(0 < cost < 2e-5 for cost in costs(calls=200).values())
    assert set(probe_costs()) == {"put_s", "got_s", "encode_s", "decode_s", "step_s"}


def test_sizes_of_bare_objects_are_those_of_pickle():
    from vllm import SamplingParams

    from rollout_bench.measure.probes.message_probes import pickled_bytes

    assert pickled_bytes()["SamplingParams"] == len(pickle.dumps(SamplingParams(), protocol=5)) > 100
