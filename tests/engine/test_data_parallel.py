"""Two replicas on two cores: real engines, released together, with a long-tailed load of their own each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from launching import SETTINGS, Launching, own_flags, tiny_spec

from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each replica"),
]

TAIL = {"distribution": "lognormal", "median": 40, "sigma": 1.0, "low": 4, "high": 300}


def two_replicas(folder: Path, **changes: dict[str, Any]) -> Launching:
    args = {**SETTINGS["engine"]["args"], "max_model_len": 512, "data_parallel_size": 2}
    engine = {"args": args, **changes.pop("engine", {})}
    return Launching(folder, tiny_spec(engine=engine, workload={"output_tokens": TAIL}, **changes))


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launching:
    launch = two_replicas(tmp_path_factory.mktemp("replicas"))
    launch.wait_for("measuring")
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch


@pytest.fixture(scope="module")
def record(launch: Launching) -> Record:
    return launch.record()


@pytest.fixture(scope="module")
def rows(launch: Launching) -> list[SequenceRow]:
    return read_sequences(sequences_path(launch.out), launch.record())


def test_an_iteration_is_the_step_of_both(record: Record) -> None:
    assert [iteration.warmup for iteration in record.iterations] == [True, False, False]
    for iteration in record.iterations:
        parts = iteration.replicas
        assert parts is not None
        assert iteration.output_tokens == sum(part.output_tokens for part in parts)
        assert (iteration.requests, iteration.sequences, iteration.prompt_tokens) == (16, 16, 16 * 130)
        assert [part.sequences for part in parts] == [8, 8]
        assert iteration.elapsed_s == max(part.end_s for part in parts)
        assert min(part.start_offset_s for part in parts) == 0
        assert parts[0].output_tokens != parts[1].output_tokens  # so that one waits for the other
    assert [flag.code for flag in own_flags(record) if flag.code != "replicas_apart"] == []


def test_both_are_released_together(record: Record) -> None:
    spreads = [max(part.start_offset_s for part in i.replicas or []) for i in record.iterations]
    assert min(spreads) < 0.01  # others may have the core of one of them for a moment


def test_each_has_prompts_of_its_own_and_times_from_the_common_release(record: Record, rows: list[SequenceRow]) -> None:
    for iteration in record.iterations:
        own = [row for row in rows if row.iteration == iteration.index]
        assert [(row.replica, row.prompt, row.sample) for row in own] == [
            (replica, 4 * replica + prompt, sample) for replica in (0, 1) for prompt in range(4) for sample in (0, 1)
        ]
        assert len({row.output_tokens for row in own if row.replica == 0}) > 2
        for number, part in enumerate(iteration.replicas or []):
            last = max(row.last_token_s or 0 for row in own if row.replica == number)
            assert last == pytest.approx(part.end_s, abs=0.25)
        assert iteration.cached_prompt_tokens == 8 * 128


def test_the_start_is_the_slowest_s_and_each_is_kept(record: Record) -> None:
    starts = record.startup.replicas
    assert starts is not None
    assert record.startup.init_s in [start.init_s for start in starts]
    assert record.startup.import_s + record.startup.init_s == max(start.import_s + start.init_s for start in starts)
    assert len({start.kv_cache_tokens for start in starts}) == 1
    assert record.engine.resolved["data_parallel_size"] == 1  # each is whole
