"""Rollouts on real engines: a router hands a step's sequences out, and every one is accounted for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from launching import SETTINGS, Launching, own_flags, tiny_spec

from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.spec import RolloutSpec, Spec
from rollout_bench.contracts.store import sequences_path

pytestmark = [pytest.mark.engine]
two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each replica")

Rows = list[SequenceRow]

TAIL = {"distribution": "lognormal", "median": 40, "sigma": 1.0, "low": 4, "high": 300}


def rollout_spec(replicas: int = 1, workload: dict[str, Any] | None = None, **more: Any) -> Spec:
    """Return the spec of a rollout that runs in seconds; `more` is laid over its other parts.

    The worker of an engine is a process of its own, unless `worker_apart` is False: in the core's it starts sooner.
    """
    args = {**SETTINGS["engine"]["args"], "max_model_len": 512}
    if replicas > 1:
        args["data_parallel_size"] = replicas
    rollout = RolloutSpec(router="least_in_flight" if replicas > 1 else None)
    engine = {"args": args, "multiprocess": more.pop("worker_apart", True)}
    spec = tiny_spec(engine=engine, workload={"logprobs": 0, **(workload or {})}, **more)
    return spec.model_copy(update={"mode": "rollout", "rollout": rollout})


def measured(folder: Path, spec: Spec) -> Launching:
    launch = Launching(folder, spec)
    assert launch.finish() == 0, launch.said + launch.log_text()[-4000:]
    return launch


def rows_of(launch: Launching) -> Rows:
    return read_sequences(sequences_path(launch.out), launch.record())


def own(record: Record) -> list[str]:
    return [flag.code for flag in own_flags(record) if flag.code != "batch_not_at_once"]


NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4, "prompt_lookup_min": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Rows]:
    """Return record and sequences of one engine whose tokens do not depend on chance, and some of which are drafted."""
    spec = rollout_spec(workload={"temperature": 0.0}, measuring={"iterations": 3})
    args = {**spec.engine.args, "speculative_config": NGRAM}
    spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"args": args})})
    launch = measured(tmp_path_factory.mktemp("alone"), spec)
    return launch.record(), rows_of(launch)


def test_one_engine_generates_a_step(alone: tuple[Record, Rows]) -> None:
    record, rows = alone
    assert [iteration.warmup for iteration in record.iterations] == [True, False, False, False]
    for iteration in record.iterations:
        assert (iteration.requests, iteration.sequences, iteration.output_tokens) == (8, 8, 8 * 16)
        of = [row for row in rows if row.iteration == iteration.index]
        assert [(row.prompt, row.sample) for row in of] == [(p, s) for p in range(4) for s in (0, 1)]
        assert all(0 <= (row.sent_s or 0) < (row.last_token_s or 0) <= iteration.elapsed_s + 0.05 for row in of)
        assert iteration.router is not None
        assert iteration.router.decisions == 8
        assert iteration.client is not None
        (part,) = iteration.replicas or []
        assert part.prompts == 4
        assert part.preemptions == 0
        assert part.output_tokens == iteration.output_tokens
        assert 0.2 * iteration.elapsed_s < part.elapsed_s <= iteration.elapsed_s + 0.05  # the rest is the router's
        assert iteration.cached_prompt_tokens == 4 * 128  # of 130 tokens of each second sample
    assert len({row.digest for row in rows}) == 4 * 4  # samples of one prompt are alike
    assert set(own(record)) <= {"engine_fallback"}  # vLLM can't schedule ahead with n-grams


def test_the_engine_knows_what_was_drafted_and_what_was_accepted(alone: tuple[Record, Rows]) -> None:
    for iteration in alone[0].iterations:
        done = iteration.drafting
        assert done is not None
        assert 0 < done.drafts <= done.draft_tokens <= 3 * done.drafts
        assert sum(done.accepted_by_position) == done.accepted_tokens <= done.draft_tokens
        assert len(done.accepted_by_position) == 3


@two_cores
def test_two_engines_share_a_step(tmp_path: Path) -> None:
    load = {"prompts": 6, "samples_per_prompt": 2, "output_tokens": TAIL}
    launch = measured(tmp_path, rollout_spec(2, load, worker_apart=False))
    record, rows = launch.record(), rows_of(launch)
    for iteration in record.iterations:
        of = [row for row in rows if row.iteration == iteration.index]
        assert (len({row.prompt for row in of}), len(of)) == (6, 12)
        assert iteration.output_tokens == sum(row.output_tokens for row in of)
        parts = iteration.replicas or []
        assert sum(part.requests for part in parts) == iteration.requests == 12
        for number, part in enumerate(parts):
            theirs = [row for row in of if row.replica == number]
            assert part.requests == part.sequences == len(theirs)
            assert part.elapsed_s <= iteration.elapsed_s + 1e-6
            assert part.prompts == len({row.prompt for row in theirs})
            assert part.peak_running is not None
            assert 0 < part.peak_running <= 8
            assert part.kv_cache_peak is not None
    assert own(record) == []


@two_cores
@pytest.mark.untimed
def test_a_replica_that_is_killed_in_a_step_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    launch = Launching(tmp_path, rollout_spec(2, measuring={"warmup_iterations": 1, "iterations": 100_000}))
    launch.wait_for("iteration 1/")
    assert len([line for line in launch.child_lines if line.startswith("VLLM::")]) == 4  # core and worker of each
    logs = [launch.log_text(), launch.log.with_suffix(".replica-1.log").read_text()]
    cores = [re.findall(r"core ids=\[([\d, ]+)\]", log) for log in logs]
    assert cores[0] != cores[1] != []  # each computes on its own
    launch.child("engine.worker", index=1).kill()
    assert launch.finish() == 1
    assert launch.survivors() == []
    failure = launch.failure()
    assert (failure.category, failure.phase) == ("crash", "measuring")
    assert failure.cause.startswith("replica 1 of 2: ")
    assert failure.log.endswith(".replica-1.log")
    assert launch.left_behind() == [f"failures/rollout/{launch.spec.experiment()}/launch-0.json"]
