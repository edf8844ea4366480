"""The router hands out a step and ends it; replicas are threads at the other end of its lines."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from launching import tiny_spec

from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.rollout.exchange import Ended, Generate, Over, heard, written
from rollout_bench.modes.rollout.router import Router
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.workloads.requests import Source


def rollout_spec(workload: dict[str, Any] | None = None, **rollout: Any) -> Spec:
    spec = tiny_spec(workload={"logprobs": 0, **(workload or {})})
    return spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec(**rollout)})


@dataclass
class Partner:
    """A replica: answers each sequence after `delay_s(prompt)`."""

    end: socket.socket
    delay_s: Callable[[int], float] = lambda prompt: 0.0
    words: list[Generate] = field(default_factory=list)
    over: Over | None = None

    def run(self) -> None:
        due: dict[int, float] = {}
        unread = b""
        while self.over is None:
            left = min(due.values(), default=time.monotonic() + 0.2) - time.monotonic()
            if select.select([self.end], [], [], max(left, 0))[0]:
                content = self.end.recv(1 << 20)
                if not content:
                    return
                *lines, unread = (unread + content).split(b"\n")
                for line in lines:
                    self.take(heard(line), due)
            for number in [n for n, at in due.items() if at <= time.monotonic()]:
                del due[number]
                self.answer(number)

    def take(self, word: object, due: dict[int, float]) -> None:
        if isinstance(word, Generate):
            self.words.append(word)
            due[word.id] = time.monotonic() + self.delay_s(word.prompt)
        elif isinstance(word, Over):
            self.over = word

    def answer(self, number: int) -> None:
        self.end.sendall(written(Ended(id=number, token_ids=[7] * 5, logprobs=None, finish_reason="length")))


class Stage:
    """A router and its replicas."""

    def __init__(self, spec: Spec, replicas: int, **of_partner: Any) -> None:
        dataset = of_partner.pop("dataset", None)
        self.router = Router(spec, 0, lambda workload, vocabulary: Source(workload, vocabulary, "none", dataset))
        ends = [socket.socket(fileno=os.dup(line)) for line in self.router.connect(replicas)]
        self.router.connected()
        self.partners = [Partner(end, **of_partner) for end in ends]
        self.threads = [threading.Thread(target=partner.run, daemon=True) for partner in self.partners]
        self.router.ready(2048)
        self.router.prepare()

    def step(self) -> Iteration:
        for thread in self.threads:
            thread.start()
        self.router.begin()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()
        words = sum(len(partner.words) for partner in self.partners)
        counts = {"requests": words, "sequences": words, "prompt_tokens": 0, "output_tokens": 0}
        return self.router.completed(Iteration(index=0, warmup=False, elapsed_s=1.0, **counts))

    def close(self) -> None:
        for partner in self.partners:
            partner.end.close()
        self.router.close()


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(*given: Any, **more: Any) -> Stage:
        stages.append(Stage(*given, **more))
        return stages[-1]

    yield make
    for one in stages:
        one.close()


def test_every_sequence_goes_to_one_engine_with_its_tokens(stage: Callable[..., Stage]) -> None:
    spec = rollout_spec({"prompts": 5, "samples_per_prompt": 3}, router="least_in_flight")
    one = stage(spec, 2, delay_s=lambda prompt: 0.2)
    step = one.step()
    asked = Source(spec.workload, 2048, "none").requests(0, 0)
    words = sorted((word for partner in one.partners for word in partner.words), key=lambda word: word.id)
    assert [(w.prompt, w.sample, w.prompt_token_ids, w.output_tokens) for w in words] == [
        (r.prompt, r.sample, r.prompt_token_ids, r.output_tokens) for r in asked
    ]
    assert [len(partner.words) for partner in one.partners] == [8, 7]
    assert all(partner.over for partner in one.partners)
    assert step.router is not None
    assert step.router.decisions == 15
    assert 0 < step.router.handing_out_s < step.elapsed_s
    assert step.elapsed_s >= 0.2
    assert step.client is not None
    assert step.client.loop_delay_p99_s is not None


def test_a_vanished_replica_ends_the_router_silently(stage: Callable[..., Stage]) -> None:
    one = stage(rollout_spec(router="round_robin"), 2, delay_s=lambda prompt: 60.0)
    one.router.begin()
    one.partners[1].end.close()
    assert one.router._thread is not None
    one.router._thread.join(50)
    assert not one.router._thread.is_alive()
    assert not select.select([one.router.descriptor], [], [], 0)[0]
    one.router.check()


def test_what_the_router_fails_with_wakes_the_supervisor(stage: Callable[..., Stage]) -> None:
    one = stage(rollout_spec(router="round_robin"), 1)
    one.partners[0].end.sendall(b"no word\n")
    one.router.begin()
    assert select.select([one.router.descriptor], [], [], 10)[0]
    with pytest.raises(ValueError, match="Invalid JSON"):
        one.router.check()
